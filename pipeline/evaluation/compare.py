"""Comparison of two recipes on the same users: lift, variance and p-value on one block of days.

Guarantees: all figures are relative to the champion's mean; both variances contain that over
seeds (τ²) besides the sampling of users, because the intervals of a bootstrap over users alone
shrink with the number of users, and the effect of a seed does not; a comparison that must not be
used states the reason.

With the values c and b of n users divided by mean(b), d = c − b, and S_dd, S_db, S_bb their centred
sums of squares and products:

    x  = mean(d),  t² = (τ_c² + τ_b²)/R
    v  = S_dd/(n(n−1)) + t²                          variance if there is no difference
    v' = (S_dd − 2x·S_db + x²·S_bb)/(n(n−1)) + t²    variance of the ratio of two means

Tests for a gain compare x/√v, tests for harm x/√v', with Student's t with n − 1 degrees of freedom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtr

from pipeline import columns as c
from pipeline.errors import GateError

UNKNOWN_SEED_SD: Final = 0.005
"""SD of a recipe's mean over training seeds, relative to it, if it was never measured."""

MIN_USERS: Final = 200
"""Minimum number of users of a comparison."""
MIN_NONZERO: Final = 30
"""Minimum number of users whose values differ."""

TOO_FEW_USERS: Final = "too few users"
NO_LEVEL: Final = "the champion's mean is not above 0"
NO_DIFFERENCE: Final = "too few differences"

# z at 1 % plus z at 80 %: an effect of so many standard errors is detected with power .8.
_FINDS: Final = 3.17


@dataclass(frozen=True)
class Difference:
    """A candidate against a champion on one block.

    Attributes
    ----------
    x
        Lift: mean difference ÷ the champion's mean. NaN if that is 0, or with fewer than two users.
    v, v_ratio
        Variance of `x` if there is no difference, and as a ratio of means; with seed noise.
    t2
        The part of both that is seed noise.
    s_dd, s_db, s_bb
        Centred sums of squares and products of differences and of the champion's values, in units
        of the champion's mean.
    n, nonzero
        Number of users, and of those with different values.
    t
        x ÷ √v.
    p_better, p_harm
        One-sided p-values of a gain (by `v`) and of a loss (by `v_ratio`).
    smallest_effect
        Lift that such a block detects with power .8 at α = 1 %: 3.17·√v.
    candidate, champion
        The two means.
    underpowered
        Reason that the comparison must not be used, or None.
    """

    x: float
    v: float
    v_ratio: float
    t2: float
    s_dd: float
    s_db: float
    s_bb: float
    n: int
    nonzero: int
    t: float
    p_better: float
    p_harm: float
    smallest_effect: float
    candidate: float
    champion: float
    underpowered: str | None

    @property
    def se(self) -> float:
        """Standard error of the lift as a ratio of means."""
        return math.sqrt(self.v_ratio)


def difference(
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    *,
    tau_candidate: float = UNKNOWN_SEED_SD,
    tau_champion: float = UNKNOWN_SEED_SD,
    fits: int = 1,
    min_users: int = MIN_USERS,
    min_nonzero: int = MIN_NONZERO,
) -> Difference:
    """Compare per-user values of two recipes.

    Parameters
    ----------
    candidate, champion
        ``(n,)`` float64 of the same users in the same order; finite.
    tau_candidate, tau_champion
        SD over training seeds of each recipe's mean, relative to it.
    fits
        R: number of fits with different seeds that each value is the mean of.
    min_users, min_nonzero
        Below either, `underpowered` has the reason.

    Returns
    -------
    Difference
        Of the candidate, relative to the champion.

    Raises
    ------
    ValueError
        Shapes differ, a value is not finite, or a parameter is out of its range.
    """
    if candidate.shape != champion.shape or candidate.ndim != 1:
        raise ValueError(f"shapes differ: {candidate.shape} and {champion.shape}")
    if not (np.isfinite(candidate).all() and np.isfinite(champion).all()):
        raise ValueError("a value is not finite")
    if fits < 1 or not (tau_candidate >= 0 and tau_champion >= 0):
        raise ValueError("fits must be at least 1 and τ at least 0")
    n = len(candidate)
    delta = candidate - champion
    nonzero = int(np.count_nonzero(delta))
    level = float(champion.mean()) if n else 0.0
    reason = None
    if n < min_users:
        reason = TOO_FEW_USERS
    elif level <= 0:
        reason = NO_LEVEL
    elif nonzero < min_nonzero:
        reason = NO_DIFFERENCE
    seeds = (tau_candidate**2 + tau_champion**2) / fits
    x = v = v_ratio = t = p_better = p_harm = s_dd = s_db = s_bb = math.nan
    if n >= 2 and level > 0:
        x = float(delta.mean()) / level
        d, b = delta / level - x, champion / level - 1
        s_dd, s_db, s_bb = float(d @ d), float(d @ b), float(b @ b)
        # The variance over seeds shrinks with the number of fits, not with that of users.
        v = s_dd / (n * (n - 1)) + seeds
        # A rounded sum of squares can lie just below 0.
        v_ratio = max(0.0, s_dd - 2 * x * s_db + x * x * s_bb) / (n * (n - 1)) + seeds
        t = standardised(x, v)
        p_better = float(stdtr(n - 1, -t))
        p_harm = float(stdtr(n - 1, standardised(x, v_ratio)))
    return Difference(
        x=x,
        v=v,
        v_ratio=v_ratio,
        t2=seeds,
        s_dd=s_dd,
        s_db=s_db,
        s_bb=s_bb,
        n=n,
        nonzero=nonzero,
        t=t,
        p_better=p_better,
        p_harm=p_harm,
        smallest_effect=_FINDS * math.sqrt(v),
        candidate=float(candidate.mean()) if n else math.nan,
        champion=level if n else math.nan,
        underpowered=reason,
    )


def paired(
    candidate: pl.DataFrame, champion: pl.DataFrame, column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Align two recipes' values of one column by user.

    Parameters
    ----------
    candidate, champion
        Frames as `Evaluation.users`, rows in any order; users without a value are left out.
    column
        Column of the values.

    Returns
    -------
    tuple
        Two ``(n,)`` float64 arrays, users in the order of their ids.

    Raises
    ------
    GateError
        `compare.missing_values`: the column is missing. `compare.duplicate_user`: a user appears
        twice. `compare.other_users`: the frames have different users, so that a mean difference
        would compare users, not recipes.
    """
    sides = []
    for frame in (candidate, champion):
        if column not in frame.columns:
            raise GateError(
                "compare.missing_values",
                f"the values of {column} are missing; evaluate both recipes in a new nightly run",
            )
        # Null marks users outside a slice.
        sides.append(frame.select(c.USER_ID, column).drop_nulls(column).sort(c.USER_ID))
    left, right = sides
    if left[c.USER_ID].n_unique() != left.height:
        raise GateError(
            "compare.duplicate_user",
            f"a user appears twice in the values of {column}; this is a defect of Nightjar, report "
            "it with the run folder",
        )
    if not left[c.USER_ID].equals(right[c.USER_ID]):
        raise GateError(
            "compare.other_users",
            f"candidate and champion have values of {column} for different users; evaluate both "
            "on the same holdout",
        )
    return (
        left[column].cast(pl.Float64).to_numpy(),
        right[column].cast(pl.Float64).to_numpy(),
    )


def standardised(x: float, v: float) -> float:
    """Divide a lift by its standard error.

    Parameters
    ----------
    x, v
        A lift and its variance.

    Returns
    -------
    float
        Infinite for a lift without any variance, 0 for no lift.
    """
    # Equal changes for all users and no seed noise: the sign of x is certain.
    return x / math.sqrt(v) if v > 0 else math.copysign(math.inf, x) if x else 0.0
