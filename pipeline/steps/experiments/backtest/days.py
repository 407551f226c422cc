"""Days of one schedule, replayed in its sandbox.

Guarantees: a day is stored when it is complete, and the schedule's decision before its nightly run
begins; a call that resumes finds the same decisions, runs and lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf, Interval, Progress, compact_instant, format_instant
from pipeline.errors import DataError, GateError
from pipeline.evaluation.gate.decision import PROMOTIONS
from pipeline.evaluation.prequential import ALL
from pipeline.steps.diagnostics.live_quality import score_span
from pipeline.steps.experiments.backtest.sandbox import BacktestSandbox
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.policy import policy as evaluate_policy
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.artifacts import SnapshotFile, SplitFile
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.experiment_artifacts import DayFile, ScheduleFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.run_files import read_split
from pipeline.workspace.workspace import Workspace

_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)


class RetrainSchedule(StrEnum):
    """Schedules of nightly runs; an adaptive one follows the policy of the feedback pass."""

    NIGHTLY = "nightly"
    WEEKLY = "weekly"
    ADAPTIVE = "adaptive"
    NEVER = "never"


def days_of(
    box: BacktestSandbox, schedule: RetrainSchedule, instants: Sequence[AsOf], progress: Progress
) -> Iterator[DayFile]:
    """Replay the missing days, and yield all days in order.

    Parameters
    ----------
    instants
        As-of of each day, in order.

    Raises
    ------
    DataError
        `data.no_event`: no event lies before the first as-of.
    """
    replay = _Replay(box, schedule, Runs(box.home.parent).open(f"{schedule}-days"), progress)
    # The first day delivers the whole history before the first as-of.
    before, last_night = _BEGINNING, instants[0]
    for at in instants:
        step = compact_instant(at)
        if not replay.steps.has(DayFile, step):
            progress(f"{schedule}: {at:%Y-%m-%d %H:%M}")
            result = replay.day(Interval(before, at), last_night)
            with replay.steps.draft(step) as draft:
                draft.write(result)
        day = replay.steps.read(DayFile, step)
        last_night = at if day.retrained else last_night
        before = at
        yield day


@dataclass(frozen=True)
class _Replay:
    """A schedule in its sandbox, and the files of its days."""

    box: BacktestSandbox
    schedule: RetrainSchedule
    steps: Run
    progress: Progress

    def day(self, span: Interval, last_night: AsOf) -> DayFile:
        """Replay one day."""
        at, first, ws = AsOf(span.end), span.start == _BEGINNING, self.box.ws
        self.box.deliver(span)
        if first and ws.lake.read("events", columns=[c.EVENT_ID]).is_empty():
            raise DataError(
                "data.no_event",
                f"no event lies before the first as-of {format_instant(at)}; choose a later one",
                where="backtest",
            )
        plan = self._schedule(at, last_night)
        day = DayFile(as_of=at, retrained=plan.wanted, reason=plan.reason, cause=plan.cause)
        if not first:
            day = _with_quality(ws, day, span)
        if plan.wanted:
            day = _with_night(ws, day, at, self.progress)
        if not day.promoted:  # as a feedback pass does for the lists that stay live
            seconds = foldin(ws, at, progress=self.progress).seconds
            day = day.model_copy(update={"foldin_seconds": seconds})
        return day

    def _schedule(self, at: AsOf, last_night: AsOf) -> ScheduleFile:
        """Decide on a nightly run; the decision is stored before the run begins."""
        step = f"{compact_instant(at)}-{ScheduleFile.FILE}"
        if not self.steps.has(ScheduleFile, step):
            wanted, reason, cause = self._decide(at, last_night)
            with self.steps.draft(step) as draft:
                draft.write(ScheduleFile(wanted=wanted, reason=reason, cause=cause))
        return self.steps.read(ScheduleFile, step)

    def _decide(self, at: AsOf, last_night: AsOf) -> tuple[bool, str, str | None]:
        # Without live lists no schedule can be compared: all begin with nightly runs.
        if LedgerHistory.of(self.box.ws.ledger).live is None:
            return True, "no lists are live yet", None
        match self.schedule:
            case RetrainSchedule.NIGHTLY:
                return True, "every as-of", None
            case RetrainSchedule.WEEKLY:
                days = (at - last_night) / timedelta(days=1)
                return days >= 7, f"{days:g} of 7 days since the last nightly run", None
            case RetrainSchedule.ADAPTIVE:
                ruling = evaluate_policy(self.box.ws, at)
                return ruling.wanted, ruling.reason, ruling.cause
            case RetrainSchedule.NEVER:
                return False, "no further runs", None


def _with_night(ws: Workspace, day: DayFile, at: AsOf, progress: Progress) -> DayFile:
    """Start a nightly run, and add its result."""
    try:
        night = nightly(ws, at, progress=progress)
    except (DataError, GateError) as error:  # the next run tries again, as in production
        return day.model_copy(update={"decision": "block", "sentence": error.sentence})
    # The refit is a training, too; a run that promotes nothing has none.
    trainings = [cost for costs in night.cost.values() for cost in (costs.fit, costs.refit)]
    return day.model_copy(
        update={
            "decision": night.decision or night.status,
            "sentence": night.sentence,
            "promoted": night.decision in PROMOTIONS,
            "training_seconds": float(sum(cost.fit_seconds for cost in trainings if cost)),
        }
    )


def _with_quality(ws: Workspace, day: DayFile, span: Interval) -> DayFile:
    """Add the NDCG of the live lists on the target events of a span."""
    runs = ws.runs.starting_with("")
    first = next((run for run in runs if run.has(SplitFile)), None)
    if first is None:  # no run has a split yet, so no lists were live
        return day
    # The task is inferred once and kept, so the split of the first run serves all days.
    read, config = AsOfView.now(ws, AsOf(span.end)).events, first.read(SnapshotFile).config
    live = score_span(ws, read, read_split(first), config, span)
    rows = [row for row in live.rows if row.slice == ALL]
    # One row per version that was live in the span: means are weighted by their user-days.
    days = sum(row.user_days for row in rows)
    if not days:
        return day
    return day.model_copy(
        update={
            "user_days": days,
            "ndcg": sum(row.ndcg.mean * row.user_days for row in rows) / days,
            "base_ndcg": sum(row.base_only_ndcg.mean * row.user_days for row in rows) / days,
        }
    )
