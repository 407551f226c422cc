"""A candidate's points: evidence gathered over blocks of days, however often one looks at it.

Promises: a candidate that is not better ever reaches ``M/α`` points with a chance below α, for the
points are a mixture of likelihood ratios of normal means, which by Ville's inequality passes a
bound c at any time with a chance of at most 1/c; a block that overlaps one before it adds nothing,
so people are not counted twice; an account is a value, and adding to it gives another one.

    for each bet g:  logE[g] += g·x/v − g²/(2v)          log points = logsumexp(logE) − ln 4
    sx += x/v,  sw += 1/v                                lift = sx/sw,  se = 1/√sw
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy.special import logsumexp

from pipeline.base import Interval

BETS = (0.005, 0.01, 0.02, 0.04)
"""Lifts that the points bet on, in equal parts."""
MOST_POINTS = 1e6
"""Points beyond which nobody tells them apart; an account keeps their logarithm."""


@dataclass(frozen=True)
class Key:
    """What an account is about: another recipe on either side, or another block, is another one.

    Attributes
    ----------
    champion, candidate
        Hashes of recipes.
    metric, k
        What is compared: ``ndcg`` of lists of `k`.
    days
        Length of a block.
    """

    champion: str
    candidate: str
    metric: str
    k: int
    days: int


@dataclass(frozen=True)
class Account:
    """What a candidate has gathered against a champion.

    Attributes
    ----------
    log_bets
        Logarithm of the likelihood ratio of each of `BETS`.
    sx, sw
        Σ x/v and Σ 1/v over the blocks.
    blocks
        How many were counted.
    last
        The newest of them.
    """

    key: Key
    log_bets: tuple[float, ...] = (0.0,) * len(BETS)
    sx: float = 0.0
    sw: float = 0.0
    blocks: int = 0
    last: Interval | None = None

    def fresh(self, block: Interval) -> bool:
        """Whether a block begins where the newest one has ended, or later."""
        return self.last is None or block.start >= self.last.end

    def add(self, x: float, v: float, block: Interval) -> Account:
        """Count a block.

        Parameters
        ----------
        x, v
            Lift on the block, and its variance; v > 0.

        Raises
        ------
        ValueError
            The block is not `fresh`, or a figure is not usable.
        """
        if not self.fresh(block):
            raise ValueError(f"{block} overlaps {self.last}")
        if not (math.isfinite(x) and math.isfinite(v) and v > 0):
            raise ValueError(f"a lift of {x} with a variance of {v} is no evidence")
        return replace(
            self,
            log_bets=tuple(
                log + g * x / v - g * g / (2 * v)
                for log, g in zip(self.log_bets, BETS, strict=True)
            ),
            sx=self.sx + x / v,
            sw=self.sw + 1 / v,
            blocks=self.blocks + 1,
            last=block,
        )

    @property
    def log_points(self) -> float:
        """Natural logarithm of the points; 0 for an account that has counted nothing."""
        return float(logsumexp(self.log_bets)) - math.log(len(BETS))

    @property
    def points(self) -> float:
        """The points, at most `MOST_POINTS`."""
        return math.exp(min(self.log_points, math.log(MOST_POINTS)))

    @property
    def lift(self) -> float:
        """Mean lift of the blocks, the surer ones weighing more; NaN for none."""
        return self.sx / self.sw if self.sw else math.nan

    @property
    def se(self) -> float:
        """Standard error of `lift`; NaN for no block."""
        return 1 / math.sqrt(self.sw) if self.sw else math.nan


def blocks_expected(v: float, bound: float, lift: float = 0.02) -> int:
    """Say how many blocks of variance `v` a true lift needs: ⌈2·ln(4·bound)·v/lift²⌉.

    Parameters
    ----------
    bound
        Points that a switch needs, M/α.
    """
    return max(1, math.ceil(2 * math.log(len(BETS) * bound) * v / lift**2))
