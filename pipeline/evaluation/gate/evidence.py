"""Frozen input of the gate: figures of tonight's run, and results of earlier decisions.

Guarantees: the gate reads nothing else, so equal evidence gives an equal decision.
"""

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
    """A recipe with the values of its evaluation scorer on tonight's holdout.

    Attributes
    ----------
    baseline_rank
        Rank among the baselines, lowest first; None for a learned recipe.
    users
        `Evaluation.users`.
    coverage
        Share of the catalogue in its lists.
    k
        Length of the evaluated lists.
    seed_sd
        SD of its mean over training seeds, relative to the mean; None if never measured. A baseline
        has none.
    fits
        Number of fits with different seeds that the values are the mean of.
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
    """A recipe of the run without an evaluation, and the reason as a sentence."""

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
    """Results of earlier decisions, as `build_gate_history` collects them.

    Attributes
    ----------
    anchors
        The newest anchor of each recipe.
    underpowered_nights
        Number of consecutive runs, up to the last one, with too few users for a refresh.
    e_processes
        One per candidate and champion, since the last switch.
    opened
        End of the block by which the champion was chosen: e-processes start after it.
    """

    ratios: tuple[BlockRatio, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    underpowered_nights: int = 0
    e_processes: tuple[EProcess, ...] = ()
    opened: datetime | None = None

    def e_process(self, key: EProcessKey) -> EProcess:
        """Return the e-process of a key, an empty one before its first block."""
        return next((a for a in self.e_processes if a.key == key), EProcess(key))

    def anchor_of(self, recipe_hash: str) -> Anchor | None:
        """Return a recipe's anchor.

        By recipe, because an unpublished promotion must not move the anchor of another recipe.
        """
        return next((a for a in self.anchors if a.recipe_hash == recipe_hash), None)


@dataclass(frozen=True)
class Evidence:
    """Complete input of the gate.

    Attributes
    ----------
    k
        Length of the evaluated lists.
    holdout
        Tonight's block.
    judged
        Every recipe with an evaluation, in any order.
    expected
        Names that must be among `judged` or `absent`.
    champion
        Name of the champion's recipe among `judged`; None before the first one.
    last, month
        The champion's recipe against the scorer accepted last, and one accepted 21 to 45 days ago.
    skipped
        Sentences about stored scorers that could not be used.
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
    """Return a recipe's blocks that do not overlap, newest first, starting with the newest.

    Runs a day apart share nearly all of their holdout: together they are one piece of evidence.

    Parameters
    ----------
    ratios
        Blocks of any recipes, in any order.
    recipe_hash
        Recipe to select.

    Returns
    -------
    tuple
        Ratios of disjoint blocks, newest first.
    """
    own = {r for r in ratios if r.recipe_hash == recipe_hash}
    kept: list[BlockRatio] = []
    # Of equal blocks the accepted one comes first, since True sorts after False.
    for r in sorted(own, key=lambda r: (r.block.end, r.block.start, r.accepted), reverse=True):
        if not kept or r.block.end <= kept[-1].block.start:
            kept.append(r)
    return tuple(kept)


def build_gate_history(
    decisions: Sequence[Decision], live: Sequence[bool] | None = None
) -> GateHistory:
    """Collect the results of earlier decisions for the next one.

    Parameters
    ----------
    decisions
        Decisions of earlier runs, oldest first.
    live
        True for each decision whose model was published; all by default. A switch that was not
        published resets no e-process.

    Returns
    -------
    GateHistory
        Input of the next decision.
    """
    e_processes: dict[EProcessKey, EProcess] = {}
    opened = None
    for decision, published in zip(decisions, live or [True] * len(decisions), strict=True):
        e_processes |= {s.e_process.key: s.e_process for s in decision.e_processes}
        # E-processes against the former champion do not count against the new one.
        if published and decision.kind in ("first", "switch"):
            e_processes, opened = {}, decision.block.end
    anchors = {d.anchor.recipe_hash: d.anchor for d in decisions if d.anchor is not None}
    # Only runs in a row up to the last one count.
    waiting = tuple(takewhile(lambda decision: decision.waiting, reversed(decisions)))
    return GateHistory(
        ratios=tuple(r for decision in decisions for r in decision.ratios),
        anchors=tuple(anchors.values()),
        underpowered_nights=len(waiting),
        e_processes=tuple(e_processes.values()),
        opened=opened,
    )
