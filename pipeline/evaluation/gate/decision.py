"""What the gate answers: a kind, every rule with its figure, and one sentence for a person.

Promises: frozen, tuples inside; written as plain JSON and read back equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.base import Interval
from pipeline.evaluation.gate.anchors import Anchor, BlockRatio
from pipeline.evaluation.gate.e_process import EProcessStatus

Kind = Literal["first", "switch", "refresh", "keep", "block"]
"""`first`, `switch` and `refresh` put a new scorer live; `keep` and `block` leave the old one."""

PROMOTIONS: Final = ("first", "switch", "refresh")
"""Kinds that put a new scorer live."""

RuleOutcome = Literal["pass", "fail", "underpowered", "waiting", "missing", "reported"]
"""`underpowered`: too little to judge by. `waiting`: for days that were not counted yet.
`missing`: not there to judge. `reported`: no rule."""


@dataclass(frozen=True)
class RuleResult:
    """One rule as it was applied.

    Attributes
    ----------
    name
        Dotted: ``switch.lift``, ``refresh.slice.cold``.
    subject
        Recipe that it was about, or empty.
    figure, bound
        What was found, and what it was held against; None where there is none.
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
            if value is not None:  # JSON knows no NaN
                object.__setattr__(self, field, float(value) if math.isfinite(value) else None)


@dataclass(frozen=True)
class Decision:
    """The outcome of a night.

    Attributes
    ----------
    recipe, recipe_hash
        The champion's recipe after this night; None where there is none.
    rules
        Every rule that was applied, passed or not.
    reasons
        Sentences of what decided.
    sentence
        The decision and its reasons for a person.
    block
        The holdout that judged.
    waiting
        A refresh was not judged for want of users.
    anchor
        The anchor after this night.
    ratios
        Baseline ratio of each recipe on this block.
    e_processes
        Where each candidate stands; empty where its figures must not count.
    inconclusive
        A candidate that a person may switch to: it has the points that one candidate alone would
        need, and all rules hold.
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
    ratios: tuple[BlockRatio, ...] = ()
    e_processes: tuple[EProcessStatus, ...] = ()
    inconclusive: str | None = None

    @property
    def promotes(self) -> bool:
        """A new scorer goes live."""
        return self.kind in PROMOTIONS
