"""Computes the list of every user, and one for users without events.

Guarantees: without a promotion it raises before anything is written; each user of the full window
and of the table of users gets at most one list; no entry is unavailable.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.failpoints import failpoint
from pipeline.models.families import load
from pipeline.serving import publish as serving
from pipeline.serving.recommend import ListRules
from pipeline.serving.recommend import recommend as build_lists
from pipeline.serving.withdrawal import refuse_short
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import FALLBACK, promoted, read_scorer, read_split
from pipeline.workspace.step_outputs import record_step
from pipeline.workspace.task_log import task_step


@task_step("recommend", check=lambda night: record_step(night, "recommend"))
def recommend(night: Night, progress: Progress) -> str:
    """Write the lists of all users, with spare entries behind those that are shown.

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
        `lists.too_short`: too many lists would be short, because items are unavailable.
    """
    name, run, config = str(promoted(night).recipe), night.run, night.config
    history = History.from_arrays(run.arrays(REFIT, "history"))
    # Users of the catalogue without events get the fallback list under their own id.
    users = night.table("users", columns=[c.USER_ID])[c.USER_ID]
    rules = ListRules(
        unavailable=serving.unavailable(night.table("items")),
        repeat=read_split(run).task == "repeat",
        # Spare entries replace items that become unavailable until the lists go live.
        length=config.recommend.length + config.publish.spare_items,
        reasons=(name, FALLBACK),
    )
    fallback = load(night.recipes[FALLBACK].family, run.arrays(REFIT, "fallback"))
    others = set(users) - set(history.user_ids.tolist())
    described = History.from_arrays(run.arrays(REFIT, "described"))
    lists = build_lists(read_scorer(run, REFIT), fallback, history, others, rules, described)
    refuse_short(
        serving.trim(lists, (), config.recommend.length),
        _possible(history, others, repeat=rules.repeat),
        config.recommend.length,
        config.recommend.max_short_share,
        history.n_users + len(others),
    )
    with run.draft("recommend") as draft:
        draft.frame("lists", lists)
        draft.rows = lists[c.USER_ID].n_unique()
    failpoint("lists_written")
    return f"{draft.rows:,} lists"


def _possible(history: History, others: Collection[str], *, repeat: bool) -> pl.DataFrame:
    """Return the number of entries of each user's list if all items were available."""
    possible = np.full(history.n_users, history.n_items)
    if not repeat:
        possible -= np.diff(history.seen.indptr)
    return pl.DataFrame(
        {
            c.USER_ID: [*history.user_ids.tolist(), *sorted(others)],
            "possible": [*possible.tolist(), *[history.n_items] * len(others)],
        },
        schema={c.USER_ID: pl.String, "possible": pl.Int64},
    )
