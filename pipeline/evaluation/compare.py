"""Two recipes on the same people: how much better, and how sure can one block of days be.

Promises: everything is relative to the champion's mean; the luck of the training seed (τ) is in the
variance beside the luck of the users, for a bootstrap over users alone would grow surer of nothing
but its own dice as a shop grows; what cannot be judged says why instead of giving a number.

    d = c − b per user,  x = mean(d)/mean(b),  v = var(d)/(n·mean(b)²) + (τ_c² + τ_b²)/S

and x/√v is held against Student's t with n − 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import stdtr

from pipeline import columns as c
from pipeline.errors import GateError

UNKNOWN_SEED_SD: Final = 0.005
"""Spread of a recipe's mean over training seeds, relative to it, where it was never measured."""

MIN_USERS: Final = 200
MIN_NONZERO: Final = 30

TOO_FEW_USERS: Final = "too few users"
NO_LEVEL: Final = "the champion's mean is not above 0"
NO_DIFFERENCE: Final = "too few differences"

# z at 1 % plus z at 80 %: an effect of that many standard errors is found four times in five.
_FINDS: Final = 3.17


@dataclass(frozen=True)
class Difference:
    """A candidate against a champion on one block.

    Attributes
    ----------
    x
        Lift: mean difference ÷ the champion's mean. NaN where `underpowered` says `NO_LEVEL`.
    v
        Variance of `x`, the luck of the seeds included.
    n, nonzero
        Users judged, and how many of them the two served differently well.
    t
        x ÷ √v.
    p_better, p_worse
        One-sided probabilities of such a `t` if there were no difference.
    smallest_effect
        Lift that a block like this one finds four times in five (α 1 %): 3.17·√v.
    candidate, champion
        The two means.
    underpowered
        Why this must not be judged, or None.
    """

    x: float
    v: float
    n: int
    nonzero: int
    t: float
    p_better: float
    p_worse: float
    smallest_effect: float
    candidate: float
    champion: float
    underpowered: str | None

    @property
    def se(self) -> float:
        """Standard error of the lift."""
        return math.sqrt(self.v)


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
        Standard deviation over training seeds of each recipe's mean, relative to it.
    fits
        S: how many fits of different salts each value is the mean of.
    min_users, min_nonzero
        Under either, `underpowered` says so.

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
    x = v = t = p_better = p_worse = math.nan
    if n >= 2 and level > 0:
        x = float(delta.mean()) / level
        seeds = (tau_candidate**2 + tau_champion**2) / fits
        v = float(delta.var(ddof=1)) / (n * level**2) + seeds
        t = x / math.sqrt(v) if v > 0 else math.copysign(math.inf, x) if x else 0.0
        p_better = float(stdtr(n - 1, -t))
        p_worse = float(stdtr(n - 1, t))
    return Difference(
        x=x,
        v=v,
        n=n,
        nonzero=nonzero,
        t=t,
        p_better=p_better,
        p_worse=p_worse,
        smallest_effect=_FINDS * math.sqrt(v),
        candidate=float(candidate.mean()) if n else math.nan,
        champion=level if n else math.nan,
        underpowered=reason,
    )


def paired(
    candidate: pl.DataFrame, champion: pl.DataFrame, column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Line two recipes' values of one column up by user.

    Parameters
    ----------
    candidate, champion
        Frames as `Evaluation.users`, rows in any order; users without a value are left out.

    Returns
    -------
    tuple
        Two ``(n,)`` float64 arrays, users in the order of their ids.

    Raises
    ------
    GateError
        The column is missing, a user appears twice, or the two were judged by different users:
        then a mean difference would compare people, not recipes.
    """
    sides = []
    for frame in (candidate, champion):
        if column not in frame.columns:
            raise GateError("compare.missing_values", f"the values of {column} are missing")
        sides.append(frame.select(c.USER_ID, column).drop_nulls(column).sort(c.USER_ID))
    left, right = sides
    if left[c.USER_ID].n_unique() != left.height:
        raise GateError("compare.duplicate_user", f"a user appears twice in the values of {column}")
    if not left[c.USER_ID].equals(right[c.USER_ID]):
        raise GateError("compare.other_users", f"the values of {column} are not of the same users")
    return (
        left[column].cast(pl.Float64).to_numpy(),
        right[column].cast(pl.Float64).to_numpy(),
    )


def holm(p: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Say which of several hypotheses fall at a family-wise level `alpha` (Holm 1979).

    Step down from the smallest p: the i-th (from 0) of m falls if all before it fell and it is at
    most ``alpha / (m − i)``.
    """
    rejected = [False] * len(p)
    order = sorted(range(len(p)), key=lambda at: (p[at], at))
    for step, at in enumerate(order):
        if not p[at] <= alpha / (len(p) - step):
            break
        rejected[at] = True
    return tuple(rejected)
