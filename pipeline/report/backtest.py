"""A backtest for people: a table, and one figure of quality by day with a mark at each night.

Promises: equal days give equal bytes; the title states the finding; without colour the policies
differ by their dashes and by the names at their ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from pipeline.base import format_instant, parse_instant
from pipeline.report.canvas import BLUE, GREY, INK, LIGHT, ORANGE, canvas, spread
from pipeline.report.card import svg
from pipeline.report.table import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NIGHTLY, ADAPTIVE, NEVER = "nightly", "adaptive", "never"
_GREEN: Final = "#007A5A"
_STROKES: Final = {
    NIGHTLY: (BLUE, "-"),
    "weekly": (_GREEN, (0, (1, 1.2))),
    ADAPTIVE: (ORANGE, (0, (5, 1.5))),
    NEVER: (GREY, (0, (4, 1.5, 1, 1.5))),
}
_SMOOTH: Final = 7
_TICKS: Final = 6
_APART: Final = 0.06
"""Least distance of two names at the right, as a share of the height."""


@dataclass(frozen=True)
class Day:
    """One as-of of one policy.

    Attributes
    ----------
    retrained
        Whether a night was run.
    reason
        Why, or why not.
    decision, sentence
        Of the night.
    user_days, ndcg, base_ndcg
        Of the lists that were live on the day before: whom they are a mean over, their NDCG, and
        that of the lists without what was folded in; ``None`` where nobody could be asked.
    training_seconds, foldin_seconds
        What the night's trainings took, refit included, and what folding in took.
    """

    as_of: datetime
    retrained: bool
    reason: str
    decision: str | None = None
    sentence: str | None = None
    user_days: int = 0
    ndcg: float | None = None
    base_ndcg: float | None = None
    training_seconds: float = 0.0
    foldin_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "as_of": format_instant(self.as_of)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Rebuild what `to_dict` told."""
        return cls(**{**told, "as_of": parse_instant(told["as_of"])})


@dataclass(frozen=True)
class PolicyRow:
    """What a policy came to; the first night, which all have, counts in nothing but `ndcg`.

    Attributes
    ----------
    nights
        How many were run.
    ndcg, base_ndcg
        Means over all user-days; ``None`` where nobody could be asked.
    of_nightly
        `ndcg` as a share of what `nightly` reached; ``None`` where that was not asked for.
    training_share
        `training_seconds` as a share of those of `nightly`.
    ndcg_per_training_minute
        ``None`` where nothing was trained.
    answered_days
        Days from the planted shift to the first night at or after it; ``None`` without either.
    """

    policy: str
    days: int
    nights: int
    training_seconds: float
    foldin_seconds: float
    ndcg: float | None
    base_ndcg: float | None
    of_nightly: float | None
    training_share: float | None
    ndcg_per_training_minute: float | None
    answered_days: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def summary(days: Mapping[str, Sequence[Day]], plant: datetime | None) -> tuple[PolicyRow, ...]:
    """Return a row a policy."""
    reached = {name: _mean(lived, "ndcg") for name, lived in days.items()}
    seconds = {name: sum(day.training_seconds for day in lived[1:]) for name, lived in days.items()}
    most, spent = reached.get(NIGHTLY), seconds.get(NIGHTLY)
    rows = []
    for name, lived in days.items():
        value, took = reached[name], seconds[name]
        rows.append(
            PolicyRow(
                policy=name,
                days=len(lived),
                nights=sum(day.retrained for day in lived[1:]),
                training_seconds=took,
                foldin_seconds=sum(day.foldin_seconds for day in lived[1:]),
                ndcg=value,
                base_ndcg=_mean(lived, "base_ndcg"),
                of_nightly=value / most if value is not None and most else None,
                training_share=took / spent if spent else None,
                ndcg_per_training_minute=60 * value / took if value is not None and took else None,
                answered_days=_answered(lived, plant),
            )
        )
    return tuple(rows)


def text(days: Mapping[str, Sequence[Day]], plant: datetime | None) -> str:
    """Return the finding and a row a policy."""
    header = ["policy", "days", "nights", "training s", "NDCG", "without fold-in", "of nightly"]
    header += ["NDCG/min"] + ([] if plant is None else ["answered"])
    rows = []
    for row in summary(days, plant):
        cells = [
            row.policy,
            f"{row.days}",
            f"{row.nights}",
            f"{row.training_seconds:,.1f}",
            _figure(row.ndcg, ".4f"),
            _figure(row.base_ndcg, ".4f"),
            _figure(row.of_nightly, ".1%"),
            _figure(row.ndcg_per_training_minute, ".4f"),
        ]
        if plant is not None:
            cells.append("never" if row.answered_days is None else f"{row.answered_days:g} days")
        rows.append(cells)
    return f"{title(days)}\n\n{grid(header, rows)}"


def title(days: Mapping[str, Sequence[Day]]) -> str:
    """State the finding."""
    rows = {row.policy: row for row in summary(days, None)}
    asked = rows.get(ADAPTIVE) or next((r for n, r in rows.items() if n != NIGHTLY), None)
    if asked is None or asked.of_nightly is None:
        ranked = sorted(rows.values(), key=lambda row: -(row.ndcg or 0.0))
        reached = _figure(ranked[0].ndcg, ".4f")
        return f"{ranked[0].policy} reaches an NDCG of {reached}"
    told = f"{asked.policy} keeps {asked.of_nightly:.1%} of what retraining every night reaches"
    share = asked.training_share
    return told if share is None else f"{told}, with {share:.0%} of its training"


def figure(days: Mapping[str, Sequence[Day]], plant: datetime | None) -> bytes:
    """Draw the quality of each policy by day, a mark at each of its nights, as SVG."""
    about = f"NDCG of the lists that were live, mean of the last {_SMOOTH} steps; marks: nights"
    drawn, axes = canvas(1, title(days), about, row=3.4, left=0.09, width=0.74)
    axes.grid(visible=False)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    start = min(lived[0].as_of for lived in days.values())
    ends: list[tuple[float, str, str]] = []
    for name, lived in days.items():
        colour, dash = _STROKES.get(name, (INK, "-"))
        points = [
            (_since(start, day.as_of), value, day.retrained and name != NIGHTLY)
            for day, value in zip(lived, _smoothed(lived), strict=True)
            if value is not None
        ]
        if not points:
            continue
        at, line, _ = zip(*points, strict=True)
        axes.plot(at, line, color=colour, linestyle=dash, linewidth=1.8)
        for x, y, night in points:
            if night:
                axes.plot([x], [y], "o", color=colour, markersize=4)
        ends.append((line[-1], name, colour))
    if plant is not None:
        at_plant = _since(start, plant)
        axes.axvline(at_plant, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate("planted shift", (at_plant, 1.0), xycoords=("data", "axes fraction"),
                      fontsize=9, color=INK, ha="center", va="bottom")  # fmt: skip
    low, high = axes.get_ylim()
    ends.sort(reverse=True)
    placed = spread([value for value, _, _ in ends], _APART * (high - low), low)
    for height, (_, name, colour) in zip(placed, ends, strict=True):
        axes.annotate(name, (1.015, height), xycoords=("axes fraction", "data"), fontsize=9,
                      color=colour, va="center")  # fmt: skip
    _dates(axes, start, max(lived[-1].as_of for lived in days.values()))
    axes.set_ylabel("NDCG", fontsize=9, color=GREY)
    rows = "; ".join(
        f"{row.policy}: {_figure(row.ndcg, '.4f')} in {row.nights} nights"
        for row in summary(days, plant)
    )
    return svg(drawn, "backtest", f"{title(days)}. {rows}")


def _dates(axes: Axes, start: datetime, end: datetime) -> None:
    """Write some of the days below the axes."""
    whole = _since(start, end)
    at = sorted({round(whole * part / (_TICKS - 1)) for part in range(_TICKS)})
    told = [start + timedelta(days=days) for days in at]
    axes.set_xticks(at, [f"{day.day} {day:%b}" for day in told])


def _since(start: datetime, instant: datetime) -> float:
    return (instant - start).total_seconds() / 86_400


def _smoothed(days: Sequence[Day]) -> list[float | None]:
    """Take the mean over user-days of each step and those before it."""
    return [_mean(days[max(0, n - _SMOOTH + 1) : n + 1], "ndcg") for n in range(len(days))]


def _mean(days: Sequence[Day], name: str) -> float | None:
    told = [(getattr(day, name), day.user_days) for day in days if getattr(day, name) is not None]
    weight = sum(count for _, count in told)
    return sum(value * count for value, count in told) / weight if weight else None


def _answered(days: Sequence[Day], plant: datetime | None) -> float | None:
    if plant is None:
        return None
    after = [day.as_of for day in days[1:] if day.retrained and day.as_of > plant]
    return (after[0] - plant).total_seconds() / 86_400 if after else None


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
