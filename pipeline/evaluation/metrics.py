"""Metrics per user, from ragged lists and the items that each user went for.

Promises: binary relevance; a user with an empty truth has NaN, and a mean leaves it out; an item
that the catalogue does not hold counts in `size` though no list can name it. The definitions:

* NDCG@k = Σ over hits of 1/log2(1 + rank) ÷ the same sum for the ranks 1..min(k, size);
* recall@k = hits among the first k ÷ size (not ÷ min(k, size));
* hit rate@k = 1 if any of the first k is a hit, else 0;
* coverage@k = distinct items among all first k ÷ items of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.models.topk import Lists


@dataclass(frozen=True)
class Truth:
    """What users went for in the holdout.

    Attributes
    ----------
    items
        Users × catalogue CSR: a stored cell is a truth item, whatever its value; no duplicates.
    size
        ``(n_users,)`` int64: distinct truth items, those outside the catalogue included.
    """

    items: sp.csr_matrix
    size: NDArray[np.int64]

    def only(self, columns: NDArray[np.bool_], size: NDArray[np.int64]) -> Truth:
        """Return the truth within some columns ``(n_items,)``; `size` as in the attributes."""
        rows = np.repeat(np.arange(self.items.shape[0]), np.diff(self.items.indptr))
        keep = columns[self.items.indices]
        kept = sp.csr_matrix(
            (np.ones(keep.sum(), np.float32), (rows[keep], self.items.indices[keep])),
            shape=self.items.shape,
        )
        return Truth(kept, size)


def hits(lists: Lists, truth: Truth) -> NDArray[np.bool_]:
    """``(n_entries,)`` bool: which entries of the lists are in their user's truth."""
    n_users, n_items = truth.items.shape
    if lists.n_rows != n_users or len(truth.size) != n_users:
        raise ValueError(f"{lists.n_rows} lists, but the truth of {n_users} users")
    wanted = np.repeat(np.arange(n_users, dtype=np.int64), np.diff(truth.items.indptr)) * n_items
    wanted += truth.items.indices
    wanted.sort()
    listed = lists.row.astype(np.int64) * n_items + lists.item
    if not len(wanted):
        return np.zeros(len(listed), np.bool_)
    at = np.minimum(np.searchsorted(wanted, listed), len(wanted) - 1)
    found: NDArray[np.bool_] = wanted[at] == listed
    return found


def ndcg(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64 in [0, 1], NaN where the truth is empty."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    counted = hits(lists, truth) & (lists.rank < k)
    gain = np.zeros(truth.items.shape[0])
    np.add.at(gain, lists.row[counted], discount[lists.rank[counted]])
    return _over(gain, np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(truth.size, k)])


def recall(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64 in [0, 1], NaN where the truth is empty."""
    return _over(_counted(lists, truth, k), truth.size.astype(np.float64))


def hit_rate(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64, 0 or 1, NaN where the truth is empty."""
    hit = (_counted(lists, truth, k) > 0).astype(np.float64)
    return np.where(truth.size > 0, hit, np.nan)


def coverage(lists: Lists, n_items: int, k: int) -> float:
    """Share of the catalogue that appears among the first `k` of any list."""
    return len(np.unique(lists.item[lists.rank < k])) / n_items if n_items else 0.0


def _counted(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    counted = hits(lists, truth) & (lists.rank < k)
    return np.bincount(lists.row[counted], minlength=truth.items.shape[0]).astype(np.float64)


def _over(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
