"""Starts a run that was requested, after reading again whether it is still needed.

Guarantees: a request that came twice, late or without need starts no second run: it ends as
``superseded`` where a run for its instant or a later one is done or at work, as ``nothing_to_do``
where the policy requests none any more. What is read and what is pinned are one lease, so of two
requests that come at once one run begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from pipeline.base import AsOf, Progress, format_instant, silent
from pipeline.errors import ConcurrencyError
from pipeline.steps.feedback.drift import seen
from pipeline.steps.feedback.policy import begun, ruled
from pipeline.steps.nightly.snapshot import Started, snapshot
from pipeline.workspace.artifacts import Trigger
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.workspace import Workspace


def start_requested(
    ws: Workspace,
    as_of: AsOf,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    progress: Progress = silent,
) -> Started:
    """Start a run if the policy still requests one; the parameters are those of `snapshot`.

    A run for this very instant that was started and has not ended goes on.
    """
    with ExitStack() as lease:
        try:
            lease.enter_context(ws.lake.lock("night"))
        except ConcurrencyError:
            return _at_work(ws, as_of)
        if (later := _later(ws, as_of)) is not None:
            return Started("", "superseded", later)
        trigger = None
        if as_of not in begun(ws).values():
            view = AsOfView.now(ws, as_of)
            drift = seen(view, progress)
            policy = ruled(view, drift)
            if not policy.wanted:
                return Started("", "nothing_to_do", policy.reason)
            trigger = Trigger(policy=policy, drift=drift)
        return snapshot(
            ws, as_of, recipes=recipes, publish=publish, trigger=trigger, progress=progress
        )


def _later(ws: Workspace, as_of: AsOf) -> str | None:
    """Name a run that makes this one needless: done for its instant, or begun for a later one."""
    last = LedgerHistory.of(ws.ledger).last_decision()
    if last is not None and last.as_of >= as_of:
        return f"the night of {format_instant(last.as_of)} has decided"
    newest = max(begun(ws).values(), default=as_of)
    return f"the night of {format_instant(newest)} is at work" if newest > as_of else None


def _at_work(ws: Workspace, as_of: AsOf) -> Started:
    newest = max(begun(ws).values(), default=None)
    status = "superseded" if newest is not None and newest >= as_of else "nothing_to_do"
    return Started("", status, "a night is at work; what it leaves to do is asked for again")
