"""The cold check: does a fresh process, given nothing but the committed files, repeat the lists?

Promises: the child reads the refit as a server would, checks every sum, and compares the lists of
the canaries item by item; on a refresh the lists of people who did nothing must resemble what is
live. What is found is a sentence, or nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.evaluation.gate import Decision
from pipeline.report.night import NightPage, RuleRow
from pipeline.report.wording import FAILED, advice
from pipeline.steps.diagnostics.churn import FILE as CHURN
from pipeline.steps.diagnostics.churn import FIRST, measure
from pipeline.steps.diagnostics.foldin_parity import measure_parity
from pipeline.steps.nightly.refit import canary_lists
from pipeline.steps.reporting.night_page import gather
from pipeline.steps.reporting.page_files import draft_rows, draw_page
from pipeline.steps.reporting.past_nights import NOTHING_MADE, Made
from pipeline.stores.runs import Ref, Run
from pipeline.workspace.child_process import run_child
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.run_files import promoted, read_scorer, read_split
from pipeline.workspace.workspace import Workspace

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
        found, churned = _check(ws, night, progress)
        with night.run.draft("cold_check") as draft:
            draft.json("cold", found)
            made = NOTHING_MADE
            if churned is not None:
                # Whether the dice are thrown depends on how long the refit took.
                draft.json(CHURN, churned, measured=True)
                made = Made(churned, measure_parity(ws, night, draft, progress))
            if churned is not None or found["fault"]:
                told = gather(ws, night, Decision.from_dict(promoted(night)), made)
                if found["fault"]:
                    told = _blocked(told, found)
                draft_rows(draft, told, measured=True)
            draft.rows = found["canaries"]
    draw_page(night.run)
    found = night.run.json("cold_check", "cold")
    if found["fault"]:
        raise GateError(f"cold check of run {run_id}: {found['fault']}")
    return night.run.ref("cold_check")


def _blocked(told: NightPage, found: Mapping[str, Any]) -> NightPage:
    """Return the page of a promotion that publishes nothing after all."""
    fault, figure = found["fault"], found["overlap"]
    bound = None if figure is None else MIN_OVERLAP
    rule = RuleRow("cold_check", "", figure, bound, FAILED, fault)
    return replace(
        told,
        kind="block",
        sentence=f"the gate let it pass, the cold check did not: {fault}",
        rules=(*told.rules, rule),
        advice=advice("block", (rule,)),
    )


def _check(
    ws: Workspace, night: Night, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run the check: ``canaries``, ``idle``, ``overlap``, and ``fault``, a sentence or ``None``.

    Beside it stands what it measured on the way, see `churn.measure`.
    """
    answer = run_child("pipeline.steps.nightly.cold_check", [str(ws.runs.root), night.run.run_id])
    found: dict[str, Any] = json.loads(answer)
    likeness: dict[str, Any] = {"idle": 0, "overlap": None, "fault": None}
    churned = None if found["fault"] else measure(ws, night, progress)
    if churned is not None:
        likeness = _resemblance(churned, judged=promoted(night)["kind"] == "refresh")
    return {**likeness, **found, "fault": found["fault"] or likeness["fault"]}, churned


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


def _resemblance(found: Mapping[str, Any], *, judged: bool) -> dict[str, Any]:
    """Say how much the lists of people who did nothing are like the live ones."""
    share, idle = found["at"][str(FIRST)]["overlap"], found["users"]
    fault = None
    if judged and share is not None and idle >= _IDLE_USERS and share < MIN_OVERLAP:
        fault = (
            f"{idle:,} people did nothing, and their lists share {share:.2f} of the first "
            f"{FIRST} entries with the live ones; at least {MIN_OVERLAP} is expected"
        )
    return {"idle": idle, "overlap": share, "fault": fault}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare(Run(Path(sys.argv[1]), sys.argv[2]))))
