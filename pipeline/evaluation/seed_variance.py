"""Variance between fits of one recipe that differ only in their seed.

Guarantees: lists are made and evaluated as by `evaluate`; of each fit only values per user are
kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Interval
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.evaluation.holdout import judged_lists
from pipeline.evaluation.metrics import ndcg
from pipeline.models.contract import Scorer
from pipeline.models.topk import Lists


@dataclass(frozen=True)
class ReplicateBlock:
    """Values of several fits of one recipe for the users of one holdout.

    Attributes
    ----------
    holdout
        Days of the block.
    ndcg
        ``(replicates, n)`` float64 NDCG, one row per fit, one column per user.
    ndcg_reversed
        The same of the same lists in reverse order.
    others
        ``(n,)`` NDCG of one fit of other recipes, by name.
    """

    holdout: Interval
    ndcg: NDArray[np.float64]
    ndcg_reversed: NDArray[np.float64]
    others: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        """Number of evaluated users."""
        return int(self.ndcg.shape[1])

    @cached_property
    def users_by_ndcg(self) -> NDArray[np.intp]:
        """``(n,)`` users, ascending by their mean NDCG.

        By value, not by id, so that pseudonyms have no effect; users with equal values are alike.
        """
        return np.lexsort([*self.ndcg_reversed[::-1], *self.ndcg[::-1], self.ndcg.mean(axis=0)])


def list_values(
    scorer: Scorer, history: History, split: Split, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each user's NDCG of a fit's lists, in order and reversed.

    Parameters
    ----------
    scorer, history, split
        As in `evaluate`.
    k
        Length of the lists.

    Returns
    -------
    tuple
        Two ``(n_users,)`` float64 arrays of NDCG, users in the order of their ids.

    Raises
    ------
    GateError
        As `evaluate`.
    """
    _, _, lists, truth = judged_lists(scorer, history, split, k)
    return ndcg(lists, truth, k), ndcg(reversed_lists(lists), truth, k)


def reversed_lists(lists: Lists) -> Lists:
    """Return the same lists with the last item first; the order of the scores stays."""
    starts = np.repeat(lists.indptr[:-1], lists.counts)
    ends = np.repeat(lists.indptr[1:], lists.counts)
    # Position p of a list from `starts` to `ends` takes the item at `ends` − 1 − (p − `starts`).
    return Lists(lists.indptr, lists.item[starts + ends - 1 - np.arange(len(lists.item))],
                 lists.score)  # fmt: skip


def replicate_variance(values: NDArray[np.float64]) -> tuple[float, float]:
    """Split the variance between fits by a two-way analysis of variance, replicates × users.

    Parameters
    ----------
    values
        ``(replicates, n)``; replicates and n ≥ 2, with a mean above 0.

    Returns
    -------
    tuple
        MS_replicate/n and MS_residual/n, both relative to the mean squared: the variance of a fit's
        mean, and the part of it that the sample of users explains.
    """
    replicates, n = values.shape
    means = values.mean(axis=1)
    level = float(values.mean())
    rest = values - means[:, None] - values.mean(axis=0) + level
    by_users = float((rest**2).sum()) / ((replicates - 1) * (n - 1)) / n
    return float(means.var(ddof=1)) / level**2, by_users / level**2


def seed_spread(blocks: Sequence[NDArray[np.float64]]) -> float:
    """Return τ over blocks: the root of the mean of max(0, (MS_replicate − MS_residual)/n)/mean².

    A negative block does not offset another, so τ is biased upwards: for fits that differ only by
    the sample of users it is about a third of the SD of a fit's mean.
    """
    parts = [replicate_variance(values) for values in blocks]
    return math.sqrt(float(np.mean([max(0.0, total - users) for total, users in parts])))
