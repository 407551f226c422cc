"""The retrain policy, applied to the lake, the ledger and the runs.

Guarantees: the decision is read from what is stored, never from what a pass has just done or from
an event of an asset; so the next pass repeats a request that was lost, and a request that arrives
twice finds the run that the first one started.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Progress, silent
from pipeline.data.split import before
from pipeline.failpoints import failpoint
from pipeline.monitoring.policy import Nights, RetrainDecision, can_skip_drift, countable
from pipeline.monitoring.policy import policy as decide
from pipeline.monitoring.verdicts import Drift
from pipeline.serving.foldin import new_since
from pipeline.steps.feedback.drift import drift_of, seen
from pipeline.stores.batches import Batches
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import PolicyFile, SnapshotFile, TablesFile
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.night import Night
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_NEWEST: Final = 50
"""Runs whose as-of is read."""


def policy(
    ws: Workspace, at: AsOf, *, drift: Drift | None = None, progress: Progress = silent
) -> RetrainDecision:
    """Return what an instant requires: nothing, folding in, or a retrain; and why.

    Parameters
    ----------
    drift
        Result of `drift_if_needed` at this instant; computed here where it is ``None``.
    """
    failpoint("before_asset")
    with task_log("policy", at, progress=progress) as log:
        ruling = ruled(AsOfView.now(ws, at), drift, log.progress)
        log.rows, log.result = ruling.events, f"{ruling.action.value}: {ruling.reason}"
    return ruling


def drift_if_needed(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> Drift | None:
    """Compute drift, ``None`` where it could not change the policy's decision."""
    view = AsOfView.now(ws, at)
    with task_log("drift", at, progress=progress) as log:
        nights, new = _state(view)
        if can_skip_drift(new.height, nights, at, view.config.policy):
            log.result = "nothing is new, or a retrain has to wait"
            return None
        drift = seen(view, log.progress)
        log.rows, log.result = len(drift.signals), drift.sentence
    return drift


def policy_of(night: Night, progress: Progress = silent) -> RetrainDecision:
    """Return the policy's decision for a run, stored on the first call."""
    if not night.run.has(PolicyFile):
        trigger = night.snapshot.trigger  # what requested this run is why it ran
        ruling = trigger.policy if trigger else ruled(AsOfView.of(night), drift_of(night, progress))
        with night.run.draft(PolicyFile.STEP) as draft:
            draft.write(PolicyFile(ruling))
    return night.run.read(PolicyFile).root


def read_policy(run: Run) -> RetrainDecision | None:
    """Return the decision of the policy that a run stored."""
    file = run.find(PolicyFile)
    return None if file is None else file.root


def ruled(
    view: AsOfView, drift: Drift | None = None, progress: Progress = silent
) -> RetrainDecision:
    """Apply the policy to what is known at an instant, after computing drift where it matters."""
    config, (nights, new) = view.config.policy, _state(view)
    if drift is None and not can_skip_drift(new.height, nights, view.at, config):
        drift = seen(view, progress)
    counted = countable(new, nights, view.at, config)
    return decide(new.height, counted, nights, drift, at=view.at, config=config)


def _state(view: AsOfView) -> tuple[Nights, pl.DataFrame]:
    """Return what was done before, and the events that the last decided run did not see."""
    own = None if view.night is None else view.night.run_id
    started = tuple(as_of for run_id, as_of in begun(view.ws).items() if run_id != own)
    nights = Nights(judged=None, changed=False, learnt=0, started=started)
    where = before(view.at)
    if decisions := view.decisions():
        last = decisions[-1]
        run, batches = view.ws.runs.open(last.run_id), Batches(view.ws.lake)
        changed = last.decision.promotes or last.run_id in view.history.overrides
        nights = Nights(last.as_of, changed, run.read(TablesFile).events, started)
        version = run.read(SnapshotFile).versions["events"]
        arrived = batches.arrived_since(0 if version is None else batches.last_at(version))
        where = where & new_since(arrived, last.as_of)
    return nights, view.events([c.USER_ID, c.TIMESTAMP], where)


def begun(ws: Workspace) -> dict[str, datetime]:
    """Return the as-ofs of the newest runs that are no replays, by run id, unfinished included."""
    newest = {run.run_id: run.find(SnapshotFile) for run in ws.runs.starting_with("")[-_NEWEST:]}
    return {name: file.as_of for name, file in newest.items() if file and not file.replay}
