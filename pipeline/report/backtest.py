"""Summary of a backtest: a row per schedule, the finding, and two tables for a terminal.

Guarantees:

* Costs and nightly runs up to the first promotion count for no schedule, since all schedules share
  them.
* A day without scored user-days has weight 0 in every mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.report.table import grid
from pipeline.report.wording import figure, share
from pipeline.workspace.experiment_artifacts import DayFile

NIGHTLY, ADAPTIVE, NEVER = "nightly", "adaptive", "never"


@dataclass(frozen=True)
class ScheduleRow:
    """Result of a schedule; nightly runs and costs are those after the first promotion.

    Attributes
    ----------
    nights, promoted
        Number of nightly runs, and of those that published new lists.
    training_seconds, foldin_seconds
        Sums over the days.
    ndcg, base_ndcg
        Means over all user-days, the latter of the lists without fold-in; None without user-days.
    of_nightly
        `ndcg` ÷ that of schedule ``nightly``; None if the backtest has no such schedule.
    training_share
        `training_seconds` ÷ those of ``nightly``; None if that is 0 or missing.
    ndcg_per_training_minute
        60 · `ndcg` ÷ `training_seconds`; None without training.
    reaction_days
        Days from the planted shift to the first promotion after it; None without either.
    reaction_cause
        Cause for which the policy requested that run; None if the schedule did.
    """

    schedule: str
    days: int
    nights: int
    promoted: int
    training_seconds: float
    foldin_seconds: float
    ndcg: float | None
    base_ndcg: float | None
    of_nightly: float | None
    training_share: float | None
    ndcg_per_training_minute: float | None
    reaction_days: float | None
    reaction_cause: str | None


def summary(
    days: Mapping[str, Sequence[DayFile]], plant: datetime | None
) -> tuple[ScheduleRow, ...]:
    """Return a row per schedule.

    Parameters
    ----------
    days
        Days of each schedule, in order.
    plant
        Instant of the planted shift.
    """

    def training_seconds(series: Sequence[DayFile]) -> float:
        return sum(day.training_seconds for day in _own(series))

    # All schedules run every night until something is live: they differ only afterwards.
    nightly = days.get(NIGHTLY, ())
    most, spent = mean_of(nightly, "ndcg"), training_seconds(nightly)
    rows = []
    for name, series in days.items():
        own, value, took = _own(series), mean_of(series, "ndcg"), training_seconds(series)
        # The reaction to a shift is the first promotion after it.
        reaction = next((x for x in own if plant and x.promoted and x.as_of > plant), None)
        after = (reaction.as_of - plant) / timedelta(days=1) if reaction and plant else None
        rows.append(
            ScheduleRow(
                schedule=name,
                days=len(series),
                nights=sum(day.retrained for day in own),
                promoted=sum(day.promoted for day in own),
                training_seconds=took,
                foldin_seconds=sum(day.foldin_seconds for day in own),
                ndcg=value,
                base_ndcg=mean_of(series, "base_ndcg"),
                of_nightly=value / most if value is not None and most else None,
                training_share=took / spent if spent else None,
                ndcg_per_training_minute=60 * value / took if value is not None and took else None,
                reaction_days=after,
                reaction_cause=reaction.cause if reaction else None,
            )
        )
    return tuple(rows)


def text(days: Mapping[str, Sequence[DayFile]], plant: datetime | None) -> str:
    """Return the finding, a row per schedule, a row per day, and notes on nightly runs.

    Parameters
    ----------
    days, plant
        As for `summary`.
    """
    header = ["schedule", "days", "nights", "promoted", "training s", "NDCG", "without fold-in"]
    header += ["of nightly", "NDCG/min"] + ([] if plant is None else ["reaction"])
    rows = [
        (
            row.schedule,
            f"{row.days}",
            f"{row.nights}",
            f"{row.promoted}",
            f"{row.training_seconds:,.1f}",
            figure(row.ndcg),
            figure(row.base_ndcg),
            share(row.of_nightly),
            figure(row.ndcg_per_training_minute),
            "never" if row.reaction_days is None else f"in {row.reaction_days:.2g} days",
        )[: len(header)]
        for row in summary(days, plant)
    ]
    parts = [title(days), grid(header, rows), _by_day(days), "\n".join(_nights(days))]
    return "\n\n".join(part for part in parts if part)


def _nights(days: Mapping[str, Sequence[DayFile]]) -> Iterator[str]:
    """Yield the cause of each requested run, and the decisions that published nothing."""
    for name, series in days.items():
        for day in series:
            if day.retrained and day.cause is not None:
                yield f"{name}, {day.as_of:%Y-%m-%d %H:%M}: {day.reason}"
        idle = [day for day in series if day.retrained and not day.promoted]
        for decision in dict.fromkeys(day.decision for day in idle):
            of = [day for day in idle if day.decision == decision]
            yield (
                f"{name}: {len(of)} nightly run{'s' * (len(of) > 1)} ended as {decision}, first on "
                f"{of[0].as_of:%Y-%m-%d %H:%M}: {of[0].sentence}"
            )


def _by_day(days: Mapping[str, Sequence[DayFile]]) -> str:
    """Return a row per day: the NDCG of its lists, with a star if a nightly run followed."""
    rows = [
        [
            f"{series[0].as_of:%Y-%m-%d %H:%M}",
            *(figure(day.ndcg) + "*" * day.retrained for day in series),
        ]
        for series in zip(*days.values(), strict=True)
    ]
    return (
        f"{grid(['NDCG until', *days], rows)}\n* a nightly run followed   – no user-day was scored"
    )


def title(days: Mapping[str, Sequence[DayFile]]) -> str:
    """Return the finding as a sentence."""
    rows = {row.schedule: row for row in summary(days, None)}
    # The schedule in question: adaptive, else the first one that is not the reference.
    row = rows.get(ADAPTIVE) or next((r for n, r in rows.items() if n != NIGHTLY), None)
    if row is None or row.of_nightly is None:
        best = max(rows.values(), key=lambda row: row.ndcg or 0.0)
        return f"{best.schedule} reaches an NDCG of {figure(best.ndcg)}"
    finding = f"{row.schedule} reaches {share(row.of_nightly)} of the NDCG of nightly retraining"
    part = row.training_share
    return finding if part is None else f"{finding}, with {share(part)} of its training time"


def mean_of(days: Sequence[DayFile], name: str) -> float | None:
    """Return the mean of a figure over all user-days; None without user-days.

    Parameters
    ----------
    name
        Field of `DayFile`.
    """
    values = [(getattr(day, name), day.user_days) for day in days if getattr(day, name) is not None]
    # Weighted by user-days: a mean of daily means would weigh a quiet day like a busy one.
    weight = sum(count for _, count in values)
    return sum(value * count for value, count in values) / weight if weight else None


def _own(days: Sequence[DayFile]) -> Sequence[DayFile]:
    """Return the days after the first promotion."""
    first = next((at for at, day in enumerate(days) if day.promoted), len(days))
    return days[first + 1 :]
