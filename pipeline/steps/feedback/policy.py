"""The retrain policy, applied to the lake, the ledger and the runs.

Guarantees: the decision follows from stored data, never from the results of a pass or from an
asset event. So the next pass repeats a request that was lost, and a request that arrives twice
finds the run that the first one started.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Interval, Progress, silent
from pipeline.data.features import WEIGHED
from pipeline.data.split import PinnedTask, before, between
from pipeline.data.windows import parted
from pipeline.errors import ConfigError, DataError
from pipeline.failpoints import failpoint
from pipeline.monitoring.policy import (
    FirstRun,
    Nights,
    RetrainDecision,
    can_skip_drift,
    countable,
)
from pipeline.monitoring.policy import policy as decide
from pipeline.monitoring.verdicts import Drift
from pipeline.serving.foldin import new_since
from pipeline.steps.feedback.drift import drift_of, measure_drift
from pipeline.stores.batches import Batches
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import SnapshotFile, TablesFile
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.night import Night, last_file
from pipeline.workspace.release_artifacts import PolicyFile
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_NEWEST: Final = 50
"""Number of newest runs whose as-of is read."""


def policy(
    ws: Workspace, at: AsOf, *, drift: Drift | None = None, progress: Progress = silent
) -> RetrainDecision:
    """Decide whether an instant requires nothing, folding in, or a retrain.

    Parameters
    ----------
    ws
        Workspace.
    at
        Exclusive end of the events.
    drift
        Result of `drift_if_needed` at this instant; computed here if it is ``None``.
    progress
        Receives short texts.

    Returns
    -------
    The action with its reason.
    """
    failpoint("before_asset")
    with task_log("policy", at, progress=progress) as log:
        ruling = apply_policy(AsOfView.now(ws, at), drift, log.progress)
        log.rows, log.result = ruling.events, f"{ruling.action.value}: {ruling.reason}"
    return ruling


def drift_if_needed(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> Drift | None:
    """Measure drift, if it can change the decision of the policy.

    Parameters
    ----------
    ws
        Workspace.
    at
        Exclusive end of the events.
    progress
        Receives short texts.

    Returns
    -------
    The drift; ``None`` without new events, or if a retrain must wait anyway.
    """
    view = AsOfView.now(ws, at)
    with task_log("drift", at, progress=progress) as log:
        nights, new = _state(view)
        if can_skip_drift(new.height, nights, at, view.config.policy):
            log.result = "no new events, or a retrain must wait"
            return None
        drift = measure_drift(view, log.progress)
        log.rows, log.result = len(drift.signals), drift.sentence
    return drift


def policy_of(night: Night, progress: Progress = silent) -> RetrainDecision:
    """Return the decision of the policy for a run.

    Parameters
    ----------
    night
        The run; the first call computes the decision and stores it.
    progress
        Receives short texts.

    Returns
    -------
    The action with its reason.
    """
    if not night.run.has(PolicyFile):
        trigger = night.snapshot.trigger  # the decision that requested this run is its reason
        view = AsOfView.of(night)
        ruling = trigger.policy if trigger else apply_policy(view, drift_of(night, progress))
        with night.run.draft(PolicyFile.STEP) as draft:
            draft.write(PolicyFile(ruling))
    return night.run.read(PolicyFile).root


def read_policy(run: Run) -> RetrainDecision | None:
    """Return the policy's decision that a run stored; ``None`` before it did."""
    file = run.find(PolicyFile)
    return None if file is None else file.root


def apply_policy(
    view: AsOfView, drift: Drift | None = None, progress: Progress = silent
) -> RetrainDecision:
    """Apply the policy to the data of a view.

    Parameters
    ----------
    view
        As-of view of the workspace.
    drift
        Drift at its instant; measured here if it is ``None`` and can change the decision.
    progress
        Receives short texts.

    Returns
    -------
    The action with its reason.
    """
    config, (nights, new) = view.config.policy, _state(view)
    if drift is None and not can_skip_drift(new.height, nights, view.at, config):
        drift = measure_drift(view, progress)
    counted = countable(new, nights, view.at, config)
    return decide(new.height, counted, nights, drift, at=view.at, config=config)


def _state(view: AsOfView) -> tuple[Nights, pl.DataFrame]:
    """Return the earlier runs, and the events that the last decided run did not contain."""
    # A run is already started when it evaluates the policy; it must not wait for itself.
    own = None if view.night is None else view.night.run_id
    started = tuple(as_of for run_id, as_of in started_runs(view.ws).items() if run_id != own)
    silence = _silence(view)
    where = before(view.at)
    if decisions := view.decisions():
        last = decisions[-1]
        run, batches = view.ws.runs.open(last.run_id), Batches(view.ws.lake)
        changed = last.decision.promotes or last.run_id in view.history.overrides
        learnt = run.read(TablesFile).events
        nights = Nights(last.as_of, changed, learnt, started, silence=silence)
        arrived = batches.arrived_since(last_file(view.ws, run.read(SnapshotFile)))
        # Late events have old timestamps: they are new by the number of their file.
        where = where & new_since(arrived, last.as_of)
    else:
        nights = Nights(None, False, 0, started, first=_first_run(view), silence=silence)
    return nights, view.events([c.USER_ID, c.TIMESTAMP], where)


def _silence(view: AsOfView) -> str | None:
    """Return the reason if a run would find no recent event, and so end without a decision."""
    days = view.config.split.max_silence_days
    recent = Interval(view.at - timedelta(days=days), view.at)
    if view.events([c.TIMESTAMP], between(recent)).is_empty():
        return f"the last {days} days have no event"
    return None


def _first_run(view: AsOfView) -> FirstRun:
    """Return the conditions of the first run: the users of the longest holdout that is possible."""
    config = view.config
    events = view.events(WEIGHED, before(view.at))
    if not isinstance(begin := events[c.TIMESTAMP].min(), datetime):
        return FirstRun(0, config.split.min_users, None)
    try:
        part = parted(events, view.at, config.windows, first=True, pinned=PinnedTask())
        users = max(users for _, users in part.judged)
    except (ConfigError, DataError):  # the history is too short, or has no target yet
        users = 0
    due = begin + timedelta(days=config.schedule.first_after_days)
    return FirstRun(users, config.split.min_users, due)


def started_runs(ws: Workspace) -> dict[str, datetime]:
    """Return the as-ofs of the newest runs by run id: unfinished runs too, replays not."""
    newest = {run.run_id: run.find(SnapshotFile) for run in ws.runs.starting_with("")[-_NEWEST:]}
    return {name: file.as_of for name, file in newest.items() if file and not file.replay}
