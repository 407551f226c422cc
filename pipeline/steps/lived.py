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
from pipeline.steps.config import load
from pipeline.steps.foldin import foldin
from pipeline.steps.learn import read_split
from pipeline.steps.live import score_span
from pipeline.steps.policy import policy as rule
from pipeline.steps.retrain import nightly
from pipeline.steps.run import Workspace
from pipeline.steps.sandbox import Sandbox
from pipeline.stores.runs import Run, Runs

_WEEK: Final = timedelta(days=7)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = "day"


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
    wanted, reason = _verdict(ws, policy, at, last_night, steps, first=first)
    scored = {} if first else _scored(ws, span)
    if not wanted:
        folded = foldin(ws, at, progress=progress)
        return Day(at, False, reason, **scored, foldin_seconds=folded.seconds)
    try:
        night = nightly(ws, at, progress=progress)
    except (DataError, GateError) as error:  # the next night tries again, as it would live
        return Day(at, True, reason, **scored, decision="block", sentence=error.sentence)
    taken = [cost.get("fit_seconds", 0.0) for cost in _costs(night.cost)]
    return Day(
        at,
        True,
        reason,
        **scored,
        decision=night.decision or night.status,
        sentence=night.sentence,
        training_seconds=sum(taken),
    )


def _costs(told: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what each training took, refits as well."""
    for cost in told.values():
        yield cost
        if isinstance(cost.get("refit"), Mapping):
            yield cost["refit"]


def _verdict(
    ws: Workspace,
    policy: Policy,
    at: datetime,
    last_night: datetime,
    steps: Run,
    *,
    first: bool,
) -> tuple[bool, str]:
    """Say whether a night is run, and why; written down before it begins, for whoever goes on."""
    if first:
        return True, "all policies begin with a night"
    if policy is Policy.NIGHTLY:
        return True, "every night"
    if policy is Policy.NEVER:
        return False, "never again"
    if policy is Policy.WEEKLY:
        due = at - last_night >= _WEEK
        return due, "a week is over" if due else "the week is not over"
    step = f"{compact_instant(at)}-verdict"
    if steps.committed(step) is None:
        ruling = rule(ws, at)
        with steps.draft(step) as draft:
            draft.json("verdict", {"wanted": ruling.wanted, "reason": ruling.reason})
    told = steps.json(step, "verdict")
    return told["wanted"], told["reason"]


def _scored(ws: Workspace, span: Interval) -> dict[str, Any]:
    """Return what the lists that were live were worth to whoever did something in a span."""
    first = ws.runs.starting_with("")[0]
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
