"""Champion -> lists of K for everybody, and one list for people we know nothing of.

Promises: every user of the snapshot gets at most one list; positions start at 1 and have no gaps;
no entry is unavailable, or seen where the policy is *discovery*; a list is shorter than K only
when the catalogue has no more to offer, and never padded; who has no list of a model gets the
fallback, and `slot` says so.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.matrix import History
from pipeline.models.contract import Scorer
from pipeline.models.topk import Lists, top_k


class RecommendConfig(Frozen):
    """The shape of a list."""

    length: int = Field(
        default=20, ge=1, le=1000, description="Entries of a list; also the k of every metric."
    )


def recommend(
    champion: Scorer,
    fallback: Scorer,
    history: History,
    others: Collection[str],
    unavailable: Collection[str],
    *,
    repeat: bool,
    config: RecommendConfig,
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
    unavailable
        Items that must not appear.
    repeat
        Whether a list may hold what its user had before.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS` without the publication: user_id, position (1-based), item_id,
    score f32, slot, propensity (1.0: nothing is left to chance), reason; sorted by user and
    position. `columns.ANYONE` stands for whoever has no list.
    """
    allowed = ~np.isin(history.item_ids, np.asarray(sorted(unavailable), dtype=np.str_))
    exclude = None if repeat else history.seen
    lists = top_k(champion.score(history), config.length, exclude=exclude, allowed=allowed)
    popular = _fallback_list(fallback, history, config.length, allowed)
    unserved = history.user_ids[np.diff(lists.indptr) == 0].tolist()
    waiting = [c.ANYONE, *sorted({*others, *unserved})]
    frames = [
        _rows(lists, history.user_ids, history.item_ids, c.Slot.MODEL, "fits what this user chose"),
        _repeat_for(popular, waiting, history.item_ids),
    ]
    return pl.concat(frames).sort(c.USER_ID, c.POSITION)


def _fallback_list(
    fallback: Scorer, history: History, length: int, allowed: NDArray[np.bool_]
) -> Lists:
    """Return the one list of the fallback scorer, for a user without any event."""
    nobody = History(
        user_ids=np.array([c.ANYONE]),
        item_ids=history.item_ids,
        indptr=np.zeros(2, np.int64),
        item=np.zeros(0, np.int32),
        at=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
    )
    nothing = sp.csr_matrix((1, history.n_items), dtype=np.float32)
    return top_k(fallback.fold_in(nobody), length, exclude=nothing, allowed=allowed)


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


def _repeat_for(
    popular: Lists, user_ids: list[str], item_ids: NDArray[np.str_]
) -> pl.DataFrame:
    """Write the one fallback list out for each of `user_ids`."""
    n = len(user_ids)
    length = len(popular.item)
    written = Lists(
        indptr=np.arange(n + 1, dtype=np.int64) * length,
        item=np.tile(popular.item, n),
        score=np.tile(popular.score, n),
    )
    return _rows(
        written, np.asarray(user_ids), item_ids, c.Slot.FALLBACK, "popular with everybody lately"
    )
