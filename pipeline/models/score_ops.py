"""Scores times numbers, and the sum of scores.

Promises: nothing is written out. A number of an item goes into its factors and links, one of a user
into theirs; a sum of inner products is one inner product of what is side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.models.contract import Scores
from pipeline.models.topk import best_scores


def trended(scores: Scores, trend: NDArray[np.float32]) -> Scores:
    """Multiply the scores of each item by ``(n_items,)`` float32."""
    return Scores(
        users=scores.users,
        items=None if scores.items is None else scores.items * trend[:, None],
        sparse_bonus=_columns_times(scores.sparse_bonus, trend),
        user_history=scores.user_history,
        item_similarity=_columns_times(scores.item_similarity, trend),
    )


def scaled(scores: Scores, weight: float, to: NDArray[np.bool_] | None = None) -> Scores:
    """Scale each user's scores so that the best of them is `weight`.

    A user whose best score is not above 0, who has none, or who is not among `to`, keeps nothing.
    """
    most = best_scores(scores)
    factor = np.zeros_like(most)
    np.divide(
        np.float32(weight), most, out=factor, where=most > 0 if to is None else to & (most > 0)
    )
    return Scores(
        users=None if scores.users is None else scores.users * factor[:, None],
        items=scores.items,
        sparse_bonus=_rows_times(scores.sparse_bonus, factor),
        user_history=_rows_times(scores.user_history, factor),
        item_similarity=scores.item_similarity,
    )


def joined(scores: Sequence[Scores]) -> Scores:
    """Return the sum of scores over the same users and items, part by part."""
    users = [one.users for one in scores if one.users is not None]
    items = [one.items for one in scores if one.items is not None]
    profiles = [one.user_history for one in scores if one.user_history is not None]
    links = [one.item_similarity for one in scores if one.item_similarity is not None]
    sparse = [one.sparse_bonus for one in scores if one.sparse_bonus is not None]
    return Scores(
        users=np.hstack(users) if users else None,
        items=np.hstack(items) if items else None,
        sparse_bonus=sum(sparse[1:], sparse[0]) if sparse else None,
        user_history=sp.hstack(profiles, format="csr") if profiles else None,
        item_similarity=sp.vstack(links, format="csr") if links else None,
    )


def _columns_times(cells: sp.csr_matrix | None, value: NDArray[np.float32]) -> sp.csr_matrix | None:
    if cells is None:
        return None
    data = cells.data * value[cells.indices]
    return sp.csr_matrix((data, cells.indices, cells.indptr), shape=cells.shape)


def _rows_times(cells: sp.csr_matrix | None, value: NDArray[np.float32]) -> sp.csr_matrix | None:
    if cells is None:
        return None
    data = cells.data * np.repeat(value, np.diff(cells.indptr))
    return sp.csr_matrix((data, cells.indices, cells.indptr), shape=cells.shape)
