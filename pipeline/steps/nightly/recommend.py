"""Computes the list of every user, and one for users without events."""

from __future__ import annotations

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.failpoints import failpoint
from pipeline.models.families import load
from pipeline.serving import publish as swap
from pipeline.serving.recommend import ListRules
from pipeline.serving.recommend import recommend as build_lists
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import FALLBACK, promoted, read_scorer, read_split
from pipeline.workspace.task_log import task_step


@task_step("recommend")
def recommend(night: Night, progress: Progress) -> str:
    """Write the lists of all users, a few entries longer than they are shown."""
    name, run, config = str(promoted(night).recipe), night.run, night.config
    history = History.from_arrays(run.arrays(REFIT, "history"))
    users = night.table("users", columns=[c.USER_ID])[c.USER_ID]
    rules = ListRules(
        unavailable=swap.unavailable(night.table("items")),
        repeat=read_split(run).task == "repeat",
        length=config.recommend.length + config.publish.spare_items,
        reasons=(name, FALLBACK),
    )
    fallback = load(night.recipes[FALLBACK].family, run.arrays(REFIT, "fallback"))
    others = set(users) - set(history.user_ids.tolist())
    lists = build_lists(read_scorer(run, REFIT), fallback, history, others, rules)
    with run.draft("recommend") as draft:
        draft.frame("lists", lists)
        draft.rows = lists[c.USER_ID].n_unique()
    failpoint("lists_written")
    return f"{draft.rows:,} lists"
