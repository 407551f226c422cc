"""What a night lays before the gate: frozen, complete, and nothing else is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl
from pydantic import Field

from pipeline.base import Frozen, Interval
from pipeline.evaluation.compare import MIN_NONZERO, MIN_USERS, UNKNOWN_TAU

if TYPE_CHECKING:
    from pipeline.evaluation.gate.decision import Decision

ANCHOR_BLOCKS: Final = 3


class GateConfig(Frozen):
    """What a promotion needs. Lifts and margins are shares of the champion's mean."""

    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="Chance that a night switches to a candidate that is not better.",
    )
    candidates: int = Field(
        default=5,
        ge=1,
        description="Candidates that the threshold pays for; more of them make it stricter.",
    )
    min_lift: float = Field(
        default=0.01, ge=0, description="Lift that a switch needs, however sure it is."
    )
    min_users: int = Field(
        default=MIN_USERS, ge=2, description="Users below which nothing is judged."
    )
    min_nonzero: int = Field(
        default=MIN_NONZERO,
        ge=1,
        description="Users that two recipes must serve differently to be told apart.",
    )
    unknown_tau: float = Field(
        default=UNKNOWN_TAU,
        ge=0,
        description="Spread over training seeds of a learned recipe that was never measured.",
    )
    coverage_ratio: float = Field(
        default=0.8, ge=0, le=1, description="Coverage that a switch must keep of the champion's."
    )
    slice_users: int = Field(
        default=100, ge=2, description="Users below which a slice is not judged."
    )
    slice_alpha_switch: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Level of the test for harm in any slice, at a switch.",
    )
    slice_alpha_refresh: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Level of the test for harm in any slice, at a refresh.",
    )
    refresh_margin: float = Field(
        default=0.02, ge=0, description="Loss against the scorer accepted last that is let pass."
    )
    refresh_errors: float = Field(
        default=3.0,
        ge=0,
        description="Standard errors of loss against the scorer accepted last that are let pass.",
    )
    anchor_margin: float = Field(
        default=0.1, ge=0, lt=1, description="Loss of baseline ratio against the anchor let pass."
    )
    baseline_floor: float = Field(
        default=0.98,
        ge=0,
        description="Share of the best baseline's mean that a refresh must keep.",
    )
    patience: int = Field(
        default=3, ge=0, description="Nights with too few users before a person is asked."
    )
    fallback: str = Field(
        default="decayed_popularity",
        min_length=1,
        description="Baseline that goes live first where nothing can be judged.",
    )


@dataclass(frozen=True)
class Judged:
    """A recipe and what its evaluation scorer was worth tonight.

    Attributes
    ----------
    rung
        Place on the ladder of a baseline, lowest first; None for what learns.
    users
        `Evaluation.users`.
    coverage
        Share of the catalogue in its lists.
    tau
        Spread of its mean over training seeds, relative; None: never measured. A baseline has none.
    fits
        Fits of different salts that the values are the mean of.
    """

    name: str
    recipe_hash: str
    rung: int | None
    users: pl.DataFrame
    coverage: float | None
    tau: float | None = None
    fits: int = 1


@dataclass(frozen=True)
class Absent:
    """A recipe of the night that has no evaluation, and why."""

    name: str
    rung: int | None
    sentence: str


@dataclass(frozen=True)
class Reference:
    """Tonight's fit of the champion's recipe beside a stored scorer: `evaluate_stored`'s frames."""

    label: str
    tonight: pl.DataFrame
    stored: pl.DataFrame


@dataclass(frozen=True)
class Check:
    """A check of volume or schema, as `validate` left it."""

    name: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class BlockRatio:
    """A recipe's mean over the best baseline's on one block.

    Attributes
    ----------
    se
        Standard error of `ratio`.
    accepted
        The recipe went live that night.
    """

    recipe_hash: str
    block: Interval
    ratio: float
    se: float
    accepted: bool = False


@dataclass(frozen=True)
class Anchor:
    """Baseline ratio that the champion was chosen with; refreshes are held against it."""

    recipe_hash: str
    ratio: float
    blocks: int

    @property
    def thin(self) -> bool:
        """It rests on fewer blocks than it should."""
        return self.blocks < ANCHOR_BLOCKS


@dataclass(frozen=True)
class Past:
    """What earlier decisions left behind; `remember` gathers it.

    Attributes
    ----------
    anchors
        The newest of each recipe.
    underpowered_nights
        Nights in a row, up to last night, that could not judge a refresh.
    """

    ratios: tuple[BlockRatio, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    underpowered_nights: int = 0

    def anchor_of(self, recipe_hash: str) -> Anchor | None:
        """Return a recipe's anchor: a promotion that never went live moves nobody else's."""
        return next((a for a in self.anchors if a.recipe_hash == recipe_hash), None)


@dataclass(frozen=True)
class Evidence:
    """All that the gate looks at.

    Attributes
    ----------
    k
        Length of the lists judged.
    holdout
        The block that judged.
    judged
        Every recipe with an evaluation, in any order.
    expected
        Names that must be among `judged` or `absent`.
    champion
        Name of the champion's recipe among `judged`; None before the first.
    last, month
        The champion's recipe against the scorer accepted last, and 21 to 45 days ago.
    skipped
        Sentences on stored scorers that could not be used.
    """

    k: int
    holdout: Interval
    judged: tuple[Judged, ...]
    expected: tuple[str, ...]
    champion: str | None
    checks: tuple[Check, ...]
    absent: tuple[Absent, ...] = ()
    last: Reference | None = None
    month: Reference | None = None
    skipped: tuple[str, ...] = ()
    past: Past = Past()


def disjoint(ratios: Sequence[BlockRatio], recipe_hash: str) -> tuple[BlockRatio, ...]:
    """Return a recipe's blocks that do not overlap, newest first, beginning with the newest.

    Nights a day apart share nearly all of their holdout: together they are one piece of evidence.
    """
    own = {r for r in ratios if r.recipe_hash == recipe_hash}
    kept: list[BlockRatio] = []
    for r in sorted(own, key=lambda r: (r.block.end, r.block.start, r.accepted), reverse=True):
        if not kept or r.block.end <= kept[-1].block.start:
            kept.append(r)
    return tuple(kept)


def remember(decisions: Sequence[Decision]) -> Past:
    """Gather what the decisions of earlier nights, oldest first, leave to the next one."""
    anchors: dict[str, Anchor] = {}
    waiting = 0
    for decision in decisions:
        if decision.anchor is not None:
            anchors[decision.anchor.recipe_hash] = decision.anchor
        waiting = waiting + 1 if decision.waiting else 0
    ratios = tuple(r for decision in decisions for r in decision.ratios)
    return Past(ratios=ratios, anchors=tuple(anchors.values()), underpowered_nights=waiting)
