"""Products of scores with numbers, and sums of scores, without writing scores out.

Guarantees: nothing dense is written. A factor per item goes into item factors and links, a factor
per user into user factors and histories; a sum of inner products is one inner product of
concatenated factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.models.contract import Scores
from pipeline.models.topk import best_scores


def trended(scores: Scores, trend: NDArray[np.float32]) -> Scores:
    """Multiply the scores of each item by a factor.

    Parameters
    ----------
    scores
        Scores over ``n_items``.
    trend
        ``(n_items,)`` float32.
    """

    def scaled_columns(cells: sp.csr_matrix | None) -> sp.csr_matrix | None:
        return None if cells is None else _with_data(cells, cells.data * trend[cells.indices])

    return replace(
        scores,
        items=None if scores.items is None else scores.items * trend[:, None],
        sparse_bonus=scaled_columns(scores.sparse_bonus),
        item_similarity=scaled_columns(scores.item_similarity),
    )


def scaled(scores: Scores, weight: float, to: NDArray[np.bool_] | None = None) -> Scores:
    """Scale each user's scores so that the best of them is `weight`.

    Parameters
    ----------
    scores
        Scores of ``n_users``. A user whose best score is not above 0, or who has none, gets 0.
    weight
        Best score of each user after scaling.
    to
        ``(n_users,)`` bool: the other users get 0; ``None`` for all users.
    """
    # The best over all items, own ones included, so that exclusions do not change the mixture.
    most = best_scores(scores)
    factor = np.zeros_like(most)
    where = most > 0 if to is None else to & (most > 0)
    np.divide(np.float32(weight), most, out=factor, where=where)

    def scaled_rows(cells: sp.csr_matrix | None) -> sp.csr_matrix | None:
        if cells is None:
            return None
        return _with_data(cells, cells.data * np.repeat(factor, np.diff(cells.indptr)))

    return replace(
        scores,
        users=None if scores.users is None else scores.users * factor[:, None],
        sparse_bonus=scaled_rows(scores.sparse_bonus),
        user_history=scaled_rows(scores.user_history),
    )


def joined(scores: Sequence[Scores]) -> Scores:
    """Return the sum of scores over the same users and items, part by part."""

    def present(name: str) -> list[Any]:
        return [part for term in scores if (part := getattr(term, name)) is not None]

    sparse, profiles = present("sparse_bonus"), present("user_history")
    return Scores(
        # A product of joined factors is the sum of the products, so no dense matrix is needed.
        users=np.hstack(users) if (users := present("users")) else None,
        items=np.hstack(items) if (items := present("items")) else None,
        sparse_bonus=sum(sparse[1:], sparse[0]) if sparse else None,
        user_history=sp.hstack(profiles, format="csr") if profiles else None,
        item_similarity=sp.vstack(present("item_similarity"), format="csr") if profiles else None,
    )


def _with_data(cells: sp.csr_matrix, data: NDArray[np.float32]) -> sp.csr_matrix:
    return sp.csr_matrix((data, cells.indices, cells.indptr), shape=cells.shape)
