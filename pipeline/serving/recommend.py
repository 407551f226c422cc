"""Champion -> lists of K for everybody, and one list for people we know nothing of.

Promises: every user of the snapshot gets at most one list; positions start at 1 and have no gaps;
no entry is unavailable, or seen where the policy is *discovery*; a list is shorter than K only
when the catalogue has no more to offer, and never padded; who has no list of a model gets the
fallback, and `slot` says so.
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
    """The shape of a list."""

    length: int = Field(
        default=20, ge=1, le=1000, description="Entries of a list; also the k of every metric."
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
) -> pl.DataFrame:
    """Build the lists of everybody.

    Parameters
    ----------
    champion, fallback
        Trained on `history`. The fallback must give anyone the same list (popularity).
    history
        The full window: all users with an event.
    others
        Users without an event; they get the fallback list under their own id.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS` without the publication: user_id, position (1-based), item_id,
    score f32, slot, propensity (1.0: nothing is left to chance), reason; sorted by user and
    position. `columns.ANYONE` stands for whoever has no list.
    """
    own = people_lists(champion.score, fallback, history, rules)
    nothing = _without_history(history)
    anyone = top_k(fallback.fold_in(nothing), rules.length, allowed=rules.allowed(history))
    rows = _rows(anyone, nothing.user_ids, history.item_ids, c.Slot.FALLBACK, rules.reasons[1])
    users = pl.DataFrame({c.USER_ID: [c.ANYONE, *sorted(others)]})
    everyone = users.join(rows.drop(c.USER_ID), how="cross")
    return pl.concat([own, everyone]).sort(c.USER_ID, c.POSITION)


def people_lists(
    score: Callable[[History], Scores],
    fallback: Scorer,
    history: History,
    rules: ListRules,
) -> pl.DataFrame:
    """Build the lists of the users of `history`, by a way of scoring them; rest as in `recommend`.

    Parameters
    ----------
    score
        A champion's `score`, or its `fold_in` for what it was not trained on.
    """
    # Whoever took everything back has events and no taste: a model would score them all 0.
    cold = np.diff(history.confidence(None).indptr) == 0
    own = _lists(score, history, ~cold, rules)
    own_rows = np.flatnonzero(~cold)
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
    """Return user, position and item of a model's lists for the users of `history`, no fallback."""
    rules = ListRules(unavailable, repeat, length)
    lists = _lists(score, history, np.ones(history.n_users, np.bool_), rules)
    rows = _rows(lists, history.user_ids, history.item_ids, c.Slot.MODEL, "")
    return rows.select(c.USER_ID, c.POSITION, c.ITEM_ID)


def fallback_list(fallback: Scorer, history: History, length: int) -> list[tuple[str, float]]:
    """Return the list for anyone over the whole catalogue: (item id, score), best first."""
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
    """Return one user without any event, over the same catalogue."""
    return History(
        user_ids=np.array([c.ANYONE]),
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
    counts = np.diff(lists.indptr)
    position = np.arange(len(lists.item)) - np.repeat(lists.indptr[:-1], counts) + 1
    return pl.DataFrame(
        {
            c.USER_ID: np.repeat(user_ids, counts),
            c.POSITION: position.astype(np.int32),
            c.ITEM_ID: item_ids[lists.item],
            c.SCORE: lists.score,
        },
        schema_overrides={c.USER_ID: pl.String, c.ITEM_ID: pl.String},
    ).with_columns(
        pl.lit(slot.value).alias(c.SLOT),
        pl.lit(1.0).alias(c.PROPENSITY),
        pl.lit(reason).alias(c.REASON),
    )
