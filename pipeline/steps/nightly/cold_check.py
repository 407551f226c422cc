"""Check that a new process computes the same lists as the training process.

The lists of users without new events must resemble the live ones as much as those of earlier
refreshes did, because damage of the last days is in no evaluation.

Guarantees: the child process loads the refit as a server would, verifies every checksum, and
compares the lists of the canaries item by item; a switch is compared as well, with the part of the
lists that the two recipes have in common without the last days.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.evaluation.gate import Decision, RuleResult
from pipeline.serving.churn import FIRST, LEAST_EARLIER, least_overlap
from pipeline.steps.diagnostics.churn import (
    MIN_IDLE_USERS,
    earlier_overlaps,
    fit_overlap,
    measure,
    recipe_overlap,
)
from pipeline.steps.diagnostics.foldin_parity import measure_parity
from pipeline.steps.nightly.refit import canary_lists
from pipeline.steps.reporting.index_page import draw_index
from pipeline.steps.reporting.night_page import build_page
from pipeline.steps.reporting.page_files import draft_page, draw_page
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.child_process import run_child
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import ChurnFile, ColdCheckFile
from pipeline.workspace.run_files import promoted, read_scorer, read_split
from pipeline.workspace.step_outputs import record_step
from pipeline.workspace.task_log import task_step
from pipeline.workspace.workspace import Workspace

_RESEMBLING = 0.2
"""Overlap in the evaluation below which the overlap with the live lists is not compared."""


def _refuse_or_record(night: Night) -> None:
    draw_page(night.run)
    fault = night.run.read(ColdCheckFile).fault
    if fault is not None:
        draw_index(night.ws)  # no later task does
        raise GateError(
            "cold_check.failed",
            f"cold check of run {night.run_id}: {fault}; nothing was published: see runs/"
            f"{night.run_id}/page.html, then run `nightjar nightly` with a later as-of",
        )
    record_step(night, "cold_check")


@task_step("cold_check", check=_refuse_or_record)
def cold_check(night: Night, progress: Progress) -> str:
    """Load the refit in a new process and compare its lists; writes the churn and the page.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.

    Raises
    ------
    GateError
        `cold_check.failed`: lists differ, or resemble the live ones too little.
    """
    decision = promoted(night)
    arguments = [str(night.ws.home), night.run_id]
    response = run_child("pipeline.steps.nightly.cold_check", arguments)
    result, parity = ColdCheckFile.model_validate_json(response), None
    # Churn is only measured for lists that could go live.
    churn = None if result.fault is not None else measure(night, progress)
    if churn is not None:
        result = _with_overlap(night, decision, result, churn)
    with night.run.draft("cold_check") as draft:
        draft.write(result)
        if churn is not None:
            draft.write(churn)
            parity = measure_parity(night, draft, progress)
        page = build_page(night, decision, churn=churn, parity=parity)
        if result.fault is not None:
            figures = result.overlap, result.least
            page = page.blocked(RuleResult("cold_check", "", *figures, "fail", result.fault))
        # Volatile, because the page has seed noise only if the refit was fast enough.
        draft_page(draft, page, volatile=True)
        draft.rows = result.canaries
    return result.fault or f"the lists of {result.canaries} users are the same in a new process"


def _with_overlap(
    night: Night, decision: Decision, result: ColdCheckFile, churn: ChurnFile
) -> ColdCheckFile:
    """Add the overlap with the live lists; one that is too small is a fault."""
    overlap, idle, expected = churn.first.overlap, churn.users, 1.0
    earlier = earlier_overlaps(night)
    if decision.kind == "switch":
        # Two recipes differ, and their evaluation shows by how much.
        expected = recipe_overlap(night, str(night.champion_name), str(decision.recipe)) or 0.0
    elif len(earlier) < LEAST_EARLIER:
        # Lists of some recipes change a lot, such as those of the items in fashion. Lists of one
        # recipe that hardly resemble each other are a sign of damage, so they are compared.
        fits = fit_overlap(night)
        expected = 1.0 if fits is None or fits < _RESEMBLING else fits
    least, fault = judge_overlap(overlap, idle, earlier, expected)
    return result.model_copy(
        update={"idle": idle, "overlap": overlap, "least": least, "fault": fault}
    )


def judge_overlap(
    overlap: float | None, idle: int, earlier: Sequence[float], expected: float
) -> tuple[float | None, str | None]:
    """Compare the overlap with the live lists with those of earlier refreshes.

    Parameters
    ----------
    overlap, idle
        Overlap of users without new events, and their number.
    earlier
        Overlaps of earlier refreshes.
    expected
        Overlap in the evaluation, which lacks the last days: of the two recipes of a switch, or of
        the recipe in the live run and tonight while there are few earlier refreshes; else 1.

    Returns
    -------
    tuple
        The least overlap, and the fault. Both are None with too few users, or if the lists hardly
        resemble each other in the evaluation.
    """
    if overlap is None or idle < MIN_IDLE_USERS or expected < _RESEMBLING:
        return None, None
    least = expected * least_overlap(earlier, idle)
    if overlap >= least:
        return least, None
    usual = f"{len(earlier)} earlier refreshes"
    if earlier:
        usual += f" (median {np.median(earlier):.2f})"
    fault = (
        f"the lists of {idle:,} users without new events share {overlap:.2f} of the first {FIRST} "
        f"entries with the live ones; at least {least:.2f} is required by {usual}"
    )
    if expected < 1:
        fault += f", of the {expected:.2f} that the lists share in the evaluation"
    return least, fault


def compare(night: Night) -> ColdCheckFile:
    """Compute the canaries' lists from files and compare them with those of the training."""
    run = night.run
    history = History.from_arrays(run.arrays(REFIT, "history"))
    expected = run.arrays(REFIT, "canaries")
    canaries, fault = len(expected["rows"]), None
    scorer = read_scorer(run, REFIT)
    lists = canary_lists(scorer, history, expected["rows"], night, read_split(run))
    # Items must be equal, scores up to rounding.
    same = all(np.array_equal(lists[name], expected[name]) for name in ("indptr", "item"))
    if not same or not np.allclose(lists["score"], expected["score"], rtol=1e-5, atol=1e-7):
        fault = f"a new process computes other lists than the training ({canaries} users compared)"
    return ColdCheckFile(canaries=canaries, idle=0, overlap=None, least=None, fault=fault)


if __name__ == "__main__":
    workspace = Workspace.open(Path(sys.argv[1]))
    result = compare(Night.read(workspace, workspace.run(sys.argv[2])))
    sys.stdout.write(result.model_dump_json())
