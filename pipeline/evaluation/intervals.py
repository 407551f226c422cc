"""Means over users with bootstrap intervals.

Guarantees: equal values give equal intervals, whatever the order and the ids of the users and the
number of threads; a user without a value in a column is not counted there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr
from threadpoolctl import threadpool_limits

from pipeline.models.compiled import compiled

Ints = NDArray[np.int64]

DRAWS: Final = 1000
"""Number of bootstrap draws."""
NORMAL_95: Final = 1.96
"""Standard errors from the mean to the ends of a 95 % interval."""

_LEVEL: Final = (0.025, 0.975)
_AT_ONCE: Final = 64
"""Number of groups drawn together: their weights stay in the cache."""
_LARGE: Final = 128
"""Users from which on the sum of a group's counts is drawn at once, because that is faster."""
# In a bootstrap draw a user occurs a number of times that is nearly Poisson with mean 1: the number
# of these bounds that a uniform 16-bit number has reached. Rarer counts than 8 do not occur.
_BOUNDS: Final = np.ceil(pdtr(np.arange(8), 1.0) * (1 << 16) - 0.5).astype(np.uint16)
# Constants of SplitMix64 (Steele et al. 2014), which turns the number of a word into 64 bits.
_STEP, _FIRST, _SECOND = map(
    np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@dataclass(frozen=True)
class Means:
    """Means of columns, ``(n_columns,)`` each: NaN, and a count of 0, if no user has a value.

    Attributes
    ----------
    mean, low, high
        float64, with the bounds of the 95 % interval.
    count
        int64 number of users with a value.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]


def normal_interval(mean: float, se: float) -> tuple[float, float]:
    """Return the 95 % interval of an estimate with a normal error.

    Parameters
    ----------
    mean, se
        The estimate, and its standard error.

    Returns
    -------
    tuple
        Lower and upper bound.
    """
    half = NORMAL_95 * se
    return mean - half, mean + half


def means(values: NDArray[np.float64]) -> Means:
    """Return the means of columns with bootstrap intervals from `DRAWS` draws of the users.

    All columns use the same draws. In each draw the weight of a user is a Poisson count, which for
    many users is equivalent to drawing with replacement (Chamandy et al. 2012).

    Parameters
    ----------
    values
        ``(n_users, n_columns)``, NaN if a user has no value.

    Returns
    -------
    Means
        In the order of the columns.
    """
    # Sorted by value, not by user: the draws of an interval must not depend on pseudonyms.
    keys = np.where(np.isnan(values), -np.inf, values)
    keys = keys[np.lexsort(keys.T)] if keys.size else keys
    n_users, n_columns = keys.shape
    inside = keys > -np.inf
    count = inside.sum(axis=0)
    partial = count < n_users
    # Rows: the values of each column; 1 for each user; for each column with missing values, 1 for
    # each user who has one. The last two give the divisors of the means.
    rows = (np.where(inside, keys, 0.0).T, np.ones((1, n_users)), inside.T[partial])
    summed: NDArray[np.float64] = np.vstack(rows)
    # Users with equal values are one group, multiplied once by the sum of their counts.
    starts = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    starts = np.concatenate([[0], starts]) if n_users else starts
    sizes = np.diff(starts, append=n_users)
    large, small = sizes >= _LARGE, np.flatnonzero(sizes < _LARGE)
    drawn = np.random.default_rng(0).poisson(sizes[large, None], (large.sum(), DRAWS))
    weights = np.empty((_AT_ONCE, DRAWS))
    with threadpool_limits(1, "blas"):  # starting threads takes longer than such small products
        total: NDArray[np.float64] = summed[:, starts[large]] @ drawn
        for at in range(0, len(small), _AT_ONCE):
            groups = small[at : at + _AT_ONCE]
            _drawing()(starts[groups], sizes[groups], weights)
            total += summed[:, starts[groups]] @ weights[: len(groups)]
    weight = np.repeat(total[[n_columns]], n_columns, axis=0)
    weight[partial] = total[n_columns + 1 :]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = summed[:n_columns].sum(axis=1) / count
        resampled = np.where(weight > 0, total[:n_columns] / weight, mean[:, None])
    low, high = np.quantile(resampled, _LEVEL, axis=1)
    return Means(mean, low, high, count)


@cache
def _drawing() -> Callable[[Ints, Ints, NDArray[np.float64]], None]:
    """Return the compiled `_draw`; only a process that evaluates imports numba."""
    return compiled()(_draw)


def _draw(starts: Ints, sizes: Ints, weights: NDArray[np.float64]) -> None:
    """Write the sum of the counts of the users of each group, in each draw."""
    # The users of a group: `sizes` from `starts`. A count depends on its user and draw alone.
    n_draws = weights.shape[1]
    words = np.empty((n_draws + 3) // 4, np.uint64)
    uniform = words.view(np.uint16)
    count = np.empty(n_draws, np.uint16)
    for group in range(len(starts)):
        count[:] = 0
        for user in range(starts[group], starts[group] + sizes[group]):
            number = np.uint64(user) * np.uint64(len(words))
            for at in range(len(words)):
                word = (number + np.uint64(at)) * _STEP
                word = (word ^ (word >> np.uint64(30))) * _FIRST
                word = (word ^ (word >> np.uint64(27))) * _SECOND
                words[at] = word ^ (word >> np.uint64(31))
            for draw in range(n_draws):
                for bound in _BOUNDS:
                    count[draw] += np.uint16(uniform[draw] >= bound)
        for draw in range(n_draws):
            weights[group, draw] = count[draw]
