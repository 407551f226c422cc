"""A figure beside the one that a right implementation reproduces, and whether they agree.

Tolerances: ± 20 %, for another hash of ids, other dice. What was counted has the noise of counting
on top, on the side of the figure as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.2
_RUNS = 2_000
"""Years behind each simulated figure that we compare with."""


@dataclass(frozen=True)
class Figure:
    """What was measured, what was expected, and whether that is near enough."""

    what: str
    ours: str
    asked: str
    ok: bool


def near(what: str, ours: float, asked: float, form: str = "{:.3f}", noise: float = 0.0) -> Figure:
    """Within 20 %, and some noise of the figure itself."""
    ok = abs(ours - asked) <= NEAR * abs(asked) + noise
    return Figure(what, form.format(ours), form.format(asked), ok)


def rate(what: str, ours: float, asked: float) -> Figure:
    """Switches a year, counted over `_RUNS` years on the other side."""
    return near(what, ours, asked, "{:.3f}", noise=2 * (asked / _RUNS) ** 0.5)


def days(what: str, ours: float, asked: float, step: int) -> Figure:
    """A median of days, for a rule that looks every so many: one look sooner or later is alike."""
    ok = abs(ours - asked) <= max(NEAR * asked, step)
    return Figure(what, f"{ours:.0f}", f"{asked:.0f}", ok)


def at_least(what: str, ours: float, asked: float, form: str = "{:.0f}") -> Figure:
    """No less than a bound."""
    return Figure(what, form.format(ours), f"at least {form.format(asked)}", ours >= asked)


def at_most(what: str, ours: float, asked: float, form: str = "{:.0f}") -> Figure:
    """No more than a bound."""
    return Figure(what, form.format(ours), f"at most {form.format(asked)}", ours <= asked)


def between(what: str, ours: float, low: float, high: float, form: str = "{:.1f}") -> Figure:
    """Inside a range, or within 20 % of its ends."""
    asked = f"{form.format(low)} to {form.format(high)}"
    ok = low * (1 - NEAR) <= ours <= high * (1 + NEAR)
    return Figure(what, form.format(ours), asked, ok)


def shown(what: str, ours: str) -> Figure:
    """A figure that nothing is asked of."""
    return Figure(what, ours, "not said", True)


def table(title: str, figures: Sequence[Figure]) -> str:
    """Write figures, a line each."""
    width = max(len(f.what) for f in figures)
    ours = max(len(f.ours) for f in figures)
    lines = [f"== {title}"]
    lines += [
        f"{'ok ' if f.ok else 'OFF'}  {f.what:<{width}}  {f.ours:>{ours}}  GATE: {f.asked}"
        for f in figures
    ]
    return "\n".join(lines)
