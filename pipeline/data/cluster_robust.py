"""Means of things that belong to people: events, days. One person's are no independent proof.

Promises: sums are exact, so no digit hangs on the order of pseudonyms; what has no error has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtrit

MIN_GROUP_SIZE: Final = 10
"""People that a group needs before anything but their number is told of it, and before what they do
is a sign: where events are counted as one, a person's are at most one in so many of what it takes.
"""


def per_user_cap(day: NDArray[np.int64], events: NDArray[np.int64]) -> int:
    """Return how many events of one person and day tell how much is going on.

    It is the largest number that is at most one in `MIN_GROUP_SIZE` of a usual day's events, each
    person's counted so; at least 1. A day is usual by the median of the days that have any. Sought
    from 1 upwards, so that a flood cannot raise it, however many days it lasts.

    Parameters
    ----------
    day, events
        ``(n,)`` for each person and day with events: the day's number ≥ 0, and how many.
    """
    most = 1
    while len(day):
        totals = np.bincount(day, np.minimum(events, most))
        wider = int(np.median(totals[totals > 0])) // MIN_GROUP_SIZE
        if wider <= most:
            break
        most = wider
    return most


@dataclass(frozen=True)
class Mean:
    """A mean, its standard error and 95 % interval; one person has neither."""

    mean: float
    se: float | None
    lo: float | None
    hi: float | None


def mean_ci(values: NDArray[np.float64], users: pl.Series) -> Mean:
    """Return the mean of values in [0, 1] that belong to users.

    Parameters
    ----------
    values
        ``(n,)`` float64, n ≥ 1; the order of one user's values decides the last digit.
    users
        ``(n,)`` the user of each.
    """
    _, user = np.unique(users.to_numpy(), return_inverse=True)
    sums, counts = np.bincount(user, values), np.bincount(user)
    return ratio_ci(sums.astype(np.float64), counts.astype(np.float64))


def ratio_ci(sums: NDArray[np.float64], counts: NDArray[np.float64], most: float = 1.0) -> Mean:
    """Return the mean of things of which each user has a sum and a count.

    With n things of U users, the mean m and r_u = sum of user u − m · their count, the error of the
    mean as a ratio of sums over users is ``√(U/(U − 1) · Σ r_u²) / n`` (Liang and Zeger 1986); the
    interval is Student's t with U − 1 degrees of freedom, cut to [0, most].

    Where nobody has any, or everybody all there is, that error is 0, though nobody knows so much.
    The far limit is then that of U people none of whom has any, ``1 − 0.025^(1/U)`` (Clopper and
    Pearson 1934), U those who count; ``None`` where there is no most.

    Parameters
    ----------
    sums, counts
        ``(U,)`` float64; the counts' sum is above 0.
    """
    n = math.fsum(counts.tolist())
    mean = math.fsum(sums.tolist()) / n
    residual = sums - mean * counts
    if len(residual) < 2:
        return Mean(mean, None, None, None)
    spread = len(residual) / (len(residual) - 1) * math.fsum((residual**2).tolist())
    se = math.sqrt(spread) / n
    unseen = float(1 - 0.025 ** (1 / np.count_nonzero(counts)))
    if not any(sums):
        return Mean(mean, se, 0.0, unseen * most if math.isfinite(most) else None)
    if mean == most:
        return Mean(mean, se, most * (1 - unseen), most)
    reach = float(stdtrit(len(residual) - 1, 0.975)) * se
    return Mean(mean, se, max(0.0, mean - reach), min(most, mean + reach))


def proportion_ci(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Mean:
    """Return `ratio_ci` things that were done or not, with an interval for small shares.

    Wilson's interval (1927) with ``m (1 − m) / se²`` for the number of things: as many independent
    ones would have the same error (Franco, Little, Louis and Slud 2019 recommend it for clustered
    shares). It is never taken for more than there are, so that people who are all alike by chance
    are no certainty.
    """
    ratio = ratio_ci(sums, counts)
    inside = ratio.mean * (1.0 - ratio.mean)
    if ratio.se is None or inside <= 0:
        return ratio
    t = float(stdtrit(len(sums) - 1, 0.975))
    over = t * t * max(ratio.se**2 / inside, 1.0 / math.fsum(counts.tolist()))
    middle = (ratio.mean + over / 2) / (1 + over)
    reach = math.sqrt(over * (inside + over / 4)) / (1 + over)
    return Mean(ratio.mean, ratio.se, middle - reach, middle + reach)
