"""Means of events or days with standard errors that are clustered by user.

Observations of one user are not independent, so errors are computed over users.

Guarantees: sums are exact (`math.fsum`), so no digit depends on the order of users; with one user
the error and the interval are ``None``; the interval contains the mean.
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


def effective_users(counts: NDArray[np.float64]) -> float:
    """Return the effective number of users, (Σ count)² ÷ Σ count²; 0 without observations.

    With values that differ only between users, as many equally active users have a mean of the same
    variance (Kish 1965).
    """
    squares = math.fsum((counts**2).tolist())
    return math.fsum(counts.tolist()) ** 2 / squares if squares else 0.0


def ratio_ci(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    most: float = 1.0,
    *,
    least: float = 0.0,
) -> Mean:
    """Compute the mean of all users' observations from the sum and count of each user.

    The mean m is Σ sum_u / n, where n is the number of observations. The standard error is that of
    CR2 (Bell and McCaffrey 2002) for a regression on a constant: ``√(Σ r_u²) / n`` with the
    residuals ``r_u = (sum_u − m · count_u) / √(1 − count_u / n)``.

    The interval is Student's t with `effective_users` − 1 degrees of freedom, after the
    transformation of Hall (1992) for skew: with γ = Σ r_u³ / (Σ r_u²)^1.5 the statistic
    T = (m − μ) / se is replaced by ``T + γT²/3 + γ²T³/27 + γ/6``. It is cut to [least, most].

    If all sums are 0, or all values equal `most`, the standard error is 0. The interval is then
    exact for V users without an event: it reaches ``1 − 0.025^(1/V)`` of the way from that value to
    each limit (Clopper and Pearson 1934). V is the number of users with a count above 0.

    Parameters
    ----------
    sums, counts
        ``(U,)`` float64; the sum of the counts is above 0.
    most, least
        Limits of a value, `least` ≤ 0; `most` is ``inf`` if there is none.

    Returns
    -------
    Mean, standard error and 95 % interval. The upper end is ``None`` if all values are 0 and `most`
    is infinite.
    """
    n = math.fsum(counts.tolist())
    mean = math.fsum(sums.tolist()) / n
    active = int(np.count_nonzero(counts))
    if active < 2:
        return Mean(mean, None, None, None)
    residual = (sums - mean * counts) / np.sqrt(1.0 - counts / n)
    spread = math.fsum((residual**2).tolist())
    se = math.sqrt(spread) / n
    unseen = 1.0 - 0.025 ** (1 / active)
    # Equal values give an error of 0, which would claim certainty: use the exact limit instead.
    if not any(sums):
        return Mean(mean, se, least * unseen, unseen * most if math.isfinite(most) else None)
    if mean == most:
        return Mean(mean, se, most * (1 - unseen), most)
    skew = math.fsum((residual**3).tolist()) / spread**1.5 if spread else 0.0
    lo, hi = _hall_interval(mean, se, skew, effective_users(counts) - 1)
    return Mean(mean, se, max(least, lo), min(most, hi))


def proportion_ci(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Mean:
    """Compute a share with its standard error and interval.

    Parameters
    ----------
    sums, counts
        ``(U,)`` float64: observations with the property, and all observations, of each user.

    Returns
    -------
    As `ratio_ci`. Users may be alike by chance alone, so the interval is at least that of as many
    independent observations.
    """
    ratio, n = ratio_ci(sums, counts), math.fsum(counts.tolist())
    variance = ratio.mean * (1.0 - ratio.mean) / n
    if ratio.se is None or variance <= 0 or ratio.se**2 >= variance:
        return ratio
    # The skewness of a binomial number.
    skew = (1.0 - 2.0 * ratio.mean) / (n * math.sqrt(variance))
    df = effective_users(counts) - 1
    lo, hi = _hall_interval(ratio.mean, math.sqrt(variance), skew, df)
    return Mean(ratio.mean, ratio.se, max(0.0, lo), min(1.0, hi))


def _hall_interval(mean: float, se: float, skew: float, df: float) -> tuple[float, float]:
    """Return the 95 % interval of a mean whose sum has a skewness; see `ratio_ci`."""
    t = float(stdtrit(df, 0.975))

    def inverse(x: float) -> float:
        # Near a skewness of 0 the quotient has no accurate digits.
        if abs(skew) < 1e-6:
            return x - skew / 6
        return 3 / skew * (math.cbrt(1 + skew * (x - skew / 6)) - 1)

    return mean - se * inverse(t), mean - se * inverse(-t)
