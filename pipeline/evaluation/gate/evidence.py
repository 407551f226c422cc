"""What a night lays before the gate: frozen, complete, and nothing else is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING

import polars as pl

from pipeline.base import Interval
from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.gate.anchors import Anchor, BlockRatio
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey

if TYPE_CHECKING:
    from pipeline.evaluation.gate.decision import Decision


@dataclass(frozen=True)
class EvaluatedRecipe:
    """A recipe and what its evaluation scorer was worth tonight.

    Attributes
    ----------
    baseline_rank
        Place on the ladder of a baseline, lowest first; None for what learns.
    users
        `Evaluation.users`.
    coverage
        Share of the catalogue in its lists.
    k
        Length of the lists that were judged.
    seed_sd
        Spread of its mean over training seeds, relative; None: never measured. A baseline has none.
    fits
        Fits of different salts that the values are the mean of.
    """

    name: str
    recipe_hash: str
    baseline_rank: int | None
    users: pl.DataFrame
    coverage: float | None
    k: int
    seed_sd: float | None = None
    fits: int = 1

    @property
    def level(self) -> float:
        """Baseline rank; infinite for a learned recipe, which ranks above all baselines."""
        return math.inf if self.baseline_rank is None else self.baseline_rank


@dataclass(frozen=True)
class Absent:
    """A recipe of the night that has no evaluation, and why."""

    name: str
    baseline_rank: int | None
    sentence: str


@dataclass(frozen=True)
class Reference:
    """Tonight's fit of the champion's recipe beside a stored scorer: `evaluate_stored`'s frames."""

    label: str
    tonight: pl.DataFrame
    stored: pl.DataFrame


@dataclass(frozen=True)
class GateHistory:
    """What earlier decisions left behind; `build_gate_history` gathers it.

    Attributes
    ----------
    anchors
        The newest of each recipe.
    underpowered_nights
        Nights in a row, up to last night, that could not judge a refresh.
    e_processes
        Of every candidate against every champion since the last switch.
    opened
        End of the block that chose the champion: accounts begin after it.
    """

    ratios: tuple[BlockRatio, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    underpowered_nights: int = 0
    e_processes: tuple[EProcess, ...] = ()
    opened: datetime | None = None

    def e_process(self, key: EProcessKey) -> EProcess:
        """Return the account of a key, an empty one where nothing was counted yet."""
        return next((a for a in self.e_processes if a.key == key), EProcess(key))

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
    judged: tuple[EvaluatedRecipe, ...]
    expected: tuple[str, ...]
    champion: str | None
    checks: tuple[DataCheck, ...]
    absent: tuple[Absent, ...] = ()
    last: Reference | None = None
    month: Reference | None = None
    skipped: tuple[str, ...] = ()
    past: GateHistory = GateHistory()


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


def build_gate_history(
    decisions: Sequence[Decision], live: Sequence[bool] | None = None
) -> GateHistory:
    """Gather what the decisions of earlier nights, oldest first, leave to the next one.

    Parameters
    ----------
    live
        Whether each one's model went before people; all of them by default. A switch that did not
        closes no account.
    """
    e_processes: dict[EProcessKey, EProcess] = {}
    opened = None
    for decision, published in zip(decisions, live or [True] * len(decisions), strict=True):
        e_processes |= {s.e_process.key: s.e_process for s in decision.e_processes}
        if published and decision.kind in ("first", "switch"):
            e_processes, opened = {}, decision.block.end
    anchors = {d.anchor.recipe_hash: d.anchor for d in decisions if d.anchor is not None}
    waiting = tuple(takewhile(lambda decision: decision.waiting, reversed(decisions)))
    return GateHistory(
        ratios=tuple(r for decision in decisions for r in decision.ratios),
        anchors=tuple(anchors.values()),
        underpowered_nights=len(waiting),
        e_processes=tuple(e_processes.values()),
        opened=opened,
    )
