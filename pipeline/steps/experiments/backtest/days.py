"""One policy's days, lived through in its sandbox.

Promises: a day is written down when it is over, and what the policy said before a night begins; so
who goes on finds the same verdicts, nights and lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pipeline import columns as c
from pipeline.base import Interval, Progress, compact_instant, format_instant
from pipeline.errors import DataError, GateError
from pipeline.evaluation.prequential import ALL
from pipeline.report.backtest import Day
from pipeline.steps.diagnostics.live_quality import score_span
from pipeline.steps.experiments.backtest.sandbox import Sandbox
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.feedback.policy import policy as rule
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.config import load
from pipeline.workspace.history import PROMOTIONS, PUBLICATION
from pipeline.workspace.run_files import read_split
from pipeline.workspace.workspace import Workspace

_WEEK: Final = timedelta(days=7)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = "day"
_VERDICT: Final = "verdict"


class Policy(StrEnum):
    """When a whole night is run."""

    NIGHTLY = "nightly"
    WEEKLY = "weekly"
    ADAPTIVE = "adaptive"
    NEVER = "never"


def days_of(
    box: Sandbox,
    policy: Policy,
    begin: datetime,
    end: datetime,
    every: timedelta,
    progress: Progress,
) -> Iterator[Day]:
    """Live through the days that are left, and yield all of them.

    Parameters
    ----------
    begin, end
        The first as-of, and the last one that may be.

    Raises
    ------
    DataError
        No event lies before the first as-of.
    """
    steps = Runs(box.home.parent).open(f"{policy}-days")
    before, last_night = _BEGINNING, begin
    at = begin
    while at <= end:
        step = compact_instant(at)
        if steps.committed(step) is None:
            progress(f"{policy}: {at:%Y-%m-%d %H:%M}")
            lived = _live(box, policy, Interval(before, at), last_night, steps, progress)
            with steps.draft(step) as draft:
                draft.json(_DAY, lived.to_dict(), measured=True)
        day = Day.from_dict(steps.json(step, _DAY))
        last_night = at if day.retrained else last_night
        before, at = at, at + every
        yield day


def _live(
    box: Sandbox,
    policy: Policy,
    span: Interval,
    last_night: datetime,
    steps: Run,
    progress: Progress,
) -> Day:
    """Live through one day."""
    ws, at = box.ws, span.end
    first = span.start == _BEGINNING
    box.deliver(span, catalogue=first)
    if first and ws.lake.read("events", columns=[c.EVENT_ID]).is_empty():
        raise DataError(f"no event lies before {format_instant(at)}", where="the backtest")
    verdict = _verdict(ws, policy, at, last_night, steps)
    scored = {} if first else _scored(ws, span)
    told = _night(ws, at, progress) if verdict["wanted"] else {}
    if not told.get("promoted"):  # a pass would: the lists that stay live learn what was done
        told["foldin_seconds"] = foldin(ws, at, progress=progress).seconds
    return Day(at, verdict["wanted"], verdict["reason"], verdict["cause"], **scored, **told)


def _night(ws: Workspace, at: datetime, progress: Progress) -> dict[str, Any]:
    """Run a whole night, and say what became of it."""
    try:
        night = nightly(ws, at, progress=progress)
    except (DataError, GateError) as error:  # the next night tries again, as it would live
        return {"decision": "block", "sentence": error.sentence}
    return {
        "decision": night.decision or night.status,
        "sentence": night.sentence,
        "promoted": night.decision in PROMOTIONS,
        "training_seconds": sum(cost.get("fit_seconds", 0.0) for cost in _costs(night.cost)),
    }


def _costs(told: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what each training took, refits as well."""
    for cost in told.values():
        yield cost
        if isinstance(cost.get("refit"), Mapping):
            yield cost["refit"]


def _verdict(
    ws: Workspace, policy: Policy, at: datetime, last_night: datetime, steps: Run
) -> Mapping[str, Any]:
    """Say whether a night is run, and why; written down before it begins, for whoever goes on."""
    step = f"{compact_instant(at)}-{_VERDICT}"
    if steps.committed(step) is None:
        wanted, reason, cause = _asked(ws, policy, at, last_night)
        with steps.draft(step) as draft:
            draft.json(_VERDICT, {"wanted": wanted, "reason": reason, "cause": cause})
    told: Mapping[str, Any] = steps.json(step, _VERDICT)
    return told


def _asked(
    ws: Workspace, policy: Policy, at: datetime, last_night: datetime
) -> tuple[bool, str, str | None]:
    """Ask the policy."""
    if not any(entry["type"] == PUBLICATION for entry in ws.ledger.entries()):
        return True, "nothing is live yet", None
    match policy:
        case Policy.NIGHTLY:
            return True, "every night", None
        case Policy.WEEKLY:
            due = at - last_night >= _WEEK
            return due, "a week is over" if due else "the week is not over", None
        case Policy.ADAPTIVE:
            ruling = rule(ws, at)
            return ruling.wanted, ruling.reason, ruling.cause
        case Policy.NEVER:
            return False, "never again", None


def _scored(ws: Workspace, span: Interval) -> dict[str, Any]:
    """Return what the lists that were live were worth to whoever did something in a span."""
    judged = (run for run in ws.runs.starting_with("") if run.committed("features") is not None)
    first = next(judged, None)
    if first is None:  # no night has come to a task yet, so nothing was live
        return {}
    config = load(first.json("snapshot", "snapshot")["config"])
    found = score_span(
        ws,
        lambda columns, where: ws.lake.read("events", columns=columns, where=where),
        read_split(first),
        config,
        span,
    )
    rows = [row for row in found.rows if row.slice == ALL]
    days = sum(row.user_days for row in rows)
    if not days:
        return {}
    return {
        "user_days": days,
        "ndcg": sum(row.ndcg.mean * row.user_days for row in rows) / days,
        "base_ndcg": sum(row.base_only_ndcg.mean * row.user_days for row in rows) / days,
    }
