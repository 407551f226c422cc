"""Means of events or days with standard errors that are clustered by user.

Observations of one user are not independent, so errors are computed over users.

Guarantees: sums are exact (`math.fsum`), so no digit depends on the order of users; with one user
the error and the interval are ``None``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtrit  # importing scipy.stats takes a process half a second

MIN_GROUP_SIZE: Final = 10
"""Minimum group size in users; below it only the number of users is reported.

Also the divisor of `per_user_cap`: one user contributes at most a tenth of a usual day's events.
"""


def per_user_cap(day: NDArray[np.int64], events: NDArray[np.int64]) -> int:
    """Compute the maximum number of events per user and day that count as volume.

    The cap is at most a tenth (1 / `MIN_GROUP_SIZE`) of a usual day's events, counted with this
    cap; at least 1. The usual day is the median of the days with events.

    Parameters
    ----------
    day, events
        ``(n,)`` int64, one entry per user and day with events: day number ≥ 0, number of events.

    Returns
    -------
    The cap, in events per user and day.
    """
    # Start at 1: a search downwards could stop at a cap that one user's flood has raised.
    cap = 1
    while len(day):
        totals = np.bincount(day, np.minimum(events, cap))
        next_cap = int(np.median(totals[totals > 0])) // MIN_GROUP_SIZE
        if next_cap <= cap:
            break
        cap = next_cap
    return cap


@dataclass(frozen=True)
class Mean:
    """Mean with standard error and 95 % interval; both are ``None`` for a single user."""

    mean: float
    se: float | None
    lo: float | None
    hi: float | None


def mean_ci(values: NDArray[np.float64], users: pl.Series) -> Mean:
    """Compute the mean of values in [0, 1], clustered by user.

    Parameters
    ----------
    values
        ``(n,)`` float64, n ≥ 1. Values of one user are summed in the given order, which may
        change the last digit.
    users
        ``(n,)`` user of each value.

    Returns
    -------
    Mean, standard error and interval of `ratio_ci`.
    """
    _, user = np.unique(users.to_numpy(), return_inverse=True)
    sums, counts = np.bincount(user, values), np.bincount(user)
    return ratio_ci(sums.astype(np.float64), counts.astype(np.float64))


def ratio_ci(sums: NDArray[np.float64], counts: NDArray[np.float64], most: float = 1.0) -> Mean:
    """Compute the mean of all users' observations from the sum and count of each user.

    The mean m is Σ sum_u / n, where n is the number of observations, Σ count_u. With U users and
    residuals r_u = sum_u − m · count_u, the standard error is ``√(U/(U − 1) · Σ r_u²) / n`` (Liang
    and Zeger 1986). The interval is Student's t with U − 1 degrees of freedom, cut to [0, most].

    If all values are 0, or all equal `most`, the standard error is 0. One end of the interval is
    then that value, and the other end is exact for V users without an event: it lies
    ``(1 − 0.025^(1/V)) · most`` away (Clopper and Pearson 1934). V is the number of users with a
    count above 0.

    Parameters
    ----------
    sums, counts
        ``(U,)`` float64; the sum of the counts is above 0.
    most
        Upper limit of a value; ``inf`` if there is none.

    Returns
    -------
    Mean, standard error and 95 % interval. The upper end is ``None`` if all values are 0 and `most`
    is infinite.
    """
    n = math.fsum(counts.tolist())
    mean = math.fsum(sums.tolist()) / n
    residual = sums - mean * counts
    if len(residual) < 2:
        return Mean(mean, None, None, None)
    spread = len(residual) / (len(residual) - 1) * math.fsum((residual**2).tolist())
    se = math.sqrt(spread) / n
    unseen = float(1 - 0.025 ** (1 / np.count_nonzero(counts)))
    # Equal values give an error of 0, which would claim certainty: use the exact limit instead.
    if not any(sums):
        return Mean(mean, se, 0.0, unseen * most if math.isfinite(most) else None)
    if mean == most:
        return Mean(mean, se, most * (1 - unseen), most)
    reach = float(stdtrit(len(residual) - 1, 0.975)) * se
    return Mean(mean, se, max(0.0, mean - reach), min(most, mean + reach))


def proportion_ci(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Mean:
    """Compute a share with its standard error, and an interval that is valid near 0 and 1 as well.

    The interval is Wilson's (1927). Observations of one user are not independent, so the number of
    observations in his formula is replaced by the effective number ``m (1 − m) / se²``, where m is
    the share (recommended by Franco, Little, Louis and Slud 2019).

    Parameters
    ----------
    sums, counts
        ``(U,)`` float64: observations with the property, and all observations, of each user.

    Returns
    -------
    Mean and standard error as in `ratio_ci`. For a share of 0 or 1, and for a single user, the
    interval is that of `ratio_ci` as well.
    """
    ratio = ratio_ci(sums, counts)
    inside = ratio.mean * (1.0 - ratio.mean)
    if ratio.se is None or inside <= 0:
        return ratio
    t = float(stdtrit(len(sums) - 1, 0.975))
    # At most the real number of observations: users may be alike by chance alone.
    over = t * t * max(ratio.se**2 / inside, 1.0 / math.fsum(counts.tolist()))
    middle = (ratio.mean + over / 2) / (1 + over)
    reach = math.sqrt(over * (inside + over / 4)) / (1 + over)
    return Mean(ratio.mean, ratio.se, middle - reach, middle + reach)
