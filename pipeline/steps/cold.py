"""The cold check: does a fresh process, given nothing but the committed files, repeat the lists?

Promises: the child reads the refit as a server would, checks every sum, and compares the lists of
the canaries item by item; on a refresh the lists of people who did nothing must resemble what is
live. What is found is a sentence, or nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.serving.publish import of_publication, unavailable
from pipeline.serving.recommend import model_lists, overlap
from pipeline.steps.child import run_child
from pipeline.steps.learn import canary_lists, promoted, read_scorer, read_split
from pipeline.steps.night import Night, open_night, read_events, read_pinned
from pipeline.steps.run import Workspace
from pipeline.stores.runs import Ref, Run

MIN_OVERLAP = 0.5
"""Least mean overlap at 10 with the live lists, for people without a new event."""
_IDLE_USERS = 20
"""With fewer idle people the overlap is told and not judged."""


def cold_check(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Load the refit in a fresh process and compare; raises `GateError` when lists differ."""
    night = open_night(ws, run_id)
    if night.run.committed("cold_check") is None:
        promoted(night)
        progress("cold check")
        found = _check(ws, night)
        with night.run.draft("cold_check") as draft:
            draft.json("cold", found)
            draft.rows = found["canaries"]
    found = night.run.json("cold_check", "cold")
    if found["fault"]:
        raise GateError(f"cold check of run {run_id}: {found['fault']}")
    return night.run.ref("cold_check")


def _check(ws: Workspace, night: Night) -> dict[str, Any]:
    """Run the check: ``canaries``, ``idle``, ``overlap``, and ``fault``, a sentence or ``None``."""
    answer = run_child("pipeline.steps.cold", [str(ws.runs.root), night.run.run_id])
    found: dict[str, Any] = json.loads(answer)
    likeness = {"idle": 0, "overlap": None, "fault": None}
    if promoted(night)["kind"] == "refresh":
        likeness = _resemblance(ws, night)
    return {**likeness, **found, "fault": found["fault"] or likeness["fault"]}


def compare(run: Run) -> dict[str, Any]:
    """Rebuild the canaries' lists from files and compare them with what training wrote."""
    night = Night.read(run)
    history = History.from_arrays(run.arrays("refit", "history"))
    expected = run.arrays("refit", "canaries")
    scorer = read_scorer(run, "refit")
    found = canary_lists(scorer, history, expected["rows"], night, read_split(run))
    same = all(np.array_equal(found[name], expected[name]) for name in ("indptr", "item"))
    close = same and np.allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-7)
    canaries = len(expected["rows"])
    fault = None
    if not close:
        fault = f"a fresh process gives other lists than the one that trained ({canaries} canaries)"
    return {"canaries": canaries, "fault": fault}


def _resemblance(ws: Workspace, night: Night) -> dict[str, Any]:
    """Compare the refit's lists with the live ones, for people who did nothing since."""
    champion = night.champion
    if champion is None:
        raise GateError(f"run {night.run.run_id} refreshes a champion that is not there")
    live = ws.lake.read("recommendations", where=of_publication(champion.publication_id))
    events = read_events(ws, night, c.USER_ID, c.TIMESTAMP)
    busy = events.filter(events[c.TIMESTAMP] >= champion.as_of)[c.USER_ID]
    history = History.from_arrays(night.run.arrays("refit", "history"))
    modelled = live.filter(live[c.SLOT] == c.Slot.MODEL.value)[c.USER_ID]
    idle = sorted((set(modelled) - set(busy)) & set(history.user_ids.tolist()))
    if not idle:
        return {"idle": 0, "overlap": None, "fault": None}
    lists = model_lists(
        read_scorer(night.run, "refit"),
        history.rows(np.flatnonzero(np.isin(history.user_ids, idle))),
        unavailable(read_pinned(ws, night, "items")),
        repeat=read_split(night.run).policy == "repeat",
        length=10,
    )
    share = overlap(lists, live, idle, 10)
    fault = None
    if len(idle) >= _IDLE_USERS and share < MIN_OVERLAP:
        fault = (
            f"{len(idle):,} people did nothing, and their lists share {share:.2f} of the first "
            f"ten entries with the live ones; at least {MIN_OVERLAP} is expected"
        )
    return {"idle": len(idle), "overlap": share, "fault": fault}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare(Run(Path(sys.argv[1]), sys.argv[2]))))
