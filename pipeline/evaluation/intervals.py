"""Means over users with bootstrap intervals.

Promises: equal values give equal intervals, whatever the order of the users and whatever they are
called; a user without a value in a column is not counted there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr
from threadpoolctl import threadpool_limits

DRAWS: Final = 1000
NORMAL_95: Final = 1.96

_LEVEL: Final = (0.025, 0.975)
_AT_ONCE: Final = 64
"""Users drawn together: their weights stay in the cache."""
# How often one draw of n from n takes one user: a Poisson count of mean 1, read from its quantiles.
_POISSON: Final = np.searchsorted(
    pdtr(np.arange(32), 1.0), (np.arange(1 << 16) + 0.5) / (1 << 16)
).astype(np.uint8)


@dataclass(frozen=True)
class Means:
    """Of each column, ``(n_columns,)`` each: NaN, and a count of 0, where no user has a value.

    Attributes
    ----------
    mean, low, high
        float64, with the bounds of the 95 % interval.
    count
        int64 users with a value.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]


def normal_interval(mean: float, se: float) -> tuple[float, float]:
    """Return the 95 % interval of an estimate whose error is about normal."""
    half = NORMAL_95 * se
    return mean - half, mean + half


def means(values: NDArray[np.float64]) -> Means:
    """Take the means of columns, and the interval of each by `DRAWS` draws of all users.

    The draws are shared by the columns; a user's weights are Poisson counts, which for many users
    is the bootstrap with replacement (Chamandy et al. 2012).

    Parameters
    ----------
    values
        ``(n_users, n_columns)``, NaN where a user has no value.
    """
    # By value, not by user: the dice of an interval must not hang on pseudonyms.
    values = values[np.lexsort(np.nan_to_num(values, nan=-1.0).T)] if values.size else values
    inside = ~np.isnan(values)
    count = inside.sum(axis=0)
    partial = count < len(values)
    n_columns = values.shape[1]
    # Below the values: everybody, and who is inside of each column that lacks somebody.
    summed = np.vstack(
        [np.where(inside, values, 0.0).T, np.ones((1, len(values))), inside.T[partial]]
    )
    total = np.zeros((len(summed), DRAWS))
    random = np.random.default_rng(0)
    times = np.empty((_AT_ONCE, DRAWS))
    with threadpool_limits(1, "blas"):  # products this small are not worth waking threads
        for start in range(0, len(values), _AT_ONCE):
            part = summed[:, start : start + _AT_ONCE]
            drawn = random.integers(0, len(_POISSON), (part.shape[1], DRAWS), np.uint16)
            taken = times[: len(drawn)]
            np.copyto(taken, _POISSON.take(drawn))  # one byte each: the table stays near
            total += part @ taken
    weight = np.repeat(total[[n_columns]], n_columns, axis=0)
    weight[partial] = total[n_columns + 1 :]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = summed[:n_columns].sum(axis=1) / count
        resampled = np.where(weight > 0, total[:n_columns] / weight, mean[:, None])
    low, high = np.quantile(resampled, _LEVEL, axis=1)
    return Means(mean, low, high, count)
