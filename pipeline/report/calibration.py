"""A calibration of the gate for people: a sentence, a few lines, and one figure.

Promises: equal results give equal bytes; the title states the finding; without colour the two kinds
of accounts differ by marks and dashes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.evaluation.calibration import Calibration, Replay
from pipeline.evaluation.gate.e_process import MOST_POINTS
from pipeline.report.figure import BLUE, GREY, INK, LIGHT, ORANGE
from pipeline.report.svg_card import card, svg, write
from pipeline.report.wording import change

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FLOOR, _TOP = -2.0, math.log10(MOST_POINTS)
_SHIFT = 0.012


def sentence(found: Calibration) -> str:
    """Say how often the gate is wrong on these data, and what it finds."""
    blocks = len(found.users)
    power = (
        f"a change of {change(found.planted)} is found within {blocks} blocks in "
        f"{100 * found.power:.0f} % of replays"
    )
    if not found.dice:
        return (
            "no dice move this recipe's lists, so an equal one gives equal ones; where a coin has "
            "shared lists out over two sides, one block takes one for better in "
            f"{_tossed(found)}; {power}"
        )
    return (
        f"one block takes an equal recipe for a better one in {_share(found.rate)} of cases, at "
        f"most {_limit(found.rate_upper)}; {found.switched} of {len(found.equal)} accounts of "
        f"equal recipes came to a switch; {power}"
    )


def text(found: Calibration, recipe: str, k: int, begins: Sequence[str]) -> str:
    """Tell a calibration line by line.

    Parameters
    ----------
    recipe
        Name of the champion's recipe.
    k
        Length of the lists.
    begins
        Where the holdouts begin, oldest first, as written in the ledger.
    """
    users = ", ".join(f"{n:,}" for n in found.users)
    fits = f"{found.salts} fits a cut-off" if found.dice else "all fits of a cut-off alike"
    lines = [
        ("recipe", f"{recipe}, NDCG@{k} {found.mean:.4f}, {fits}"),
        ("cut-offs", f"{', '.join(day[:10] for day in begins)}; {users} users"),
    ]
    if found.dice:
        lines += [
            (
                "one block",
                f"false switches {_share(found.rate)}, at most {_limit(found.rate_upper)} "
                f"(95 %; v̂ {found.v_hat:.2f}, {found.df} degrees of freedom, standard error "
                f"{100 * found.se:.1f} %)",
            ),
            ("pairs", f"{found.passed} of {found.pairs} ordered pairs of fits passed"),
            (
                "apart",
                f"{found.disjoint_passed} of {found.disjoint_pairs} pairs that share no fit, at "
                f"most {_limit(found.disjoint_upper)} (95 %)",
            ),
            ("seeds", f"τ {_share(found.tau)}; sd of z {found.sd_z:.2f}, where 1 is right"),
            (
                "accounts",
                f"{found.switched} of {len(found.equal)} of equal recipes reached "
                f"{found.threshold:,.0f} points and {change(found.min_lift)} "
                f"in {len(found.users)} blocks",
            ),
        ]
    lines += [
        (
            "people",
            f"false switches in {_tossed(found)}: a coin says whose list is upside down on which "
            "of two sides",
        ),
        (
            "power",
            f"{found.found} of {len(found.better)} found {change(found.planted)} within "
            f"{len(found.users)} blocks ({_planted(found)})",
        ),
    ]
    return "\n".join(f"{name + ':':<11}{told}" for name, told in lines)


def _tossed(found: Calibration) -> str:
    return (
        f"{found.tossed_passed:,} of {found.tosses:,} tosses, at most "
        f"{_limit(found.tossed_upper)} (95 %)"
    )


def figure(found: Calibration) -> bytes:
    """Draw the accounts of equal recipes and those of a better one, block by block, as SVG."""
    blocks = len(found.users)
    drawn, (axes,) = card(2.3, title(found), _about(found), left=0.78, right=1.05)
    bound = math.log10(found.threshold)
    highest = max(_height(r.log_points[-1]) for r in (*found.equal, *found.better))
    _draw(axes, found.equal, ORANGE, "x", (0, (3, 2)), -_SHIFT * blocks)
    _draw(axes, found.better, BLUE, "o", "-", _SHIFT * blocks)
    axes.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.axhline(0, color=LIGHT, linewidth=1, zorder=0)
    axes.grid(visible=False)
    axes.set_xlim(-0.05 * blocks, 1.03 * blocks)
    axes.set_ylim(_FLOOR - 0.15, max(bound, highest) + 0.3)
    axes.set_xticks(range(blocks + 1))
    axes.set_xlabel("blocks of days counted", fontsize=8.5, color=GREY)
    steps = range(int(_FLOOR), math.floor(max(bound, highest)) + 1, 2)
    axes.set_yticks(steps, [_power(power) for power in steps])
    right = 1.06 * blocks
    write(axes, right, bound, f"{found.threshold:,.0f} points", INK, va="bottom")
    ends = {
        BLUE: (found.better, f"● better by\n{change(found.planted).removeprefix('+')}"),
        ORANGE: (found.equal, "× equal"),
    }
    for colour, (replays, told) in ends.items():
        at = sorted(_height(replay.log_points[-1]) for replay in replays)[len(replays) // 2]
        near = abs(at - bound) < 0.35
        write(
            axes, right, bound - 0.35 if near else at, told, colour, va="top" if near else "center"
        )
    return svg(drawn, "calibration", f"{title(found)}. {sentence(found)}")


def title(found: Calibration) -> str:
    """State the finding."""
    gain = change(found.planted).removeprefix("+")
    better = f"{found.found} of {len(found.better)} find a gain of {gain}"
    if not found.dice:
        return f"{better}; no dice move the recipe's lists"
    wrong = {0: "No equal recipe comes", 1: "1 equal recipe comes"}.get(
        found.switched, f"{found.switched} equal recipes come"
    )
    return f"{wrong} to a switch, {better}"


def _about(found: Calibration) -> str:
    return (
        f"points of {len(found.equal)} accounts each, on a log scale; {_power(int(_FLOOR))} stands "
        f"for less, too, {MOST_POINTS:,.0f} for more. Planted: {_planted(found)}"
    )


def _planted(found: Calibration) -> str:
    whose = "every list" if found.every == 1 else f"one list in {found.every}"
    again = "" if found.every == 1 else ", other ones in each replay"
    return f"{whose} of the other side upside down{again}"


def _draw(
    axes: Axes, replays: Sequence[Replay], colour: str, mark: str, dash: object, shift: float
) -> None:
    at: list[float] = []
    heights: list[float] = []
    for replay in replays:  # one line with gaps: the file stays small
        path = [0.0, *(_height(log) for log in replay.log_points)]
        at += [0.0, *(block + shift for block in range(1, len(path))), math.nan]
        heights += [*path, math.nan]
    axes.plot(at, heights, color=colour, linestyle=dash, linewidth=0.7, alpha=0.5, clip_on=False)
    ends = [_height(replay.log_points[-1]) for replay in replays]
    axes.plot([at[-2]] * len(ends), ends, mark, color=colour, markersize=3.5, clip_on=False)


def _height(log_points: float) -> float:
    return min(max(log_points / math.log(10), _FLOOR), _TOP)


def _power(exponent: int) -> str:
    """Write a power of ten as people count."""
    return f"{10.0**exponent:g}" if exponent < 0 else f"{10**exponent:,}"


def _share(value: float) -> str:
    """Write a small share with two figures: ``0.20 %``, ``17 %``."""
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if percent < 0.01:
        return "under 0.01 %"
    return f"{percent:.2f} %" if percent < 9.95 else f"{percent:.0f} %"


def _limit(value: float) -> str:
    """Write an upper limit, which nobody may read as less than it is."""
    steps = 10_000 if value < 0.0995 else 100
    return _share(max(math.ceil(steps * value), 1) / steps)
