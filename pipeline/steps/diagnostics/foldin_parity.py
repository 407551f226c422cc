"""Fold-in parity: lists of the old model by fold-in compared with lists of the refit.

Guarantees: both kinds of lists are made from the same events for the same users, those with events
since the champion's training; a measurement that is not possible has a reason in words and stops no
run.

The cold check measures the overlap; later runs score both kinds of lists on the events since.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.data.features import WEIGHED
from pipeline.data.matrix import History
from pipeline.data.split import Split, between, last_event
from pipeline.data.targets import is_target
from pipeline.data.windows import weigh_users
from pipeline.errors import NightjarError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.prequential import PrequentialFigures, list_quality, past_of
from pipeline.serving.churn import FIRST, churn, lists_of_users
from pipeline.serving.foldin import end_of, histories
from pipeline.serving.publish import unavailable
from pipeline.serving.recommend import model_lists
from pipeline.steps.diagnostics.churn import variation
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.artifacts import REFIT, FollowedParityFile
from pipeline.workspace.ledger import Champion
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.release_artifacts import ParityFile
from pipeline.workspace.run_files import promoted, read_scorer, read_split

FOLDED: Final = "folded"
RETRAINED: Final = "retrained"
_MOST: Final = 2000
"""Maximum number of compared users: enough for two digits of the overlap."""


def measure_parity(night: Night, draft: Draft, progress: Progress) -> ParityFile | None:
    """Compare the champion's folded-in lists with the refit's, and store both for later runs.

    Parameters
    ----------
    draft
        Step that stores the lists and the result.

    Returns
    -------
    The result; None if no lists were live before.
    """
    if night.champion is None:
        return None
    progress("overlap of fold-in and refit")
    users, overlap, reason = 0, None, None
    try:
        lists = _both(night, night.champion)
    except NightjarError as error:
        lists = error.sentence
    if isinstance(lists, str):
        reason = f"not measured: {lists}"
    else:
        folded, retrained = lists
        common = set(folded[c.USER_ID]) & set(retrained[c.USER_ID])
        users = len(common)
        if users >= MIN_GROUP_SIZE:
            overlap = churn(retrained, folded, common, k=FIRST).overlap
            reason = variation(night, str(promoted(night).recipe))
        else:
            reason = f"not reported: fewer than {MIN_GROUP_SIZE} users have events since"
        draft.frame(FOLDED, lists_of_users(folded, common))
        draft.frame(RETRAINED, lists_of_users(retrained, common))
    parity = ParityFile(users=users, overlap=overlap, k=FIRST, reason=reason)
    draft.write(parity)
    return parity


def follow_parity(night: Night, split: Split, draft: Draft, progress: Progress) -> None:
    """Score both kinds of lists of the last promotion on the events of their users since.

    Parameters
    ----------
    split
        Its target kinds and task select the events.
    draft
        Step that stores the result; none is stored without lists.
    """
    champion = night.champion
    if champion is None:
        return
    run = night.ws.runs.open(champion.run_id)
    parity = run.find(ParityFile)
    # Without lists the promotion stored only the reason.
    if parity is None or f"{FOLDED}.parquet" not in run.manifest(ParityFile.STEP)["files"]:
        return
    progress("scores of fold-in and refit since the last promotion")
    lists = {name: run.frame(ParityFile.STEP, name) for name in (FOLDED, RETRAINED)}
    users = lists[FOLDED][c.USER_ID].unique().to_list()
    span = Interval(champion.as_of, night.as_of)
    columns = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
    past = night.table("events", columns=columns, where=past_of(users, span))
    wanted = is_target(split.target_kinds, night.config.features.rating_threshold)
    events = night.table(
        "events",
        columns=(*columns, c.KIND, c.VALUE),
        where=past_of(users, span) & between(span) & wanted,
    )
    k = night.config.recommend.length
    figures: dict[str, PrequentialFigures | None] = {}
    for name, shown in lists.items():
        row = list_quality(shown, events, past, span=span, k=k, task=split.task)
        figures[name] = None if row is None else PrequentialFigures.of(row)
    draft.write(FollowedParityFile(run_id=champion.run_id, k=k, **figures))


def parity_metrics(run: Run) -> dict[str, float]:
    """Return a run's parity as metrics.

    The overlap is of its own promotion, the scores are of the lists of the one before.
    """
    values: dict[str, float | None] = {}
    if (parity := run.find(ParityFile)) is not None:
        values["foldin.users"] = float(parity.users)
        values[f"foldin.overlap_at_{parity.k}"] = parity.overlap
    if (followed := run.find(FollowedParityFile)) is not None:
        metric = metric_name(NDCG, followed.k)
        rows = (("foldin", followed.folded), ("foldin.retrained", followed.retrained))
        values |= {f"{name}.{metric}": None if row is None else row.ndcg for name, row in rows}
    return {name: value for name, value in values.items() if value is not None}


def _both(night: Night, champion: Champion) -> tuple[pl.DataFrame, pl.DataFrame] | str:
    """Return folded-in and retrained lists, or the reason why there are none."""
    before = open_night(night.ws, champion.run_id)
    if not before.recipes[champion.name].capabilities.fold_in:
        return f"{champion.name} cannot fold in"
    histories_of_users = _histories(night, before, champion)
    if isinstance(histories_of_users, str):
        return histories_of_users
    own, retrained = histories_of_users
    lists = partial(
        model_lists,
        unavailable=unavailable(night.table("items")),
        repeat=read_split(night.run).task == "repeat",
        length=night.config.recommend.length,
    )
    # One scorer at a time is in memory.
    folded = lists(read_scorer(before.run, REFIT).fold_in, own)
    return folded, lists(read_scorer(night.run, REFIT).score, retrained)


def _histories(night: Night, before: Night, champion: Champion) -> tuple[History, History] | str:
    """Return users as the champion folds them in and as retrained, or why there are none."""
    events = night.events(*WEIGHED)
    since = events.filter(between(Interval(champion.as_of, night.as_of)))
    history = History.from_arrays(night.run.arrays(REFIT, "history"))
    active = sorted(set(since[c.USER_ID]) & set(history.user_ids.tolist()))
    if not active:
        return "no user has events since the last training"
    # Pseudonyms are random, so evenly spaced ones are a random sample.
    sample = np.linspace(0, len(active) - 1, min(len(active), _MOST)).astype(np.int64)
    users = [active[n] for n in sample]
    # The catalogue and the user features that the champion was trained on.
    window = History.from_arrays(before.run.arrays(REFIT, "history"))
    recent = lists_of_users(events, users)
    end = end_of(last_event(recent, night.as_of), champion.as_of)
    own = histories(weigh_users(recent, events, before.config.windows), window, end)
    if own is None:
        return "all events since the last training are of new items"
    return own, history.take(np.flatnonzero(np.isin(history.user_ids, users)))
