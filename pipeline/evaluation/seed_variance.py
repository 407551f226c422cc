"""Fits of one recipe that differ in their dice alone: what lists are worth, how far they part.

Promises: lists are made and judged as `evaluate` does it; of every fit only values per user are
kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
    """What the lists of some fits of one recipe were worth to the users of one holdout.

    Attributes
    ----------
    ndcg
        ``(replicates, n)`` float64 NDCG, a row a fit, a column a user.
    ndcg_reversed
        The same of the same lists turned upside down.
    """

    holdout: Interval
    ndcg: NDArray[np.float64]
    ndcg_reversed: NDArray[np.float64]

    @property
    def n_users(self) -> int:
        """Number of users who judged."""
        return int(self.ndcg.shape[1])

    @cached_property
    def users_by_ndcg(self) -> NDArray[np.intp]:
        """``(n,)`` users in the order of what lists are worth to them.

        By value, not by id, so that it hangs on no pseudonym; who ties in all values is alike.
        """
        return np.lexsort([*self.ndcg_reversed[::-1], *self.ndcg[::-1], self.ndcg.mean(axis=0)])


def list_values(
    scorer: Scorer, history: History, split: Split, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Judge a scorer as `evaluate` does, and the same lists turned upside down.

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
    """Return the same lists with the last item first; the scores stand as they stood."""
    starts = np.repeat(lists.indptr[:-1], lists.counts)
    ends = np.repeat(lists.indptr[1:], lists.counts)
    return Lists(lists.indptr, lists.item[starts + ends - 1 - np.arange(len(lists.item))],
                 lists.score)  # fmt: skip


def replicate_variance(values: NDArray[np.float64]) -> tuple[float, float]:
    """Split what fits differ in: a two-way analysis of variance of salts × users, one block.

    Parameters
    ----------
    values
        ``(replicates, n)``; replicates and n ≥ 2, of a mean above 0.

    Returns
    -------
    tuple
        MS_salt/n and MS_resid/n, both relative to the mean squared: the variance of a fit's mean,
        and the part of it that the luck of the users explains.
    """
    replicates, n = values.shape
    means = values.mean(axis=1)
    level = float(values.mean())
    rest = values - means[:, None] - values.mean(axis=0) + level
    by_users = float((rest**2).sum()) / ((replicates - 1) * (n - 1)) / n
    return float(means.var(ddof=1)) / level**2, by_users / level**2


def seed_spread(blocks: Sequence[NDArray[np.float64]]) -> float:
    """Return τ over blocks: the root of the mean of max(0, (MS_salt − MS_resid)/n)/mean².

    What is below 0 in one block does not make up for another, so it errs upwards: fits that differ
    in nothing but the luck of users still show about a third of the spread of a fit's mean.
    """
    parts = [replicate_variance(values) for values in blocks]
    return math.sqrt(float(np.mean([max(0.0, total - users) for total, users in parts])))
