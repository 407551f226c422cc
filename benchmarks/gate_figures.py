"""Measured figures beside the expected ones, and whether they agree.

Tolerances: ± 20 % for other seeds, a third for the simulated figures of the gate. Counts have the
noise of counting in addition, on the side of the expected figure as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.2
THIRD = 1 / 3


@dataclass(frozen=True)
class Figure:
    """A measured figure, the expected one, and whether they agree."""

    what: str
    measured: str
    asked: str
    ok: bool


def near(
    what: str, measured: float, asked: float, form: str = "{:.3f}", noise: float = 0.0
) -> Figure:
    """Compare within 20 %, and some noise of the figure itself."""
    ok = abs(measured - asked) <= NEAR * abs(asked) + noise
    return Figure(what, form.format(measured), form.format(asked), ok)


def within_third(
    what: str, measured: float, asked: float | None, form: str = "{:.3f}", *, noise: float = 0.0
) -> Figure:
    """Compare within a third, and some noise of both figures; None: no figure is specified."""
    if asked is None:
        return shown(what, form.format(measured))
    ok = bool(abs(measured - asked) <= THIRD * abs(asked) + noise)
    return Figure(what, form.format(measured), form.format(asked), ok)


def at_least(what: str, measured: float, asked: float, form: str = "{:.0f}") -> Figure:
    """Require a lower bound."""
    return Figure(what, form.format(measured), f"at least {form.format(asked)}", measured >= asked)


def at_most(what: str, measured: float, asked: float, form: str = "{:.0f}") -> Figure:
    """Require an upper bound."""
    return Figure(what, form.format(measured), f"at most {form.format(asked)}", measured <= asked)


def between(what: str, measured: float, low: float, high: float, form: str = "{:.1f}") -> Figure:
    """Require a range, or within 20 % of its ends."""
    asked = f"{form.format(low)} to {form.format(high)}"
    ok = low * (1 - NEAR) <= measured <= high * (1 + NEAR)
    return Figure(what, form.format(measured), asked, ok)


def shown(what: str, measured: str) -> Figure:
    """Show a figure without an expected value."""
    return Figure(what, measured, "not specified", True)


def table(title: str, figures: Sequence[Figure]) -> str:
    """Write one line for each figure."""
    width = max(len(f.what) for f in figures)
    measured = max(len(f.measured) for f in figures)
    lines = [f"== {title}"]
    lines += [
        f"{'ok ' if f.ok else 'OFF'}  {f.what:<{width}}  {f.measured:>{measured}}  "
        f"expected: {f.asked}"
        for f in figures
    ]
    return "\n".join(lines)
