"""Metrics per user, from ragged lists and the items that each user went for.

Promises: binary relevance; a user with an empty truth has NaN in every metric, and a mean leaves it
out; an item that the catalogue does not hold counts in `size` though no list can name it; a list
that is shorter than k is judged as if its missing entries were wrong. With *hits* the entries among
the first k that are in the truth, and ranks from 1, of one user:

* ``ndcg``: Σ over hits of 1/log2(1 + rank) ÷ the same sum for the ranks 1..min(k, size);
* ``recall``: hits ÷ size; ``recall_capped``: hits ÷ min(k, size); ``precision``: hits ÷ k;
* ``map``: Σ over hits of (hits up to this rank ÷ rank) ÷ min(k, size);
* ``mrr``: 1 ÷ the rank of the first hit, 0 without one; ``hit_rate``: 1 with a hit, else 0.

Where others differ. NDCG: ranx, and RecTools with ``divide_by_achievable``, are equal to ours;
RecTools by default divides by the sum for the ranks 1..k, whatever the size. MAP: ranx and RecTools
divide by the size, so that no list of k can reach 1 when the size is larger; ours times
min(k, size) ÷ size is theirs. RecTools names `recall_capped` "Precision with ``r_precision``". All
others are equal (`tests/golden` holds their figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.models.topk import Lists

NDCG: Final = "ndcg"
RECALL: Final = "recall"
RECALL_CAPPED: Final = "recall_capped"
PRECISION: Final = "precision"
MAP: Final = "map"
MRR: Final = "mrr"
HIT_RATE: Final = "hit_rate"
PER_USER: Final = (NDCG, RECALL, RECALL_CAPPED, PRECISION, MAP, MRR, HIT_RATE)
"""What `measure` measures."""

_AT_ONCE: Final = 1 << 15
"""Users looked at together: bounds the memory beside lists and truth."""


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


def measure(lists: Lists, truth: Truth, *depths: int) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Return every metric of `PER_USER` at every depth, in one pass over the lists.

    Parameters
    ----------
    lists, truth
        Of the same ``n_users``, over the same catalogue; no item twice in a list.
    depths
        Each k, ≥ 1; may exceed the lists.

    Returns
    -------
    dict
        (metric, k) to ``(n_users,)`` float64 in [0, 1], NaN where the truth is empty.
    """
    if not depths or min(depths) < 1:
        raise ValueError(f"metrics are taken at depths of at least 1, not at {depths}")
    row, rank, nth = _hits(lists, truth)
    n_users, deepest = truth.items.shape[0], max(depths)
    within = rank < deepest
    row, rank, nth = row[within], rank[within], nth[within]
    discount = 1.0 / np.log2(np.arange(2, deepest + 2))
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])
    gain, precision, first = discount[rank], nth / (rank + 1), (nth == 1) / (rank + 1)
    one = np.where(truth.size > 0, 1.0, np.nan)
    size = truth.size * one
    found: dict[tuple[str, int], NDArray[np.float64]] = {}
    for k in depths:
        within = rank < k
        users = row[within]
        hits = np.bincount(users, minlength=n_users)
        best = np.minimum(size, k)
        values = {
            NDCG: np.bincount(users, gain[within], n_users) / ideal[np.minimum(truth.size, k)],
            RECALL: hits / size,
            RECALL_CAPPED: hits / best,
            PRECISION: hits / k * one,
            MAP: np.bincount(users, precision[within], n_users) / best,
            MRR: np.bincount(users, first[within], n_users) * one,
            HIT_RATE: (hits > 0) * one,
        }
        found |= {(name, k): value for name, value in values.items()}
    return found


def ndcg(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64 in [0, 1], NaN where the truth is empty."""
    return measure(lists, truth, k)[NDCG, k]


def recall(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64 in [0, 1], NaN where the truth is empty."""
    return measure(lists, truth, k)[RECALL, k]


def _hits(
    lists: Lists, truth: Truth
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return row, rank from 0, and number within its list from 1 of each hit; in their order."""
    n_users, n_items = truth.items.shape
    if lists.n_rows != n_users or len(truth.size) != n_users:
        raise ValueError(f"{lists.n_rows} lists, but the truth of {n_users} users")
    if lists.item.max(initial=-1) >= n_items or lists.item.min(initial=0) < 0:
        raise ValueError(f"a list names an item outside the catalogue of {n_items}")
    places, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, n_users, _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, n_users))
        # Cells hold the number of their entry, so that what is left of them says where hits are.
        listed = _part(lists.item, lists.indptr, rows, n_items)
        wanted = _part(truth.items.indices, truth.items.indptr, rows, n_items)
        wanted.data[:] = 1
        both = listed.multiply(wanted)
        places.append(np.sort(both.data) + (lists.indptr[start] - 1))
        counts.append(np.diff(both.indptr))
    place, count = np.concatenate(places), np.concatenate(counts)
    row = np.repeat(np.arange(n_users), count)
    before = np.repeat(np.cumsum(count) - count, count)
    return row, place - lists.indptr[row], np.arange(1, len(place) + 1) - before


def _part(
    item: NDArray[np.int32], indptr: NDArray[np.int64], rows: slice, n_items: int
) -> sp.csr_matrix:
    """Return some rows of ragged lists as cells that hold the number of their entry, from 1."""
    bounds = indptr[rows.start : rows.stop + 1]
    item = item[bounds[0] : bounds[-1]]
    number = np.arange(1, len(item) + 1, dtype=np.int32)
    return sp.csr_matrix((number, item, bounds - bounds[0]), shape=(len(bounds) - 1, n_items))
