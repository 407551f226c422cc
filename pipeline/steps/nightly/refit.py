"""Trains the promoted recipe again, on all events up to the as-of."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.failpoints import failpoint
from pipeline.models.contract import Scorer
from pipeline.serving.recommend import fallback_list
from pipeline.steps.diagnostics.training_cost import fit, write_cost
from pipeline.stores.runs import Ref
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.run_files import FALLBACK, promoted, read_history, read_split, write_scorer
from pipeline.workspace.workspace import Workspace

CANARIES = 100
"""Users whose lists a fresh process must repeat."""


def refit(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Train the promoted recipe, and the fallback, on everything up to the as-of."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("refit")) is not None:
        return ref
    decision = promoted(night)
    name = decision["recipe"]
    recipe = night.recipes[name]
    history, split = read_history(night.run, "full"), read_split(night.run)
    scorer, cost = fit(name, recipe, history, night.config.train, lambda x: progress(f"refit: {x}"))
    history = history.over(scorer.item_ids)  # from here on the catalogue is the champion's
    fallback = night.recipes[FALLBACK].train(history)
    canaries = np.linspace(0, history.n_users - 1, min(CANARIES, history.n_users)).astype(np.int64)
    anyone = fallback_list(fallback, history, night.config.recommend.length)
    with night.run.draft("refit") as draft:
        write_scorer(draft, name, recipe, scorer)
        write_cost(draft, cost)
        draft.arrays("fallback", fallback.arrays())
        draft.json(
            "meta",
            {
                "family": recipe.family,
                "exclude_seen": split.policy == "discovery",
                "fallback": [{c.ITEM_ID: item, c.SCORE: score} for item, score in anyone],
            },
        )
        draft.arrays("history", history.arrays())
        draft.arrays("canaries", canary_lists(scorer, history, canaries, night, split))
        draft.rows = history.n_users
    failpoint("refit")
    return night.run.ref("refit")


def canary_lists(
    scorer: Scorer, history: History, rows: np.ndarray[Any, Any], night: Night, split: Split
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the lists of a few users as arrays: rows, indptr, item, score."""
    from pipeline.models.topk import top_k

    part = history.rows(rows)
    exclude = part.seen if split.policy == "discovery" else None
    lists = top_k(scorer.score(part), night.config.recommend.length, exclude=exclude)
    return {"rows": rows, "indptr": lists.indptr, "item": lists.item, "score": lists.score}
