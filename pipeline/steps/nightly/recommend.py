"""Computes the list of every user, and one for users without events."""

from __future__ import annotations

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.failpoints import failpoint
from pipeline.models.families import load
from pipeline.serving import publish as swap
from pipeline.serving.recommend import recommend as build_lists
from pipeline.stores.runs import Ref
from pipeline.workspace.night import open_night, read_pinned
from pipeline.workspace.run_files import FALLBACK, promoted, read_scorer, read_split
from pipeline.workspace.workspace import Workspace


def recommend(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Build the lists of everybody, a few entries longer than they are shown."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("recommend")) is not None:
        return ref
    name = promoted(night)["recipe"]
    progress("recommend")
    history = History.from_arrays(night.run.arrays("refit", "history"))
    family = night.recipes[FALLBACK].family
    users = read_pinned(ws, night, "users", columns=[c.USER_ID])[c.USER_ID]
    config = night.config
    lists = build_lists(
        read_scorer(night.run, "refit"),
        load(family, night.run.arrays("refit", "fallback")),
        history,
        set(users) - set(history.user_ids.tolist()),
        swap.unavailable(read_pinned(ws, night, "items")),
        repeat=read_split(night.run).policy == "repeat",
        reasons=(name, FALLBACK),
        length=config.recommend.length + config.publish.reserve,
    )
    with night.run.draft("recommend") as draft:
        draft.frame("lists", lists)
        draft.rows = lists[c.USER_ID].n_unique()
    failpoint("lists_written")
    return night.run.ref("recommend")
