"""Champion -> lists of K for all users, and a fallback list for users without events.

Guarantees:

* Every user of the snapshot gets at most one list; positions start at 1 and have no gaps.
* No entry is unavailable, or seen before where the task is *discovery*.
* A list is shorter than K only if the catalogue has no more items for it; it is never padded.
* Users without a list of the model get the fallback list, and `slot` records it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.matrix import History
from pipeline.models.contract import Scorer, Scores
from pipeline.models.topk import Lists, top_k


class RecommendConfig(Frozen):
    """Settings of the recommendation lists."""

    length: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Number of entries of a list; it is also the k of every metric.",
    )
    max_short_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the users who may get fewer than half of a list because items are "
        "unavailable; above it, nothing is published.",
    )


@dataclass(frozen=True)
class ListRules:
    """Rules that all lists of a publication follow.

    Attributes
    ----------
    unavailable
        Items that must not appear.
    repeat
        Whether a list may hold items that its user had before.
    length
        Entries of a list, at most.
    reasons
        Values of `reason` for entries of the champion and of the fallback: the recipes' names.
    """

    unavailable: Collection[str]
    repeat: bool
    length: int
    reasons: tuple[str, str] = ("", "")

    def allowed(self, history: History) -> NDArray[np.bool_]:
        """``(n_items,)`` bool: items that may be shown."""
        gone = np.asarray(sorted(self.unavailable), dtype=np.str_)
        return ~np.isin(history.item_ids, gone)


def recommend(
    champion: Scorer,
    fallback: Scorer,
    history: History,
    others: Collection[str],
    rules: ListRules,
    described: History | None = None,
) -> pl.DataFrame:
    """Build the lists of all users.

    Parameters
    ----------
    champion, fallback
        Trained on `history`. The fallback must give all users the same list (popularity).
    history
        The full window: all users with an event.
    others
        Users without an event; they get the fallback list under their own id.
    rules
        Rules of the lists.
    described
        Those of the others who get a list from their features; their slot stays `fallback`,
        because it follows no event of their own.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS` without the publication: user_id, position (1-based), item_id,
    score f32, slot, propensity (1.0: no randomness), reason; sorted by user and position. The list
    under `columns.FALLBACK_USER` is for all other users.
    """
    own = user_lists(champion.score, fallback, history, rules)
    # The fallback ignores histories: the list of one user without events is that of all others.
    nothing = _without_history(history)
    anyone = top_k(fallback.fold_in(nothing), rules.length, allowed=rules.allowed(history))
    rows = _rows(anyone, nothing.user_ids, history.item_ids, c.Slot.FALLBACK, rules.reasons[1])
    by_features = own.clear()
    if described is not None and described.n_users:
        lists = _lists(champion.score, described, np.ones(described.n_users, np.bool_), rules)
        by_features = _rows(
            lists, described.user_ids, history.item_ids, c.Slot.FALLBACK, rules.reasons[0]
        )
    left = set(others) - set(by_features[c.USER_ID])
    users = pl.DataFrame({c.USER_ID: [c.FALLBACK_USER, *sorted(left)]})
    everyone = users.join(rows.drop(c.USER_ID), how="cross")
    return pl.concat([own, by_features, everyone]).sort(c.USER_ID, c.POSITION)


def user_lists(
    score: Callable[[History], Scores],
    fallback: Scorer,
    history: History,
    rules: ListRules,
) -> pl.DataFrame:
    """Build the lists of the users of a history.

    Parameters
    ----------
    score
        A champion's `score`, or its `fold_in` for users that it was not trained on.
    fallback
        Scorer for users whom the champion gives no list.
    history
        Users and their events, over the catalogue of the champion.
    rules
        Rules of the lists.

    Returns
    -------
    Rows as in `recommend`.
    """
    # Users who returned all their items have events and no positive weight: a model would score
    # every item 0 for them.
    cold = np.diff(history.confidence(None).indptr) == 0
    own = _lists(score, history, ~cold, rules)
    own_rows = np.flatnonzero(~cold)
    # A list can still be empty, for example if the user had all allowed items.
    cold[own_rows[np.diff(own.indptr) == 0]] = True
    known = _lists(fallback.score, history, cold, rules)
    model, popular = rules.reasons
    own_ids, cold_ids = history.user_ids[own_rows], history.user_ids[cold]
    rows = _rows(own, own_ids, history.item_ids, c.Slot.MODEL, model)
    others = _rows(known, cold_ids, history.item_ids, c.Slot.FALLBACK, popular)
    return pl.concat([rows, others]).sort(c.USER_ID, c.POSITION)


def model_lists(
    score: Callable[[History], Scores],
    history: History,
    unavailable: Collection[str],
    *,
    repeat: bool,
    length: int,
) -> pl.DataFrame:
    """Return the lists of a model for the users of a history, without a fallback.

    Parameters
    ----------
    score
        A scorer's `score` or `fold_in`.
    history
        Users and their events.
    unavailable, repeat, length
        As in `ListRules`.

    Returns
    -------
    `user_id`, `position` (1-based), `item_id`.
    """
    rules = ListRules(unavailable, repeat, length)
    lists = _lists(score, history, np.ones(history.n_users, np.bool_), rules)
    return _entries(lists, history.user_ids, history.item_ids).drop(c.SCORE)


def fallback_list(fallback: Scorer, history: History, length: int) -> list[tuple[str, float]]:
    """Return the fallback list over the whole catalogue.

    Parameters
    ----------
    fallback
        Scorer that gives all users the same list.
    history
        Window whose catalogue is used.
    length
        Entries of the list, at most.

    Returns
    -------
    Pairs of item id and score, best first.
    """
    anyone = top_k(fallback.fold_in(_without_history(history)), length)
    items = history.item_ids[anyone.item].tolist()
    return list(zip(items, anyone.score.tolist(), strict=True))


def _lists(
    score: Callable[[History], Scores],
    history: History,
    chosen: NDArray[np.bool_],
    rules: ListRules,
) -> Lists:
    """Return the lists of the chosen rows of `history`, in its order."""
    part = history.take(np.flatnonzero(chosen))
    exclude = None if rules.repeat else part.seen
    return top_k(score(part), rules.length, exclude=exclude, allowed=rules.allowed(history))


def _without_history(history: History) -> History:
    """Return a history of one user without events, over the same catalogue."""
    return History(
        user_ids=np.array([c.FALLBACK_USER]),
        item_ids=history.item_ids,
        indptr=np.zeros(2, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
    )


def _rows(
    lists: Lists,
    user_ids: NDArray[np.str_],
    item_ids: NDArray[np.str_],
    slot: c.Slot,
    reason: str,
) -> pl.DataFrame:
    return _entries(lists, user_ids, item_ids).with_columns(
        pl.lit(slot.value).alias(c.SLOT),
        pl.lit(1.0).alias(c.PROPENSITY),
        pl.lit(reason).alias(c.REASON),
    )


def _entries(lists: Lists, user_ids: NDArray[np.str_], item_ids: NDArray[np.str_]) -> pl.DataFrame:
    # Position in a list: the running number of the entry minus that of the first one.
    counts = np.diff(lists.indptr)
    position = np.arange(len(lists.item)) - np.repeat(lists.indptr[:-1], counts) + 1
    # Each id is stored once; numpy would repeat its text, at four bytes a character.
    users, items = (pl.Series(ids.tolist(), dtype=pl.String) for ids in (user_ids, item_ids))
    return pl.DataFrame(
        {
            c.USER_ID: users.gather(np.repeat(np.arange(len(user_ids)), counts)),
            c.POSITION: position.astype(np.int32),
            c.ITEM_ID: items.gather(lists.item),
            c.SCORE: lists.score,
        }
    )
