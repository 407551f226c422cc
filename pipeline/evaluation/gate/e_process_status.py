"""Status of a candidate's e-process after a run: its figures, and the sentence that states them.

Guarantees: all figures follow from the records; a text never shows a threshold as reached before it
is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict, computed_field

from pipeline.base import Interval
from pipeline.evaluation.gate.e_process import (
    EFFECTS,
    MIXTURE_WEIGHTS,
    PERIODS,
    EProcess,
    EProcessKey,
    figures_of,
)
from pipeline.evaluation.gate.records import BlockRecord
from pipeline.evaluation.intervals import NORMAL_95
from pipeline.number_text import chance, change, share

MAX_E_VALUE = 1e6
"""Cap of a reported e-value; the logarithm has no cap."""
_EFFECT: Final = 0.02
"""True lift for which the number of further blocks is reported; one of `EFFECTS`."""

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
    newest_sd
        SD of the newest record's lift, √u; None without a record.
    blocks_for_two_percent
        Approximate number of blocks like the newest one that a true lift of 2 % needs; None without
        a record.
    use
        Use of tonight's block.
    waiting
        Reason that it was not recorded; None if it was.
    record
        Tonight's record, which later runs read from the ledger.
    earlier, excused
        Records of earlier blocks that this run evaluated as well, oldest first; and those of these
        blocks on which the recipes could not be compared.
    dropped
        Records that this run added to those from before the opening, because the e-process was
        emptied.
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
    newest_sd: float | None = None
    blocks_for_two_percent: int | None = None
    waiting: str | None = None
    record: BlockRecord | None = None
    earlier: tuple[BlockRecord, ...] = ()
    excused: tuple[Interval, ...] = ()
    dropped: tuple[BlockRecord, ...] = ()
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
        if self.period_sd is not None and self.blocks >= PERIODS:
            text += f", SD {share(self.period_sd)}"
        if self.holes:
            text += f"; {self.holes:.0f} days in no block"
        if self.smallest_effect is not None:
            text += f"; one block can detect {change(self.smallest_effect)}"
        if self.blocks_for_two_percent:
            text += f", a true lift of {change(_EFFECT)} needs about "
            text += f"{self.blocks_for_two_percent:,} blocks"
        if self.newest_sd is not None:
            text += f" like the newest one, whose lift has an SD of {share(self.newest_sd)}"
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
        newest_sd=math.sqrt(figures.u),
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
