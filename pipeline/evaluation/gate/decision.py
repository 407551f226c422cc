"""Result of the gate: its kind, every rule with figure and bound, and one sentence.

Guarantees: frozen, with tuples inside; written as plain JSON and read back equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.base import Interval
from pipeline.evaluation.gate.anchors import Anchor, BlockLevel
from pipeline.evaluation.gate.e_process_status import EProcessStatus

Kind = Literal["first", "switch", "refresh", "keep", "block"]
"""`first`, `switch` and `refresh` put a new scorer live; `keep` and `block` leave the live one."""

PROMOTIONS: Final = ("first", "switch", "refresh")
"""Kinds that put a new scorer live."""

RuleOutcome = Literal["pass", "fail", "underpowered", "waiting", "missing", "reported"]
"""`underpowered`: too few users or differences. `waiting`: tonight's block is not recorded.
`missing`: a figure is not there. `reported`: information without a bound.
"""


@dataclass(frozen=True)
class RuleResult:
    """One rule as it was applied.

    Attributes
    ----------
    name
        Dotted: ``switch.lift``, ``refresh.slices.cold``.
    subject
        Name of the recipe, or empty.
    figure, bound
        Measured value and its limit; None if there is none.
    """

    name: str
    subject: str
    figure: float | None
    bound: float | None
    outcome: RuleOutcome
    sentence: str

    def __post_init__(self) -> None:
        for field in ("figure", "bound"):
            value = getattr(self, field)
            if value is not None:  # JSON has no NaN
                object.__setattr__(self, field, float(value) if math.isfinite(value) else None)


@dataclass(frozen=True)
class LiftWithoutAnswers:
    """A recipe against the champion's, or tonight's fit against the scorer accepted last.

    Attributes
    ----------
    against
        Name of the champion's recipe, or the stored scorer by its day.
    users, lift, lo, hi
        On all targets: number of users, and the lift with its 95 % interval; None if the rules do
        not allow a comparison.
    users_without, lift_without, lo_without, hi_without
        The same on targets that do not answer a shown list, also as shares of the champion's mean
        on all targets of these users.
    """

    recipe: str
    against: str
    users: int
    lift: float | None
    lo: float | None
    hi: float | None
    users_without: int
    lift_without: float | None
    lo_without: float | None
    hi_without: float | None


@dataclass(frozen=True)
class Decision:
    """Outcome of a nightly run.

    Attributes
    ----------
    recipe, recipe_hash
        The champion's recipe after this run; None if there is none.
    rules
        Every rule that was applied, passed or not.
    reasons
        Sentences about the deciding figures.
    sentence
        The decision and its reasons in one sentence.
    block
        The holdout.
    waiting
        The refresh was not evaluated because there were too few users.
    anchor
        The anchor after this run.
    levels
        Mean and baseline ratio of each recipe on this block.
    e_processes
        Status of each candidate; empty if this block must not count as evidence.
    recipes
        Hashes of the evaluated recipes, sorted.
    inconclusive
        A candidate that a user may accept: all rules hold except its threshold, and its e-value
        suffices for one candidate alone.
    without_answers
        Lifts without events that answer a shown list; empty if no target does.
    """

    kind: Kind
    recipe: str | None
    recipe_hash: str | None
    rules: tuple[RuleResult, ...]
    reasons: tuple[str, ...]
    sentence: str
    block: Interval
    waiting: bool = False
    anchor: Anchor | None = None
    levels: tuple[BlockLevel, ...] = ()
    e_processes: tuple[EProcessStatus, ...] = ()
    recipes: tuple[str, ...] = ()
    inconclusive: str | None = None
    without_answers: tuple[LiftWithoutAnswers, ...] = ()

    @property
    def promotes(self) -> bool:
        """True if a new scorer goes live."""
        return self.kind in PROMOTIONS
