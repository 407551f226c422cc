"""The policy as a step: what the lake, the ledger and the runs say of a retrain.

Promises: the verdict is read from what is stored, never from what a pass has just done or from an
event that somebody sent; so a request that got lost is made again by the next pass, and one that
came twice finds the night that the first one started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, parse_instant, silent
from pipeline.data.split import before
from pipeline.failpoints import failpoint
from pipeline.monitoring.policy import Nights, Ruling, countable, needless
from pipeline.monitoring.policy import policy as decide
from pipeline.monitoring.verdicts import Drift
from pipeline.serving.foldin import new_since
from pipeline.steps.feedback.drift import drift_of, seen
from pipeline.stores.batches import Batches
from pipeline.stores.runs import Run
from pipeline.workspace.as_of_view import Lately
from pipeline.workspace.history import ACCEPTANCE, PROMOTIONS
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace

STEP: Final = "policy"
_NEWEST: Final = 50
"""Runs that are looked at for when they began."""


def policy(
    ws: Workspace, at: datetime, *, drift: Drift | None = None, progress: Progress = silent
) -> Ruling:
    """Say what an instant asks for: nothing, folding in, or a retrain; and why.

    Parameters
    ----------
    drift
        What `drift_if_needed` saw at this instant; without it, it is looked for here.
    """
    failpoint("before_asset")
    return ruled(Lately.now(ws, at), drift, progress)


def drift_if_needed(ws: Workspace, at: datetime, *, progress: Progress = silent) -> Drift | None:
    """Look for drift, ``None`` where that could change no verdict of the policy."""
    lately = Lately.now(ws, at)
    nights, new = _state(lately)
    skip = needless(new.height, nights, lately.at, lately.config.policy)
    return None if skip else seen(lately, progress)


def policy_of(ws: Workspace, night: Night, tell: Progress = silent) -> dict[str, Any]:
    """Return what the policy says of a night, which it keeps: why it ran, or that nothing asked."""
    if night.run.committed(STEP) is None:
        asked = night.facts.get("asked")
        if asked is not None:  # what started it is why it ran
            told = asked["policy"]
        else:
            told = ruled(Lately.of(ws, night), drift_of(ws, night, tell)).to_dict()
        with night.run.draft(STEP) as draft:
            draft.json(STEP, told)
    return read_policy(night.run) or {}


def read_policy(run: Run) -> dict[str, Any] | None:
    """Return what a night kept, ``None`` where it was not asked."""
    if run.committed(STEP) is None:
        return None
    told: dict[str, Any] = run.json(STEP, STEP)
    return told


def ruled(lately: Lately, drift: Drift | None = None, tell: Progress = silent) -> Ruling:
    """Apply the policy to what is known at an instant; drift that nobody has seen is looked for."""
    config, (nights, new) = lately.config.policy, _state(lately)
    if drift is None and not needless(new.height, nights, lately.at, config):
        drift = seen(lately, tell)
    counted = countable(new, nights, lately.at, config)
    return decide(new.height, counted, nights, drift, at=lately.at, config=config)


def _state(lately: Lately) -> tuple[Nights, pl.DataFrame]:
    """Return what was done before, and the events that the last judged night did not see."""
    decisions = lately.decisions()
    nights, where = _nights(lately, decisions), before(lately.at)
    if nights.judged is not None:
        batches, version = Batches(lately.ws.lake), _facts(lately, decisions)["versions"]["events"]
        arrived = batches.arrived_since(0 if version is None else batches.last_at(version))
        where = where & new_since(arrived, nights.judged)
    return nights, lately.events([c.USER_ID, c.TIMESTAMP], where)


def begun(ws: Workspace) -> dict[str, datetime]:
    """Return the as-ofs of the newest nights by run, whether they ended, died or are at work."""
    found = {}
    for run in ws.runs.starting_with("")[-_NEWEST:]:
        if run.committed("snapshot") is not None:
            facts = run.json("snapshot", "snapshot")
            if not facts["replay"]:
                found[run.run_id] = parse_instant(facts["as_of"])
    return found


def _nights(lately: Lately, decisions: Sequence[Mapping[str, Any]]) -> Nights:
    """Read what was done before: the last judged night, and when nights were started."""
    own = None if lately.night is None else lately.night.run.run_id
    started = tuple(as_of for run_id, as_of in begun(lately.ws).items() if run_id != own)
    if not decisions:
        return Nights(judged=None, changed=False, learnt=0, started=started)
    last = decisions[-1]
    accepted = any(
        entry["type"] == ACCEPTANCE and entry["run_id"] == last["run_id"]
        for entry in lately.ws.ledger.entries()
    )
    return Nights(
        judged=parse_instant(last["as_of"]),
        changed=last["kind"] in PROMOTIONS or accepted,
        learnt=int(lately.ws.runs.open(last["run_id"]).json("features", "tables")["events"]),
        started=started,
    )


def _facts(lately: Lately, decisions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what the last judged night pinned."""
    run = lately.ws.runs.open(decisions[-1]["run_id"])
    found: Mapping[str, Any] = run.json("snapshot", "snapshot")
    return found
