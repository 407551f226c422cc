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

from pipeline.evaluation.metrics_kernel import one_pass
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
    n_users, n_items = truth.items.shape
    if lists.n_rows != n_users or len(truth.size) != n_users:
        raise ValueError(f"{lists.n_rows} lists, but the truth of {n_users} users")
    if lists.item.max(initial=-1) >= n_items or lists.item.min(initial=0) < 0:
        raise ValueError(f"a list names an item outside the catalogue of {n_items}")
    ascending = np.unique(np.asarray(depths, np.int64))
    values = one_pass()(
        lists.item.astype(np.int32, copy=False),
        lists.indptr.astype(np.int64, copy=False),
        truth.items.indices.astype(np.int32, copy=False),
        truth.items.indptr.astype(np.int64, copy=False),
        truth.size.astype(np.int64, copy=False),
        n_items,
        ascending,
    )
    return {
        (name, int(k)): values[at, number]
        for at, k in enumerate(ascending)
        for number, name in enumerate(PER_USER)
    }


def ndcg(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """``(n_users,)`` float64 in [0, 1], NaN where the truth is empty."""
    return measure(lists, truth, k)[NDCG, k]
