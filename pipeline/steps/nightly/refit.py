"""Trains the promoted recipe and the fallback again, on all events before the as-of.

Guarantees: without a promotion it raises before anything is trained; the stored history has the
catalogue of the scorer; the canaries' lists are computed before the scorer is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.base import Progress
from pipeline.data.feature_encoding import described_users
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.failpoints import failpoint
from pipeline.models.contract import Scorer
from pipeline.models.topk import top_k
from pipeline.serving.recommend import fallback_list
from pipeline.steps.diagnostics.training_cost import fit
from pipeline.steps.nightly.version_figures import write_replaced
from pipeline.workspace.artifacts import REFIT, EvaluationFile, FallbackEntry, MetaFile
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import FALLBACK, promoted, read_history, read_split, write_scorer
from pipeline.workspace.step_outputs import record_step
from pipeline.workspace.task_log import task_step

CANARIES = 100
"""Number of users whose lists a new process must reproduce."""


@task_step(REFIT, check=lambda night: record_step(night, REFIT))
def refit(night: Night, progress: Progress) -> str:
    """Write the scorer that goes live, its users, the fallback, and the canaries' lists.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.
    """
    name = str(promoted(night).recipe)
    recipe = night.recipes[name]
    history, split = read_history(night.run, "full"), read_split(night.run)
    scorer, cost = fit(
        name, recipe, history, night.config.train, lambda text: progress(f"refit: {text}")
    )
    # From here on the catalogue is that of the model, which may differ from the window's.
    history = history.reindex_items(scorer.item_ids)
    fallback = night.recipes[FALLBACK].train(history)
    # Canaries are spread evenly over the rows of the window.
    canaries = np.linspace(0, history.n_users - 1, min(CANARIES, history.n_users)).astype(np.int64)
    entries = fallback_list(fallback, history, night.config.recommend.length)
    meta = MetaFile(
        family=recipe.family,
        exclude_seen=split.task == "discovery",
        fallback=tuple(FallbackEntry(item_id=item, score=score) for item, score in entries),
    )
    with night.run.draft(REFIT) as draft:
        write_scorer(draft, name, recipe, scorer)
        draft.write(cost)
        draft.arrays("fallback", fallback.arrays())
        draft.write(meta)
        draft.arrays("history", history.arrays())
        draft.arrays("described", _described(night, name, history).arrays())
        draft.arrays("canaries", canary_lists(scorer, history, canaries, night, split))
        write_replaced(night, name, draft, progress)
        draft.rows = history.n_users
    failpoint("refit")
    return f"{name} in {cost.text()}"


def _described(night: Night, name: str, history: History) -> History:
    """Return the users who get the list of their features, if such lists are better."""
    judged = night.run.read(EvaluationFile).recipes[name].new_users
    if judged is None or not judged.better:
        return history.take(np.zeros(0, np.int64))
    return described_users(history, night.run.frame("features", "users"))


def canary_lists(
    scorer: Scorer, history: History, rows: np.ndarray[Any, Any], night: Night, split: Split
) -> dict[str, np.ndarray[Any, Any]]:
    """Compute the lists of some users.

    Parameters
    ----------
    scorer, history
        The refit and its full window.
    rows
        (n,) int64 row numbers of the users in `history`.
    night, split
        Run, and its split with the task.

    Returns
    -------
    ``rows``, and the lists as CSR arrays ``indptr``, ``item``, ``score``.
    """
    part = history.take(rows)
    exclude = part.seen if split.task == "discovery" else None
    lists = top_k(scorer.score(part), night.config.recommend.length, exclude=exclude)
    return {"rows": rows, "indptr": lists.indptr, "item": lists.item, "score": lists.score}
