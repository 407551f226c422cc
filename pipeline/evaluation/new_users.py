"""Evaluation of lists for users without events, which a scorer makes from their features alone.

Guarantees: both kinds of lists are evaluated on the same users and ground truth; neither scorer has
seen an event of these users.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.evaluation.holdout import lists_of, refuse_leaks, rows_of, truth_of
from pipeline.evaluation.intervals import normal_interval
from pipeline.evaluation.metrics import ndcg
from pipeline.models.contract import Scorer

LEAST_USERS: Final = 50
"""Number of users below which the lists are not compared: the interval assumes a normal error."""


class NewUsers(Frozen):
    """NDCG for users whose first event is in the holdout.

    Attributes
    ----------
    users
        Number of users, ≥ `LEAST_USERS`.
    ndcg, fallback_ndcg
        Means of the lists from features, and of the fallback list.
    low
        Lower bound of the 95 % interval of their difference.
    """

    users: int
    ndcg: float
    fallback_ndcg: float
    low: float

    @property
    def better(self) -> bool:
        """True if the lists from features are better than the fallback list."""
        return self.low > 0


def evaluate_new_users(
    scorer: Scorer, fallback: Scorer, described: History, split: Split, k: int
) -> NewUsers | None:
    """Compare lists from features with the fallback list.

    Parameters
    ----------
    scorer, fallback
        Trained before the cutoff.
    described
        Users without events, see `feature_encoding.described_users`, over the training window.
    split
        The holdout with its targets.
    k
        Length of the lists.

    Returns
    -------
    None if there are too few users, or one of them has no list from features.
    """
    targets = split.targets.filter(pl.col(c.USER_ID).is_in(described.user_ids.tolist()))
    users = targets[c.USER_ID].unique().sort().to_list()
    able = scorer.capabilities.fold_in and scorer.capabilities.baseline is None
    if len(users) < LEAST_USERS or not able:
        return None
    values = []
    for other in (scorer, fallback):
        rows = described.take(rows_of(users, described.user_ids)).reindex_items(other.item_ids)
        refuse_leaks(other, described, split)
        lists = lists_of(other, rows, k, None)
        if not np.diff(lists.indptr).all():
            return None
        values.append(ndcg(lists, truth_of(targets, rows.user_ids, rows.item_ids), k))
    gain = values[0] - values[1]
    low, _ = normal_interval(float(gain.mean()), float(gain.std(ddof=1)) / len(gain) ** 0.5)
    own, popular = (float(value.mean()) for value in values)
    return NewUsers(users=len(users), ndcg=own, fallback_ndcg=popular, low=low)
