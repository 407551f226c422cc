"""E-process of a candidate against the champion: evidence from records of disjoint blocks of days.

Guarantees: the probability that a candidate that is not better reaches an e-value of ``1/α'`` at
any time is at most α', however often it is tested: E(v) is a mixture of likelihood ratios of normal
means, a test martingale, so Ville's inequality bounds it at all times, and the e-value is at most
E(v); the e-value follows from the records alone, in any order.

With records k = 1..K and s² = ΣS_dd/Σ(n−1) over the records of the same length of a block:

    v_k = s²/n_k + t_k²,  w = 1/v_k,  x̄ = Σwx/Σw,  Q = Σw(x − x̄)²,  C = Σw − Σw²/Σw
    u_k = v_k + max(ω0², ω̂²),  ω̂² = max(0, (Q − (K − 1))/C) if K ≥ 4, else 0
    E(y) = Σ weight·exp(g·Σx/y − g²/2·Σ1/y) over the effects g
    e-value = min(E(v), E(u)),  lift = Σ(x/u)/Σ(1/u)

u contains the variance of a pair's lift from block to block, which v leaves out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, logsumexp

from pipeline.base import Interval
from pipeline.evaluation.gate.records import BlockRecord

EFFECTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
"""Lifts of the alternatives in the mixture."""
MIXTURE_WEIGHTS = (*[15 / 64] * 4, *[1 / 80] * 5)
"""Weight of each effect: nearly all on lifts that are common between recipes. The rest detects a
recipe that is several times better within a block or two, for which 4 % would gather little.
"""
PERIODS: Final = 4
"""Number of records from which the SD of the lift from block to block is estimated."""
_HOLE_DAYS: Final = 7.0
_HOLE_SHARE: Final = 0.1
"""Days in no record that an e-process may have, and their share of the days since its opening."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EProcessKey:
    """Identity of an e-process: hashes of the recipes of the champion and of the candidate."""

    champion: str
    candidate: str


@dataclass(frozen=True)
class EProcess:
    """Evidence for a candidate against a champion.

    Attributes
    ----------
    opened
        Days before it do not count: they may have chosen the champion or the candidate.
    weight
        Share of α that the candidate has.
    records
        Disjoint blocks, oldest first.
    excused
        Blocks of nights on which the two recipes could not be compared; they are not holes.
    dropped
        Records from before the opening, if the e-process was emptied; disjoint, oldest first.
    """

    key: EProcessKey
    opened: datetime
    weight: float
    records: tuple[BlockRecord, ...] = ()
    excused: tuple[Interval, ...] = ()
    dropped: tuple[BlockRecord, ...] = ()

    @property
    def all_records(self) -> tuple[BlockRecord, ...]:
        """Records of the e-process, and those from before it was emptied, oldest first."""
        return (*self.dropped, *self.records)

    @property
    def free_from(self) -> datetime:
        """The instant from which a block may start to be recorded."""
        return max([self.opened, *(record.block.end for record in self.records)])

    def add(self, record: BlockRecord) -> EProcess:
        """Return the e-process with one more record.

        Raises
        ------
        ValueError
            The block starts before `free_from`, or its figures are not usable.
        """
        # Overlapping blocks share users and days, which would be counted twice.
        if record.block.start < self.free_from:
            raise ValueError(f"block {record.block} starts before {self.free_from}")
        figures = (record.x, record.t2, record.s_dd)
        if not all(map(math.isfinite, figures)) or record.t2 + record.s_dd <= 0:
            raise ValueError(f"figures {figures} must be finite, and the variance above 0")
        return replace(self, records=(*self.records, record))

    def hole_days(self, until: datetime, excused: Sequence[Interval] = ()) -> float:
        """Return the number of days since the opening that are in no record.

        Parameters
        ----------
        until
            Start of tonight's block.
        excused
            Blocks of nights that were blocked or had too few users.

        Returns
        -------
        float
            0 if no day lies between.
        """
        spans = [*(record.block for record in self.records), *self.excused, *excused]
        at, holes = self.opened, 0.0
        for span in sorted(spans, key=lambda span: span.start):
            if span.end <= at:
                continue
            if span.start >= until:
                break
            holes += max(0.0, (span.start - at).total_seconds())
            at = span.end
        return (holes + max(0.0, (until - at).total_seconds())) / 86_400

    def reopened(
        self,
        block: Interval,
        excused: Sequence[Interval] = (),
        record: BlockRecord | None = None,
    ) -> EProcess:
        """Return the e-process, emptied at the end of a block if it has too many holes.

        Parameters
        ----------
        block
            Tonight's holdout.
        excused
            As for `hole_days`.
        record
            Of tonight's holdout; None if it must not be recorded.

        Returns
        -------
        EProcess
            Itself, or an empty one that keeps its weight; its records, and that of tonight, are
            then in `dropped`.
        """
        since = (block.end - self.opened).total_seconds() / 86_400
        # Otherwise nights that are run only while a candidate leads would choose the evidence.
        if self.hole_days(block.start, excused) <= max(_HOLE_DAYS, _HOLE_SHARE * since):
            return self
        known = (*self.all_records, *([record] if record and block.start >= self.free_from else []))
        return replace(self, opened=block.end, records=(), excused=(), dropped=known)


@dataclass(frozen=True)
class EFigures:
    """Figures of an e-process by its records.

    Attributes
    ----------
    log_v, log_u
        Natural logarithms of E(v) and of E(u).
    log_rest
        Logarithm of the e-value without the record of the largest x/u; -inf with one record.
    lift, se, ratio_se
        Weighted mean of the lifts; its standard errors, without a difference and as a ratio.
    q, q_chance
        Q of the lifts, and the probability of such a Q if all blocks have one lift.
    period_sd
        Estimated SD of the lift from block to block.
    u
        Variance of the newest record.
    """

    log_v: float
    log_u: float
    log_rest: float
    lift: float
    se: float
    ratio_se: float
    q: float
    q_chance: float
    period_sd: float
    u: float

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value."""
        return min(self.log_v, self.log_u)


def figures_of(records: Sequence[BlockRecord], period_sd: float) -> EFigures:
    """Compute the e-value and the lift of an e-process.

    Parameters
    ----------
    records
        At least one; disjoint blocks.
    period_sd
        ω0: SD of a pair's lift from block to block that is always assumed.

    Returns
    -------
    EFigures
        As the module describes.
    """
    records = sorted(records, key=lambda record: record.block.start)
    x = np.array([record.x for record in records])
    v = _variances(records, [record.s_dd for record in records])
    w = 1 / v
    mean = float((w * x).sum() / w.sum())
    q = float((w * (x - mean) ** 2).sum())
    spread = float(w.sum() - (w**2).sum() / w.sum())
    extra = 0.0
    if len(records) >= PERIODS:
        extra = max(0.0, (q - (len(records) - 1)) / spread)
    between = max(period_sd**2, extra)
    u = v + between
    lift = float((x / u).sum() / (1 / u).sum())
    as_ratio = _variances(records, [r.s_dd - 2 * lift * r.s_db + lift**2 * r.s_bb for r in records])
    rest = np.ones(len(records), np.bool_)
    rest[int(np.argmax(x / u))] = False
    log_rest = min(_log_e(x[rest], v[rest]), _log_e(x[rest], u[rest]))
    freedom = len(records) - 1
    return EFigures(
        log_v=_log_e(x, v),
        log_u=_log_e(x, u),
        log_rest=log_rest if len(records) > 1 else -math.inf,
        lift=lift,
        se=float((1 / u).sum() ** -0.5),
        ratio_se=float((1 / (as_ratio + between)).sum() ** -0.5),
        q=q,
        # Upper tail of chi-squared.
        q_chance=float(gammaincc(freedom / 2, q / 2)) if freedom else 1.0,
        period_sd=math.sqrt(extra),
        u=float(u[-1]),
    )


def _variances(records: Sequence[BlockRecord], squares: Sequence[float]) -> _Floats:
    """Return s²/n + t², with s² pooled over the records whose blocks are equally long."""
    sums: dict[object, float] = defaultdict(float)
    freedom: dict[object, int] = defaultdict(int)
    for record, square in zip(records, squares, strict=True):
        sums[record.block.length] += max(0.0, square)
        freedom[record.block.length] += record.n - 1
    return np.array(
        [
            sums[record.block.length] / freedom[record.block.length] / record.n + record.t2
            for record in records
        ]
    )


def _log_e(x: _Floats, y: _Floats) -> float:
    g = np.array(EFFECTS)
    # In logarithms: a likelihood ratio may overflow a float.
    logs = g * (x / y).sum() - g**2 / 2 * (1 / y).sum()
    return float(logsumexp(logs, b=MIXTURE_WEIGHTS))


def threshold_of(alpha: float, weight: float) -> float:
    """Return the e-value that a switch needs: 1/(α·weight).

    Parameters
    ----------
    alpha
        Chance of a false switch, over all candidates and nights.
    weight
        Share of α that the candidate has.

    Returns
    -------
    float
        At least 1/α.
    """
    return 1 / (alpha * weight)


def opening_weight(candidates: int) -> float:
    """Return the weight of each of so many candidates at the opening: together 3/4 of α."""
    return 3 / (4 * candidates)


def later_weight(number: int) -> float:
    """Return the weight of a later candidate by its number from 1: together at most 1/4 of α."""
    return 1 / (4 * number * (number + 1))
