"""E-process of a candidate against the champion: evidence over disjoint blocks of days.

Guarantees: the probability that a candidate that is not better reaches an e-value of ``M/α`` at any
time is at most α/M, however often it is tested: the e-value is a mixture of likelihood ratios of
normal means, a test martingale, so Ville's inequality bounds it at all times. A block that overlaps
a counted one is not counted. An e-process is immutable; a further block returns a new one.

    for each effect g:  logE[g] += g·x/v − g²/(2v)       e-value = Σ weight[g]·E[g]
    sx += x/v,  sw += 1/v                                lift = sx/sw,  se = 1/√sw
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema
from scipy.special import logsumexp

from pipeline.base import Interval, plain
from pipeline.evaluation.intervals import NORMAL_95
from pipeline.number_text import change

EFFECTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
"""Lifts of the alternatives in the mixture."""
MIXTURE_WEIGHTS = (*[15 / 64] * 4, *[1 / 80] * 5)
"""Weight of each effect: nearly all on lifts that are common between recipes. The rest detects a
recipe that is several times better within a block or two, for which 4 % would gather little.
"""
MAX_E_VALUE = 1e6
"""Cap of a reported e-value; the e-process itself keeps the logarithm."""


@dataclass(frozen=True)
class EProcessKey:
    """Identity of an e-process: another recipe, metric or length starts a new one.

    Attributes
    ----------
    champion, candidate
        Hashes of recipes.
    metric, k
        Compared metric: ``ndcg`` of lists of `k`.
    days
        Length of a block.
    """

    champion: str
    candidate: str
    metric: str
    k: int
    days: int


@dataclass(frozen=True)
class EProcess:
    """Evidence for a candidate against a champion.

    Attributes
    ----------
    log_likelihood_ratios
        Logarithm of the likelihood ratio of each of `EFFECTS`.
    sx, sw
        Σ x/v and Σ 1/v over the blocks.
    blocks
        Number of counted blocks.
    last
        The newest counted block.
    """

    key: EProcessKey
    log_likelihood_ratios: tuple[float, ...] = (0.0,) * len(EFFECTS)
    sx: float = 0.0
    sw: float = 0.0
    blocks: int = 0
    last: Interval | None = None

    def add(self, x: float, v: float, block: Interval) -> EProcess:
        """Count a block.

        Parameters
        ----------
        x, v
            Lift on the block, and its variance; v > 0.
        block
            Days of the block; must start at the end of the last counted one, or later.

        Returns
        -------
        EProcess
            A new one with the block.

        Raises
        ------
        ValueError
            The block overlaps one that was counted, or a figure is not usable.
        """
        # Overlapping blocks share users and days, which would be counted twice.
        if self.last is not None and block.start < self.last.end:
            raise ValueError(f"block {block} overlaps the counted block {self.last}")
        if not (math.isfinite(x) and math.isfinite(v) and v > 0):
            raise ValueError(f"lift {x} and variance {v} must be finite, and the variance above 0")
        return replace(
            self,
            log_likelihood_ratios=tuple(
                log + g * x / v - g * g / (2 * v)
                for log, g in zip(self.log_likelihood_ratios, EFFECTS, strict=True)
            ),
            sx=self.sx + x / v,
            sw=self.sw + 1 / v,
            blocks=self.blocks + 1,
            last=block,
        )

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value; 0 before the first block."""
        # In logarithms: a likelihood ratio may overflow a float.
        return float(logsumexp(self.log_likelihood_ratios, b=MIXTURE_WEIGHTS))

    @property
    def e_value(self) -> float:
        """The e-value, at most `MAX_E_VALUE`."""
        log = self.log_e
        # Compared as logarithms, because `exp` overflows for large ones.
        return MAX_E_VALUE if log >= math.log(MAX_E_VALUE) else math.exp(log)

    @property
    def lift(self) -> float:
        """Mean lift of the blocks, weighted by 1/variance; NaN before the first block."""
        return self.sx / self.sw if self.sw else math.nan

    @property
    def se(self) -> float:
        """Standard error of `lift`; NaN before the first block."""
        return 1 / math.sqrt(self.sw) if self.sw else math.nan


@dataclass(frozen=True)
class EProcessStatus:
    """E-process of a candidate after a run.

    Attributes
    ----------
    recipe
        The candidate's name.
    threshold
        E-value that a switch needs, M/α.
    smallest_effect
        Lift that tonight's block detects with power .8; None if it could not be evaluated.
    blocks_for_two_percent
        Approximate number of further blocks that a true lift of 2 % would need; None if unknown.
    waiting
        Reason that tonight's block was not counted; None if it was.
    """

    recipe: str
    e_process: EProcess
    threshold: float
    smallest_effect: float | None
    blocks_for_two_percent: int | None
    waiting: str | None

    @property
    def reached(self) -> bool:
        """True if the e-value reaches the threshold."""
        # Not the e-value, which is capped.
        return self.e_process.log_e >= math.log(self.threshold)

    @property
    def sentence(self) -> str:
        """E-value, lift and required blocks in one sentence."""
        own = self.e_process
        text = f"{self.recipe}: e-value {e_value_text(own.e_value)} ({self.threshold:,.0f} needed)"
        if own.blocks:
            half = NORMAL_95 * own.se
            plural = "block" if own.blocks == 1 else "blocks"
            text += (
                f", lift {change(own.lift)} (95 %: {change(own.lift - half)} to "
                f"{change(own.lift + half)}) over {own.blocks} {plural}"
            )
        if self.smallest_effect is not None:
            text += f"; one block can detect {change(self.smallest_effect)}"
        if self.blocks_for_two_percent:
            more = f"about {self.blocks_for_two_percent:,} more blocks"
            text += f", a true lift of {change(0.02)} needs {more}"
        return text + (f"; {self.waiting}" if self.waiting else "")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[EProcessStatus], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls._read(value),
            serialization=core_schema.plain_serializer_function_ser_schema(cls._written),
        )

    def _written(self) -> dict[str, Any]:
        """Return flat JSON: derived figures beside the fields that `_read` restores from."""
        own, key = self.e_process, self.e_process.key
        fields = vars(self) | vars(own)
        del fields["e_process"], fields["key"]
        return fields | {
            "recipe_hash": key.candidate,
            "champion_hash": key.champion,
            "metric": key.metric,
            "k": key.k,
            "days": key.days,
            "e_value": own.e_value,
            "log_e": own.log_e,
            # JSON has no NaN.
            "lift": own.lift if own.blocks else None,
            "se": own.se if own.blocks else None,
            "last": None if own.last is None else plain(own.last),
        }

    @classmethod
    def _read(cls, written: Mapping[str, Any]) -> EProcessStatus:
        names = ("champion_hash", "recipe_hash", "metric", "k", "days")
        own = EProcess(EProcessKey(*(written[name] for name in names)))
        ratios = tuple(written["log_likelihood_ratios"])
        if len(ratios) == len(EFFECTS):  # an e-process over other effects starts anew
            last = TypeAdapter(Interval | None).validate_python(written["last"])
            own = replace(own, log_likelihood_ratios=ratios, last=last)
            own = replace(own, **{name: written[name] for name in ("sx", "sw", "blocks")})
        names = ("recipe", "threshold", "smallest_effect", "blocks_for_two_percent", "waiting")
        return cls(e_process=own, **{name: written[name] for name in names})


def waiting_day(e_process: EProcess, opened: datetime | None, block: Interval) -> str | None:
    """Return a text if a block overlaps a counted one, or the one that chose the champion.

    Parameters
    ----------
    e_process
        The candidate's e-process.
    opened
        End of the block that chose the champion: the winner of a block is biased upwards on it.
    block
        Tonight's holdout.

    Returns
    -------
    str or None
        ``waiting, day 3 of 7``; None if the block may count.
    """
    # The block that chose the champion is excluded like a counted one.
    ends = [
        end for end in (opened, e_process.last.end if e_process.last else None) if end is not None
    ]
    if not ends or block.start >= max(ends):
        return None
    day = (block.end - max(ends)).days
    return f"waiting, day {max(day, 0)} of {e_process.key.days}"


def blocks_expected(e_process: EProcess, v: float, threshold: float, lift: float = 0.02) -> int:
    """Estimate the number of further blocks until a true lift reaches the threshold.

    Before the first block it is ⌈2·ln(threshold/weight)·v/lift²⌉.

    Parameters
    ----------
    e_process
        The candidate's e-process.
    v
        Variance of the lift on a block.
    threshold
        E-value that a switch needs.
    lift
        One of `EFFECTS`.

    Returns
    -------
    int
        0 if the threshold is reached, else at least 1.
    """
    if e_process.log_e >= math.log(threshold):
        return 0
    effect = EFFECTS.index(lift)
    # A block with this lift adds lift²/(2v) to the logarithm on average.
    missing = (
        math.log(threshold / MIXTURE_WEIGHTS[effect]) - e_process.log_likelihood_ratios[effect]
    )
    return max(1, math.ceil(2 * missing * v / lift**2))


def e_value_text(e_value: float) -> str:
    """Format an e-value: below 10 with one decimal, else as a whole number, rounded down.

    Rounded down, so that no text shows the threshold before it is reached.
    """
    if e_value >= MAX_E_VALUE:
        return f"over {MAX_E_VALUE:,.0f}"
    if e_value < 0.1:
        return "under 0.1"
    return f"{math.floor(e_value):,}" if e_value >= 10 else f"{e_value:.1f}"
