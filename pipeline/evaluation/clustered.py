"""Means of things that belong to people: events, days. One person's are no independent proof.

Promises: sums are exact, so no digit hangs on the order of pseudonyms; what has no error has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean of values in [0, 1], its standard error and 95 % interval; one person has neither."""

    mean: float
    se: float | None
    lo: float | None
    hi: float | None


def mean_of(values: NDArray[np.float64], users: pl.Series) -> Mean:
    """Return the mean of values that belong to users.

    With n values of U users and r_u the sum of a user's residuals, the error of the mean as a ratio
    of sums over users is ``√(U/(U − 1) · Σ r_u²) / n`` (Liang and Zeger 1986); the interval is
    Student's t with U − 1 degrees of freedom, cut to [0, 1].

    Parameters
    ----------
    values
        ``(n,)`` float64, n ≥ 1; the order of one user's values decides the last digit.
    users
        ``(n,)`` the user of each.
    """
    n = len(values)
    mean = math.fsum(values.tolist()) / n
    _, user = np.unique(users.to_numpy(), return_inverse=True)
    residual = np.bincount(user, values - mean)
    if len(residual) < 2:
        return Mean(mean, None, None, None)
    spread = len(residual) / (len(residual) - 1) * math.fsum((residual**2).tolist())
    se = math.sqrt(spread) / n
    reach = float(stats.t.ppf(0.975, len(residual) - 1)) * se
    return Mean(mean, se, max(0.0, mean - reach), min(1.0, mean + reach))
