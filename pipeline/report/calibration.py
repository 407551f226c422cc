"""Calibration of the gate: a sentence, a table for a terminal, and one figure.

Guarantees: equal results give equal bytes; the two kinds of replays differ by marks and dashes, not
only by colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.evaluation.calibration import Calibration, RecipePair, Replay
from pipeline.evaluation.gate.e_process_status import MAX_E_VALUE
from pipeline.number_text import chance, change, share
from pipeline.report.figure import BLUE, INK, LIGHT, ORANGE, write
from pipeline.report.svg_card import card, svg
from pipeline.report.wording import power_of_ten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The e-value of an equal recipe falls without limit; the drawn exponents of 10 are bounded.
_FLOOR, _TOP = -2.0, math.log10(MAX_E_VALUE)
_SHIFT = 0.012
_SEED_LINES = ("one block", "pairs", "disjoint", "seeds", "e-values")
"""Lines of `text` that need seed noise."""


def sentence(result: Calibration) -> str:
    """Return the measured error rate and power of the gate."""
    power = (
        f"a lift of {change(result.planted)} is detected within {len(result.users)} blocks in "
        f"{share(result.power)} of replays"
    )
    if not result.seed_noise:
        return (
            "the recipe has no seed noise; when lists are split at random into two equal sides, "
            f"one block prefers one side in {_tossed(result)}; {power}"
        )
    return (
        f"one block favours an equal recipe in {share(result.rate)} of cases, at most "
        f"{_limit(result.rate_upper)}; {result.switched} of {len(result.equal)} e-processes of "
        f"equal recipes reached a switch; {power}"
    )


def text(result: Calibration, recipe: str, k: int, begins: Sequence[datetime]) -> str:
    """Return a calibration as lines.

    Parameters
    ----------
    recipe
        Name of the champion's recipe.
    k
        Length of the lists.
    begins
        Starts of the holdouts, oldest first.
    """
    blocks = len(result.users)
    users = ", ".join(f"{n:,}" for n in result.users)
    days = ", ".join(f"{day:%Y-%m-%d}" for day in begins)
    fits = f"{result.replicates} replicates" if result.seed_noise else "no seed noise"
    lines = {
        "recipe": f"{recipe}, NDCG@{k} {result.mean:.4f}, {fits}",
        "cutoffs": f"{days}; {users} users",
        "one block": f"false switches {share(result.rate)}, at most {_limit(result.rate_upper)} "
        f"(95 %; v̂, the variance of the lift ÷ its squared standard error, {result.v_hat:.2f}; "
        f"{result.df} degrees of freedom; standard error {share(result.se)})",
        "pairs": f"{result.passed} of {result.pairs} ordered pairs of replicates passed",
        "disjoint": f"{result.disjoint_passed} of {result.disjoint_pairs} pairs without a common "
        f"replicate passed, at most {_limit(result.disjoint_upper)} (95 %)",
        "seeds": f"seed SD {share(result.seed_sd)}; SD of z {result.sd_z:.2f} (1 expected)",
        "e-values": f"{result.switched} of {len(result.equal)} e-processes of equal recipes "
        f"reached {result.threshold:,.0f} and {change(result.min_lift)} in {blocks} blocks",
        "users": f"false switches in {_tossed(result)}; in a split, each user's list is "
        "reversed on one of the two sides",
        "power": f"{result.detections} of {len(result.better)} replays detected "
        f"{change(result.planted)} within {blocks} blocks ({_planted(result)})",
    }
    shown = [(name, lines[name]) for name in lines if result.seed_noise or name not in _SEED_LINES]
    shown += [("weeks", _pair(pair, recipe)) for pair in result.recipe_pairs]
    return "\n".join(f"{name + ':':<11}{line}" for name, line in shown)


def _pair(pair: RecipePair, champion: str) -> str:
    text = (
        f"{pair.recipe} against {champion}: lift {change(pair.lift)} over {pair.blocks} blocks, "
        f"Q {pair.q:.1f} ({chance(pair.q_chance)})"
    )
    if pair.period_sd is None:
        return text
    return f"{text}, SD of the lift from block to block {share(pair.period_sd)}"


def _tossed(result: Calibration) -> str:
    return (
        f"{result.tossed_passed:,} of {result.tosses:,} random splits, at most "
        f"{_limit(result.tossed_upper)} (95 %)"
    )


def figure(result: Calibration) -> bytes:
    """Draw the e-processes of equal recipes and of a better one by block, as SVG."""
    blocks = len(result.users)
    # Both kinds end at the same block: they are shifted apart so that marks do not hide marks.
    drawn, (axes,) = card(2.3, title(result), _about(result), left=0.78, right=1.05)
    bound = math.log10(result.threshold)
    highest = max(_height(r.log_e[-1]) for r in (*result.equal, *result.better))
    _draw(axes, result.equal, ORANGE, "x", (0, (3, 2)), -_SHIFT * blocks)
    _draw(axes, result.better, BLUE, "o", "-", _SHIFT * blocks)
    axes.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.axhline(0, color=LIGHT, linewidth=1, zorder=0)
    axes.grid(visible=False)
    axes.set_xlim(-0.05 * blocks, 1.03 * blocks)
    axes.set_ylim(_FLOOR - 0.15, max(bound, highest) + 0.3)
    axes.set_xticks(range(blocks + 1))
    axes.set_xlabel("blocks of days")
    steps = range(int(_FLOOR), math.floor(max(bound, highest)) + 1, 2)
    axes.set_yticks(steps, [*map(power_of_ten, steps)])
    right = 1.06 * blocks
    write(axes, right, bound, f"{result.threshold:,.0f} needed", va="bottom")
    ends = {
        BLUE: (result.better, f"● better by\n{change(result.planted).removeprefix('+')}"),
        ORANGE: (result.equal, "× equal"),
    }
    for colour, (replays, label) in ends.items():
        # The label stands at the end of the median replay.
        at = sorted(_height(replay.log_e[-1]) for replay in replays)[len(replays) // 2]
        near = abs(at - bound) < 0.35  # the label would lie on that of the threshold
        height, side = (bound - 0.35, "top") if near else (at, "center")
        write(axes, right, height, label, colour, va=side)
    return svg(drawn, "calibration", f"{title(result)}. {sentence(result)}")


def title(result: Calibration) -> str:
    """State the number of false switches and of detected gains."""
    gain = change(result.planted).removeprefix("+")
    wrong = "No seed noise"
    if result.seed_noise:
        wrong = f"{result.switched} of {len(result.equal)} equal recipes reach a switch"
    return f"{wrong}; {result.detections} of {len(result.better)} replays detect a gain of {gain}"


def _about(result: Calibration) -> str:
    return (
        f"e-values of {len(result.equal)} replays each, log scale; "
        f"{power_of_ten(int(_FLOOR))}: this or less, {MAX_E_VALUE:,.0f}: this or more. "
        f"Planted gain: {_planted(result)}"
    )


def _planted(result: Calibration) -> str:
    if result.every == 1:
        return "every list of the other side reversed"
    return f"one list in {result.every} of the other side reversed, drawn anew in each replay"


def _draw(
    axes: Axes, replays: Sequence[Replay], colour: str, mark: str, dash: object, shift: float
) -> None:
    at: list[float] = []
    heights: list[float] = []
    # One line with gaps instead of a line per replay: the file stays below 60 kB.
    for replay in replays:
        # An e-process starts at an e-value of 1.
        path = [0.0, *(_height(log) for log in replay.log_e)]
        at += [0.0, *(block + shift for block in range(1, len(path))), math.nan]
        heights += [*path, math.nan]
    axes.plot(at, heights, color=colour, linestyle=dash, linewidth=0.7, alpha=0.5, clip_on=False)
    ends = [_height(replay.log_e[-1]) for replay in replays]
    axes.plot([at[-2]] * len(ends), ends, mark, color=colour, markersize=3.5, clip_on=False)


def _height(log_e: float) -> float:
    return min(max(log_e / math.log(10), _FLOOR), _TOP)


def _limit(value: float) -> str:
    """Format an upper limit, rounded up so that the text is never below the value."""
    # The decimals of `share`. At least one step: a limit of 0 would claim certainty.
    steps = 10_000 if value < 0.00995 else 1000
    return share(max(math.ceil(steps * value), 1) / steps)
