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
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, computed_field
from scipy.special import gammaincc, logsumexp

from pipeline.base import Interval
from pipeline.evaluation.gate.records import BlockRecord
from pipeline.evaluation.intervals import NORMAL_95
from pipeline.number_text import chance, change

EFFECTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
"""Lifts of the alternatives in the mixture."""
MIXTURE_WEIGHTS = (*[15 / 64] * 4, *[1 / 80] * 5)
"""Weight of each effect: nearly all on lifts that are common between recipes. The rest detects a
recipe that is several times better within a block or two, for which 4 % would gather little.
"""
MAX_E_VALUE = 1e6
"""Cap of a reported e-value; the logarithm has no cap."""
PERIODS: Final = 4
"""Number of records from which the SD of the lift from block to block is estimated."""
_HOLE_DAYS: Final = 7.0
_HOLE_SHARE: Final = 0.1
"""Days in no record that an e-process may have, and their share of the days since its opening."""
_EFFECT: Final = 0.02
"""True lift for which the number of further blocks is reported; one of `EFFECTS`."""

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
    """

    key: EProcessKey
    opened: datetime
    weight: float
    records: tuple[BlockRecord, ...] = ()
    excused: tuple[Interval, ...] = ()

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

    def reopened(self, block: Interval, excused: Sequence[Interval] = ()) -> EProcess:
        """Return the e-process, emptied at the end of a block if it has too many holes.

        Parameters
        ----------
        block
            Tonight's holdout.
        excused
            As for `hole_days`.

        Returns
        -------
        EProcess
            Itself, or an empty one that keeps its weight.
        """
        since = (block.end - self.opened).total_seconds() / 86_400
        # Otherwise nights that are run only while a candidate leads would choose the evidence.
        if self.hole_days(block.start, excused) <= max(_HOLE_DAYS, _HOLE_SHARE * since):
            return self
        return replace(self, opened=block.end, records=(), excused=())


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


def blocks_expected(u: float, threshold: float) -> int:
    """Return the number of blocks that a true lift of 2 % needs on average.

    Parameters
    ----------
    u
        Variance of the newest record.
    threshold
        E-value that a switch needs.

    Returns
    -------
    int
        ⌈2·ln(threshold/weight)·u/lift²⌉, at least 1.
    """
    weight = MIXTURE_WEIGHTS[EFFECTS.index(_EFFECT)]
    return max(1, math.ceil(2 * math.log(threshold / weight) * u / _EFFECT**2))


BlockUse = Literal["recorded", "waiting", "underpowered", "alike", "no_level"]
"""`waiting`: days of the block were recorded before, or lie before the opening. `underpowered`: too
few users. `alike`: too few users with different values. `no_level`: the champion's mean is 0.
"""


@dataclass(frozen=True)
class EProcessStatus:
    """E-process of a candidate after a run.

    Attributes
    ----------
    recipe, recipe_hash, champion_hash
        The candidate's name and hash, and the champion's hash.
    opened, weight
        As in `EProcess`.
    threshold
        E-value that a switch needs.
    blocks, last
        Number of records, and the newest recorded block.
    holes
        Days since the opening that are in no record.
    log_e, log_v, log_u, log_rest, lift, se, lift_lo, lift_hi, q, q_chance, period_sd
        As in `EFigures`, with the 95 % interval of the lift; None without a record.
    smallest_effect
        Lift that tonight's block detects with power .8; None if it could not be evaluated.
    blocks_for_two_percent
        Approximate number of blocks that a true lift of 2 % needs; None if unknown.
    use
        Use of tonight's block.
    waiting
        Reason that it was not recorded; None if it was.
    record
        Tonight's record, which later runs read from the ledger.
    earlier, excused
        Records of earlier blocks that this run evaluated as well, oldest first; and those of these
        blocks on which the recipes could not be compared.
    """

    recipe: str
    recipe_hash: str
    champion_hash: str
    opened: datetime
    weight: float
    threshold: float
    use: BlockUse
    blocks: int = 0
    last: Interval | None = None
    holes: float = 0.0
    log_e: float = 0.0
    log_v: float = 0.0
    log_u: float = 0.0
    log_rest: float | None = None
    lift: float | None = None
    se: float | None = None
    lift_lo: float | None = None
    lift_hi: float | None = None
    q: float | None = None
    q_chance: float | None = None
    period_sd: float | None = None
    smallest_effect: float | None = None
    blocks_for_two_percent: int | None = None
    waiting: str | None = None
    record: BlockRecord | None = None
    earlier: tuple[BlockRecord, ...] = ()
    excused: tuple[Interval, ...] = ()
    # Derived figures are written for readers of the JSON.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def e_value(self) -> float:
        """The e-value, at most `MAX_E_VALUE`."""
        # Compared as logarithms, because `exp` overflows for large ones.
        return MAX_E_VALUE if self.log_e >= math.log(MAX_E_VALUE) else math.exp(self.log_e)

    @property
    def key(self) -> EProcessKey:
        """Identity of the e-process."""
        return EProcessKey(self.champion_hash, self.recipe_hash)

    @property
    def reached(self) -> bool:
        """True if the e-value reaches the threshold."""
        # Not the e-value, which is capped.
        return self.log_e >= math.log(self.threshold)

    @property
    def sentence(self) -> str:
        """E-value, lift and required blocks in one sentence."""
        text = f"{self.recipe}: e-value {e_value_text(self.e_value)} ({self.threshold:,.0f} needed)"
        if self.lift is not None and self.lift_lo is not None and self.lift_hi is not None:
            plural = "block" if self.blocks == 1 else "blocks"
            text += (
                f", lift {change(self.lift)} (95 %: {change(self.lift_lo)} to "
                f"{change(self.lift_hi)}) over {self.blocks} {plural}"
            )
        if self.q is not None and self.q_chance is not None and self.blocks > 1:
            text += f"; differences between blocks: Q {self.q:.1f} ({chance(self.q_chance)})"
        if self.period_sd:
            text += f", SD {self.period_sd:.1%}".replace("%", " %")
        if self.holes:
            text += f"; {self.holes:.0f} days in no block"
        if self.smallest_effect is not None:
            text += f"; one block can detect {change(self.smallest_effect)}"
        if self.blocks_for_two_percent:
            text += f", a true lift of {change(_EFFECT)} needs about "
            text += f"{self.blocks_for_two_percent:,} blocks"
        return text + (f"; {self.waiting}" if self.waiting else "")


def status_of(
    name: str,
    process: EProcess,
    *,
    threshold: float,
    period_sd: float,
    use: BlockUse,
    holes: float = 0.0,
    smallest_effect: float | None = None,
    waiting: str | None = None,
) -> EProcessStatus:
    """Return the status of an e-process, with the figures of its records.

    Parameters
    ----------
    name
        The candidate's name.
    process
        With tonight's record as its last one, if `use` is `recorded`.
    threshold, period_sd
        As in `EProcessStatus` and `figures_of`.
    use, holes, smallest_effect, waiting
        As in `EProcessStatus`.

    Returns
    -------
    EProcessStatus
        Without figures if there is no record.
    """
    status = EProcessStatus(
        recipe=name,
        recipe_hash=process.key.candidate,
        champion_hash=process.key.champion,
        opened=process.opened,
        weight=process.weight,
        threshold=threshold,
        use=use,
        holes=holes,
        smallest_effect=smallest_effect,
        waiting=waiting,
    )
    if not process.records:
        return status
    figures = figures_of(process.records, period_sd)
    half = NORMAL_95 * figures.ratio_se
    return replace(
        status,
        blocks=len(process.records),
        last=process.records[-1].block,
        log_e=figures.log_e,
        log_v=figures.log_v,
        log_u=figures.log_u,
        # JSON has no infinity.
        log_rest=figures.log_rest if len(process.records) > 1 else None,
        lift=figures.lift,
        se=figures.se,
        lift_lo=figures.lift - half,
        lift_hi=figures.lift + half,
        q=figures.q,
        q_chance=figures.q_chance,
        period_sd=figures.period_sd,
        blocks_for_two_percent=blocks_expected(figures.u, threshold),
        record=process.records[-1] if use == "recorded" else None,
    )


def e_value_text(e_value: float) -> str:
    """Format an e-value: below 10 with one decimal, else as a whole number, rounded down.

    Rounded down, so that no text shows the threshold before it is reached.
    """
    if e_value >= MAX_E_VALUE:
        return f"over {MAX_E_VALUE:,.0f}"
    if e_value < 0.1:
        return "under 0.1"
    return f"{math.floor(e_value):,}" if e_value >= 10 else f"{e_value:.1f}"
