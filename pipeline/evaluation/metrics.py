"""Accuracy metrics per user, from ragged lists and the ground truth of each user.

Guarantees: relevance is binary; a user without ground truth has NaN in every metric and is left out
of means; an item outside the catalogue counts in `size` though no list can contain it; entries
missing from a list shorter than k count as wrong. With *hits* the entries among the first k that
are in the ground truth, and ranks from 1, per user:

* ``ndcg``: Σ over hits of 1/log2(1 + rank) ÷ the same sum for the ranks 1..min(k, size);
* ``recall``: hits ÷ size; ``recall_capped``: hits ÷ min(k, size); ``precision``: hits ÷ k;
* ``map``: Σ over hits of (hits up to this rank ÷ rank) ÷ min(k, size);
* ``mrr``: 1 ÷ the rank of the first hit, 0 without one; ``hit_rate``: 1 with a hit, else 0.

Differences from other libraries. NDCG: equal to ranx, and to RecTools with
``divide_by_achievable``; RecTools by default divides by the sum for the ranks 1..k, whatever the
size. MAP: ranx and RecTools divide by the size, so that no list of k reaches 1 if the size is
larger; times min(k, size) ÷ size, `map` equals their value. `recall_capped` equals RecTools'
``Precision(k, r_precision=True)``, which also divides by min(k, size). All others are equal
(`tests/golden` has their figures).
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
"""Metrics that `measure` returns."""


@dataclass(frozen=True)
class Truth:
    """Ground truth: target items of users in the holdout.

    Attributes
    ----------
    items
        Users × catalogue CSR: a stored cell is a target item, whatever its value; no duplicates.
    size
        ``(n_users,)`` int64: distinct target items, those outside the catalogue included.
    """

    items: sp.csr_matrix
    size: NDArray[np.int64]

    def only(self, columns: NDArray[np.bool_], size: NDArray[np.int64]) -> Truth:
        """Return the ground truth within some columns.

        Parameters
        ----------
        columns
            ``(n_items,)`` bool.
        size
            As in the attributes.

        Returns
        -------
        Truth
            Over the same catalogue.
        """
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
        (metric, k) to ``(n_users,)`` float64 in [0, 1], NaN without ground truth.

    Raises
    ------
    ValueError
        A depth is below 1, or the lists and the ground truth do not match.
    """
    if not depths or min(depths) < 1:
        raise ValueError(f"depths of metrics must be at least 1, not {depths}")
    n_users, n_items = truth.items.shape
    if lists.n_rows != n_users or len(truth.size) != n_users:
        raise ValueError(f"{lists.n_rows} lists do not match the ground truth of {n_users} users")
    if lists.item.max(initial=-1) >= n_items or lists.item.min(initial=0) < 0:
        raise ValueError(f"a list has an item outside the catalogue of {n_items} items")
    # The compiled pass needs ascending depths, and is compiled for these dtypes alone.
    ascending = np.unique(np.asarray(depths, np.int64))
    values = one_pass()(
        lists.item.astype(np.int32, copy=False),
        lists.indptr.astype(np.int64, copy=False),
        truth.items.indices.astype(np.int32, copy=False),
        truth.items.indptr.astype(np.int64, copy=False),
        truth.size.astype(np.int64, copy=False),
        n_items,
        ascending,
        len(PER_USER),
    )
    return {
        (name, int(k)): values[at, number]
        for at, k in enumerate(ascending)
        for number, name in enumerate(PER_USER)
    }


def ndcg(lists: Lists, truth: Truth, k: int) -> NDArray[np.float64]:
    """Return the NDCG of each user.

    Parameters
    ----------
    lists, truth, k
        As in `measure`.

    Returns
    -------
    ``(n_users,)`` float64 in [0, 1], NaN without ground truth.
    """
    return measure(lists, truth, k)[NDCG, k]
