"""How near fold-in comes to training again: measured at each promotion, and once more by what came.

Promises: the champion folds in what the night saw, the refit was trained on it, and both make lists
for the same people, those who did something since the champion's training; whatever cannot be
measured is said in words and stops no night.

The overlap is measured with the refit, by the cold check; what the two kinds of lists were worth to
the people, by the next nights, on what these people did since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.cluster_robust import FEWEST
from pipeline.data.features import WEIGHED
from pipeline.data.matrix import History
from pipeline.data.split import Split, between, last_event
from pipeline.data.targets import is_target
from pipeline.data.windows import of_people as weighed
from pipeline.errors import NightjarError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.parity import worth
from pipeline.evaluation.prequential import past_of
from pipeline.serving.churn import churn, of_people
from pipeline.serving.foldin import end_of, histories
from pipeline.serving.publish import unavailable
from pipeline.serving.recommend import model_lists
from pipeline.steps.diagnostics.churn import FIRST
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.history import Champion
from pipeline.workspace.night import Night, open_night, read_events, read_pinned
from pipeline.workspace.run_files import read_scorer, read_split
from pipeline.workspace.workspace import Workspace

FILE: Final = "parity"
MEASURED: Final = "cold_check"
FOLLOWED: Final = "evaluate"
FOLDED: Final = "folded"
RETRAINED: Final = "retrained"
_MOST: Final = 2000
"""People who are asked, at most: enough for two digits, and quick."""


def measure_parity(
    ws: Workspace, night: Night, draft: Draft, tell: Progress
) -> dict[str, Any] | None:
    """Hold the champion's folded-in lists against the refit's, and keep both for later nights.

    Returns
    -------
    ``users``, and the ``overlap`` of their first ``k`` entries, ``None`` with a ``why`` where there
    is none; it is written beside the lists. ``None`` where nothing was live before.
    """
    if night.champion is None:
        return None
    tell("fold-in against the refit")
    told: dict[str, Any] = {"users": 0, "overlap": None, "k": FIRST, "why": None}
    try:
        made = _both(ws, night, night.champion)
    except NightjarError as error:
        made = f"not measured: {error.sentence}"
    if isinstance(made, str):
        told["why"] = made
    else:
        folded, retrained = made
        people = set(folded[c.USER_ID]) & set(retrained[c.USER_ID])
        told["users"] = len(people)
        if len(people) >= FEWEST:
            told["overlap"] = churn(retrained, folded, people, k=FIRST).overlap
        else:
            told["why"] = f"not told: fewer than {FEWEST} people did something since"
        draft.frame(FOLDED, of_people(folded, people))
        draft.frame(RETRAINED, of_people(retrained, people))
    draft.json(FILE, told)
    return told


def follow_parity(ws: Workspace, night: Night, split: Split, draft: Draft, tell: Progress) -> None:
    """Score both kinds of lists of the last promotion by what their people did since."""
    champion = night.champion
    if champion is None:
        return
    run = ws.runs.open(champion.run_id)
    if not _has(run, MEASURED, f"{FOLDED}.parquet"):
        return
    tell("fold-in against training again, by what came")
    lists = {name: run.frame(MEASURED, name) for name in (FOLDED, RETRAINED)}
    people = lists[FOLDED][c.USER_ID].unique().to_list()
    span = Interval(champion.as_of, night.as_of)
    columns = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
    past = read_pinned(ws, night, "events", columns=columns, where=past_of(people, span))
    wanted = is_target(split.target_kinds, night.config.features.rating_threshold)
    asked = (*columns, c.KIND, c.VALUE)
    where = past_of(people, span) & between(span) & wanted
    events = read_pinned(ws, night, "events", columns=asked, where=where)
    k = night.config.recommend.length
    found = {
        name: worth(rows, events, past, span=span, k=k, policy=split.policy)
        for name, rows in lists.items()
    }
    told = {name: None if row is None else row.to_dict() for name, row in found.items()}
    draft.json(FILE, {"run_id": champion.run_id, "k": k, **told})


def read_parity(run: Run, step: str) -> dict[str, Any] | None:
    """Return what `measure_parity` or `follow_parity` wrote in a step; ``None`` for nothing."""
    if not _has(run, step, f"{FILE}.json"):
        return None
    told: dict[str, Any] = run.json(step, FILE)
    return told


def parity_metrics(run: Run) -> dict[str, float]:
    """Name a night's parity as metrics: the overlap of its own promotion, and what the last one's
    lists were worth since.
    """
    named: dict[str, float | None] = {}
    if (told := read_parity(run, MEASURED)) is not None:
        named["foldin.users"] = float(told["users"])
        named[f"foldin.overlap_at_{told['k']}"] = told["overlap"]
    if (since := read_parity(run, FOLLOWED)) is not None:
        metric = metric_name(NDCG, since["k"])
        for name, prefix in ((FOLDED, "foldin"), (RETRAINED, "foldin.retrained")):
            named[f"{prefix}.{metric}"] = (since[name] or {}).get("ndcg")
    return {name: value for name, value in named.items() if value is not None}


def _has(run: Run, step: str, name: str) -> bool:
    return run.committed(step) is not None and name in run.manifest(step)["files"]


def _both(
    ws: Workspace, night: Night, champion: Champion
) -> tuple[pl.DataFrame, pl.DataFrame] | str:
    """Return both kinds of lists, or why there are none."""
    before = open_night(ws, champion.run_id)
    if not before.recipes[champion.name].capabilities.fold_in:
        return f"not measured: {champion.name} cannot fold in"
    events = read_events(ws, night, *WEIGHED)
    since = events.filter(between(Interval(champion.as_of, night.as_of)))
    history = History.from_arrays(night.run.arrays("refit", "history"))
    people = _some(sorted(set(since[c.USER_ID]) & set(history.user_ids.tolist())))
    if not people:
        return "not measured: nobody did anything since"
    window = History.from_arrays(before.run.arrays("refit", "history"))
    theirs = of_people(events, people)
    end = end_of(last_event(theirs, night.as_of), champion.as_of)
    own = histories(weighed(theirs, events, before.config.windows), window, end)
    if own is None:
        return "not measured: what was done is all with items that are new"
    gone = unavailable(read_pinned(ws, night, "items"))
    repeat, length = read_split(night.run).policy == "repeat", night.config.recommend.length
    rows = np.flatnonzero(np.isin(history.user_ids, people))
    folded, retrained = (
        model_lists(score, one, gone, repeat=repeat, length=length)
        for score, one in (
            (read_scorer(before.run, "refit").fold_in, own),
            (read_scorer(night.run, "refit").score, history.rows(rows)),
        )
    )
    return folded, retrained


def _some(people: Sequence[str]) -> list[str]:
    """Return at most `_MOST`, spread evenly: pseudonyms are drawn by chance."""
    if len(people) <= _MOST:
        return list(people)
    return [people[n] for n in np.linspace(0, len(people) - 1, _MOST).astype(np.int64)]
