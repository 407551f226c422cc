"""Compiled pass over lists and ground truth for `evaluation.metrics` (numba).

Guarantees: each entry of a list and each item of the ground truth is read once; sums are in the
order of ranks, so equal lists give equal bytes. The compiled code is cached, see `models.compiled`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.models.compiled import compiled

Ints = NDArray[np.int64]
Pass = Callable[
    [NDArray[np.int32], Ints, NDArray[np.int32], Ints, Ints, int, Ints, int], NDArray[np.float64]
]


@cache
def one_pass() -> Pass:
    """Return the compiled pass; only a process that evaluates imports numba."""
    return compiled()(_one_pass)


def _one_pass(
    item: NDArray[np.int32],
    item_from: Ints,
    wanted: NDArray[np.int32],
    wanted_from: Ints,
    size: Ints,
    n_items: int,
    depths: Ints,
    n_metrics: int,
) -> NDArray[np.float64]:
    """Return every metric of every user."""
    # Lists: the entries of user u are item[item_from[u] : item_from[u + 1]], best first. wanted:
    # the ground truth within the catalogue, laid out alike, in any order. size: (n_users,), number
    # of target items, those outside the catalogue included. depths: ascending, each once. Returns
    # (n_depths, n_metrics, n_users), metrics in the order of `PER_USER`; NaN if size is 0.
    n_users = len(size)
    values = np.full((len(depths), n_metrics, n_users), np.nan)
    discount = 1.0 / np.log2(np.arange(2.0, depths[-1] + 2.0))
    ideal = np.cumsum(discount)
    # For each item the last user so far who has it in the ground truth. An entry of a list is a hit
    # if that is the current user, so nothing has to be reset from one user to the next.
    last_user_of = np.full(n_items, -1)
    for user in range(n_users):
        if size[user] == 0:
            continue
        for place in range(wanted_from[user], wanted_from[user + 1]):
            last_user_of[wanted[place]] = user
        begin, length = item_from[user], item_from[user + 1] - item_from[user]
        hits, gain, precision, first, rank = 0, 0.0, 0.0, 0.0, 0
        # Depths ascend, so the sums go on from one to the next.
        for at in range(len(depths)):
            k = depths[at]
            while rank < min(k, length):
                if last_user_of[item[begin + rank]] == user:
                    hits += 1
                    gain += discount[rank]
                    precision += hits / (rank + 1)
                    if hits == 1:
                        first = 1.0 / (rank + 1)
                rank += 1
            best = min(k, size[user])
            values[at, 0, user] = gain / ideal[best - 1]
            values[at, 1, user] = hits / size[user]
            values[at, 2, user] = hits / best
            values[at, 3, user] = hits / k
            values[at, 4, user] = precision / best
            values[at, 5, user] = first
            values[at, 6, user] = 1.0 if hits else 0.0
    return values
