"""A candidate's points: evidence gathered over blocks of days, however often one looks at it.

Promises: a candidate that is not better ever reaches ``M/α`` points with a chance below α, for the
points are a mixture of likelihood ratios of normal means, which by Ville's inequality passes a
bound c at any time with a chance of at most 1/c; a block that overlaps one before it adds nothing,
so people are not counted twice; an account is a value, and adding to it gives another one.

    for each bet g:  logE[g] += g·x/v − g²/(2v)          points = Σ share[g]·E[g]
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

EFFECTS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
"""Lifts that the points bet on."""
MIXTURE_WEIGHTS = (*[15 / 64] * 4, *[1 / 80] * 5)
"""Part of the stake on each bet: nearly all on lifts that recipes differ by in daily life. The rest
finds what is several times better on a block or two, where 4 % would gather little from it."""
MAX_E_VALUE = 1e6
"""Points beyond which nobody tells them apart; an account keeps their logarithm."""


@dataclass(frozen=True)
class EProcessKey:
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
class EProcess:
    """What a candidate has gathered against a champion.

    Attributes
    ----------
    log_likelihood_ratios
        Logarithm of the likelihood ratio of each of `EFFECTS`.
    sx, sw
        Σ x/v and Σ 1/v over the blocks.
    blocks
        How many were counted.
    last
        The newest of them.
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

        Raises
        ------
        ValueError
            The block overlaps one that was counted, or a figure is not usable.
        """
        if self.last is not None and block.start < self.last.end:
            raise ValueError(f"{block} overlaps {self.last}")
        if not (math.isfinite(x) and math.isfinite(v) and v > 0):
            raise ValueError(f"a lift of {x} with a variance of {v} is no evidence")
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
        """Natural logarithm of the points; 0 for an account that has counted nothing."""
        return float(logsumexp(self.log_likelihood_ratios, b=MIXTURE_WEIGHTS))

    @property
    def e_value(self) -> float:
        """The points, at most `MAX_E_VALUE`."""
        log = self.log_e
        return MAX_E_VALUE if log >= math.log(MAX_E_VALUE) else math.exp(log)

    @property
    def lift(self) -> float:
        """Mean lift of the blocks, the surer ones weighing more; NaN for none."""
        return self.sx / self.sw if self.sw else math.nan

    @property
    def se(self) -> float:
        """Standard error of `lift`; NaN for no block."""
        return 1 / math.sqrt(self.sw) if self.sw else math.nan


@dataclass(frozen=True)
class EProcessStatus:
    """Where a candidate's account stood when the night was over.

    Attributes
    ----------
    recipe
        The candidate's name.
    threshold
        Points that a switch needs, M/α.
    smallest_effect
        Lift that tonight's block finds four times in five; None where it could not be judged.
    blocks_for_two_percent
        How many more blocks a true lift of 2 % would need, about; None where nobody can tell.
    waiting
        Why tonight's block was not counted; None where it was.
    """

    recipe: str
    e_process: EProcess
    threshold: float
    smallest_effect: float | None
    blocks_for_two_percent: int | None
    waiting: str | None

    @property
    def reached(self) -> bool:
        """Whether the points suffice."""
        return self.e_process.log_e >= math.log(self.threshold)

    @property
    def sentence(self) -> str:
        """The account in words."""
        own = self.e_process
        text = f"{self.recipe}: {e_value_text(own.e_value)} of {self.threshold:,.0f} points"
        if own.blocks:
            half = NORMAL_95 * own.se
            plural = "block" if own.blocks == 1 else "blocks"
            text += (
                f", {signed(own.lift)} % (95 %: {signed(own.lift - half)} to "
                f"{signed(own.lift + half)} %) over {own.blocks} {plural}"
            )
        if self.smallest_effect is not None:
            text += f"; such a block shows {signed(self.smallest_effect)} %"
        if self.blocks_for_two_percent:
            more = self.blocks_for_two_percent
            text += f", a true +2 % needs about {more:,} more"
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
        """Return flat JSON: the account's figures beside what it is rebuilt from."""
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


def waiting_day(account: EProcess, opened: datetime | None, block: Interval) -> str | None:
    """Say that a block overlaps what was counted before, or was chosen by; None where it may count.

    Parameters
    ----------
    opened
        End of the block that chose the champion: who won there has been lucky there.
    """
    ends = [end for end in (opened, account.last.end if account.last else None) if end is not None]
    if not ends or block.start >= max(ends):
        return None
    day = (block.end - max(ends)).days
    return f"waiting, day {max(day, 0)} of {account.key.days}"


def blocks_expected(account: EProcess, v: float, threshold: float, lift: float = 0.02) -> int:
    """Say how many more blocks of variance `v` a true lift would need to reach the threshold.

    For an account that has counted nothing, ⌈2·ln(threshold/share)·v/lift²⌉.
    """
    if account.log_e >= math.log(threshold):
        return 0
    at = EFFECTS.index(lift)
    missing = math.log(threshold / MIXTURE_WEIGHTS[at]) - account.log_likelihood_ratios[at]
    return max(1, math.ceil(2 * missing * v / lift**2))


def e_value_text(points: float) -> str:
    """Write points, in sentences and figures alike: few with a decimal, many whole.

    Whole ones are cut, so that nobody seems to have what a switch needs before they have it; nobody
    counts below a tenth, or beyond a million.
    """
    if points >= MAX_E_VALUE:
        return f"over {MAX_E_VALUE:,.0f}"
    if points < 0.1:
        return "under 0.1"
    return f"{math.floor(points):,}" if points >= 10 else f"{points:.1f}"


def signed(share: float) -> str:
    """Write a share in percent with its sign: ``+4.1``; what rounds to nothing has none."""
    text = f"{100 * share:+.1f}"
    return text[1:] if float(text) == 0 else text
