"""Means over users with bootstrap intervals.

Guarantees: equal values give equal intervals, whatever the order and the ids of the users; a user
without a value in a column is not counted there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr
from threadpoolctl import threadpool_limits

DRAWS: Final = 1000
"""Number of bootstrap draws."""
NORMAL_95: Final = 1.96
"""Standard errors from the mean to the ends of a 95 % interval."""

_LEVEL: Final = (0.025, 0.975)
_AT_ONCE: Final = 64
"""Number of users drawn together: their weights stay in the cache."""
# In a bootstrap draw a user occurs a number of times that is nearly Poisson with mean 1. A uniform
# 16-bit number is the index of that count in this table.
_POISSON: Final = np.searchsorted(
    pdtr(np.arange(32), 1.0), (np.arange(1 << 16) + 0.5) / (1 << 16)
).astype(np.uint8)


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
    values = values[np.lexsort(np.nan_to_num(values, nan=-1.0).T)] if values.size else values
    inside = ~np.isnan(values)
    count = inside.sum(axis=0)
    partial = count < len(values)
    n_columns = values.shape[1]
    # Rows: the values of each column; 1 for each user; for each column with missing values, 1 for
    # each user who has one. The last two give the divisors of the means.
    summed = np.vstack(
        [np.where(inside, values, 0.0).T, np.ones((1, len(values))), inside.T[partial]]
    )
    total = np.zeros((len(summed), DRAWS))
    random = np.random.default_rng(0)
    times = np.empty((_AT_ONCE, DRAWS))
    with threadpool_limits(1, "blas"):  # starting threads takes longer than such a small product
        for start in range(0, len(values), _AT_ONCE):
            part = summed[:, start : start + _AT_ONCE]
            drawn = random.integers(0, len(_POISSON), (part.shape[1], DRAWS), np.uint16)
            taken = times[: len(drawn)]
            np.copyto(
                taken, _POISSON.take(drawn)
            )  # the table has one byte per entry and stays cached
            total += part @ taken
    weight = np.repeat(total[[n_columns]], n_columns, axis=0)
    weight[partial] = total[n_columns + 1 :]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = summed[:n_columns].sum(axis=1) / count
        resampled = np.where(weight > 0, total[:n_columns] / weight, mean[:, None])
    low, high = np.quantile(resampled, _LEVEL, axis=1)
    return Means(mean, low, high, count)
