"""Rows of a page about this run and earlier ones; a run without a figure has ``None``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from pipeline.base import Instant
from pipeline.workspace.artifacts import FollowedParityFile, ParityFile

T = TypeVar("T")


class Dated(NamedTuple, Generic[T]):
    """What a run had, and its as-of."""

    as_of: Instant
    content: T


class PastParity(NamedTuple):
    """Parity of a promotion, and what its lists were worth until the next run."""

    as_of: Instant
    parity: ParityFile
    followed: FollowedParityFile | None


@dataclass(frozen=True)
class PastRun:
    """What the champion's recipe reached on one run's holdout.

    Attributes
    ----------
    kind
        What that run decided.
    recipe
        Champion after it.
    holdout_days
        Length of its holdout; only figures of equal lengths are comparable.
    mean, lo, hi
        Primary metric with its 95 % interval.
    lift, lift_lo, lift_hi
        Over that run's best baseline, with its 95 % interval.
    """

    as_of: Instant
    kind: str
    recipe: str
    holdout_days: int
    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    lift: float | None = None
    lift_lo: float | None = None
    lift_hi: float | None = None
