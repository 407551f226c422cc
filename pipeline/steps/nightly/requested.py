"""Starts a requested run after checking again that it is needed.

Guarantees: a request that arrives twice or late starts no second run. It ends as ``superseded`` if
a run of its instant or a later one has decided or is in progress, and as ``nothing_to_do`` if the
policy requires none any more. Check and snapshot hold one lock, so of two requests at the same time
one starts a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from pipeline.base import AsOf, Progress, format_instant, silent
from pipeline.errors import ConcurrencyError
from pipeline.steps.feedback.drift import measure_drift
from pipeline.steps.feedback.policy import apply_policy, started_runs
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
    airflow_run: str | None = None,
    progress: Progress = silent,
) -> Started:
    """Start a run if the policy still requires one.

    An unfinished run of the same instant is continued without evaluating the policy again.

    Parameters
    ----------
    ws, as_of, recipes, publish, airflow_run, progress
        As in `snapshot`.

    Returns
    -------
    The run, or the reason why none was started.
    """
    with ExitStack() as lease:
        try:
            lease.enter_context(ws.lake.lock("night"))
        except ConcurrencyError:  # not an error: two requests may come at the same time
            return _at_work(ws, as_of)
        if (later := _later(ws, as_of)) is not None:
            return Started("", "superseded", later)
        trigger = None  # an unfinished run has its trigger in its snapshot
        if as_of not in started_runs(ws).values():
            view = AsOfView.now(ws, as_of)
            drift = measure_drift(view, progress)
            policy = apply_policy(view, drift)
            if not policy.wanted:
                return Started("", "nothing_to_do", policy.reason)
            trigger = Trigger(policy=policy, drift=drift)
        return snapshot(
            ws,
            as_of,
            recipes=recipes,
            publish=publish,
            trigger=trigger,
            airflow_run=airflow_run,
            progress=progress,
        )


def _later(ws: Workspace, as_of: AsOf) -> str | None:
    """Return the reason if a run of this instant has decided, or a later one was started."""
    last = LedgerHistory.of(ws.ledger).last_decision()
    if last is not None and last.as_of >= as_of:
        return f"the run as of {format_instant(last.as_of)} has decided"
    newest = max(started_runs(ws).values(), default=as_of)
    return f"the run as of {format_instant(newest)} is in progress" if newest > as_of else None


def _at_work(ws: Workspace, as_of: AsOf) -> Started:
    newest = max(started_runs(ws).values(), default=None)
    status = "superseded" if newest is not None and newest >= as_of else "nothing_to_do"
    return Started("", status, "another run is in progress; the next feedback pass checks again")
