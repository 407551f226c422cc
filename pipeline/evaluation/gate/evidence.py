"""Frozen input of the gate: figures of tonight's run, and results of earlier decisions.

Guarantees: the gate reads nothing else, so equal evidence gives an equal decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import polars as pl

from pipeline.base import Interval
from pipeline.data.targets import Task
from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.gate.anchors import Anchor, BlockLevel
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey
from pipeline.evaluation.gate.e_process_status import EProcessStatus

if TYPE_CHECKING:
    from pipeline.evaluation.gate.decision import Decision, RuleResult

REFRESH_LAST: Final = "refresh.last"
REFRESH_SLICES: Final = "refresh.slices."
"""Rules whose bound is narrower after they refused a refresh."""


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
    metrics
        `Evaluation.metrics`, on which configured bounds are tested.
    """

    name: str
    recipe_hash: str
    baseline_rank: int | None
    users: pl.DataFrame
    coverage: float | None
    k: int
    seed_sd: float | None = None
    fits: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)

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
class EarlierBlock:
    """A block before tonight's, with recipes that were trained up to its beginning.

    Attributes
    ----------
    holdout
        The block.
    users
        Number of evaluated users.
    judged
        The recipes on its users; one that failed is missing, and all if there are too few users.
    """

    holdout: Interval
    users: int
    judged: tuple[EvaluatedRecipe, ...]


@dataclass(frozen=True)
class HitOption:
    """Value of a setting under which a recipe would have hits, and for how many users."""

    setting: str
    value: str
    recipe: str
    users: int


@dataclass(frozen=True)
class GateHistory:
    """Results of earlier decisions, as `build_gate_history` collects them.

    Attributes
    ----------
    levels
        Levels of all recipes on earlier blocks.
    levels_since
        Blocks that end earlier do not count for the usual level of the champion; None: all count.
    anchors
        The newest anchor of each recipe, of accepted runs.
    underpowered_nights
        Number of consecutive runs, up to the last one, with too few users for a refresh.
    e_processes
        One per candidate and champion, since the champion was chosen.
    opened
        End of the block by which the champion was chosen: e-processes start after it. None if no
        run of this task is known.
    openers
        Hashes of the recipes that were evaluated beside the champion then.
    excused
        Blocks of runs that were blocked or had too few users.
    refused
        Names of the rules that refused a refresh since the last accepted run.
    """

    levels: tuple[BlockLevel, ...] = ()
    levels_since: datetime | None = None
    anchors: tuple[Anchor, ...] = ()
    underpowered_nights: int = 0
    e_processes: tuple[EProcess, ...] = ()
    opened: datetime | None = None
    openers: tuple[str, ...] = ()
    excused: tuple[Interval, ...] = ()
    refused: tuple[str, ...] = ()

    def e_process(self, key: EProcessKey) -> EProcess | None:
        """Return the e-process of a key; None before its first run."""
        return next((a for a in self.e_processes if a.key == key), None)

    def ratios_until(self, instant: datetime) -> list[BlockLevel]:
        """Return the levels with a baseline ratio on blocks of accepted runs up to an instant.

        Other blocks may be damaged. Two that overlap would count the same days twice, so `instant`
        is the start of tonight's block.
        """
        levels = (x for x in self.levels if x.accepted and x.ratio is not None)
        return [level for level in levels if level.block.end <= instant]

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
    task
        Whether lists may repeat items that the user had.
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
    notes
        Clauses about the task that the sentence repeats.
    earlier
        Blocks that this run evaluated besides tonight's, oldest first.
    hit_options
        Other settings that give hits; only evaluated if no recipe has a hit.
    """

    k: int
    task: Task
    holdout: Interval
    judged: tuple[EvaluatedRecipe, ...]
    expected: tuple[str, ...]
    champion: str | None
    checks: tuple[DataCheck, ...]
    absent: tuple[Absent, ...] = ()
    last: Reference | None = None
    month: Reference | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    past: GateHistory = GateHistory()
    earlier: tuple[EarlierBlock, ...] = ()
    hit_options: tuple[HitOption, ...] = ()


def build_gate_history(
    decisions: Sequence[Decision],
    live: Sequence[bool] | None = None,
    accepted: Sequence[bool] | None = None,
) -> GateHistory:
    """Collect the results of earlier decisions for the next one.

    Parameters
    ----------
    decisions
        Decisions of earlier runs, oldest first.
    live
        True for each decision whose model was published; by default each one that promotes. A
        switch that was not published resets no e-process.
    accepted
        True for each decision whose model was published, or that a user accepted; `live` by
        default. Levels, anchors and the end of a refusal follow from these only.

    Returns
    -------
    GateHistory
        Input of the next decision.
    """
    opening, refused, levels = _Opening(), set[str](), list[BlockLevel]()
    anchors: dict[str, Anchor] = {}
    live = [decision.promotes for decision in decisions] if live is None else live
    counted = live if accepted is None else accepted
    for decision, went_live, counts in zip(decisions, live, counted, strict=True):
        opening = opening.after(decision, went_live)
        levels += [replace(level, accepted=counts) for level in decision.levels]
        if not counts:
            refused |= {r.name for r in decision.rules if r.outcome == "fail" and _narrows_bound(r)}
            continue
        refused.clear()
        if decision.anchor is not None:
            anchors[decision.anchor.recipe_hash] = decision.anchor
    # Only runs in a row up to the last one count.
    waiting = tuple(takewhile(lambda decision: decision.waiting, reversed(decisions)))
    return GateHistory(
        levels=tuple(levels),
        anchors=tuple(anchors.values()),
        underpowered_nights=len(waiting),
        e_processes=tuple(opening.e_processes.values()),
        opened=opening.at,
        openers=opening.recipes,
        excused=tuple(decision.block for decision in decisions if _is_excused(decision)),
        refused=tuple(sorted(refused)),
    )


def _is_excused(decision: Decision) -> bool:
    # A user who accepts a blocked run changes its kind and leaves its rules.
    refused = any(
        rule.name.startswith("refresh.") and rule.outcome in ("fail", "missing")
        for rule in decision.rules
    )
    return decision.kind == "block" or decision.waiting or refused


def _narrows_bound(rule: RuleResult) -> bool:
    return rule.name == REFRESH_LAST or rule.name.startswith(REFRESH_SLICES)


@dataclass(frozen=True)
class _Opening:
    """Choice of the champion, and the e-processes since."""

    at: datetime | None = None
    recipes: tuple[str, ...] = ()
    e_processes: Mapping[EProcessKey, EProcess] = field(default_factory=dict)

    def after(self, decision: Decision, published: bool) -> _Opening:
        others = tuple(h for h in decision.recipes if h != decision.recipe_hash)
        # E-processes against the former champion do not count against the new one.
        if published and decision.kind in ("first", "switch"):
            return _Opening(decision.block.end, others)
        e_processes = dict(self.e_processes)
        for status in decision.e_processes:
            e_processes[status.key] = _continued(e_processes.get(status.key), status, decision)
        # A task without a choice of its own begins with its first run.
        if self.at is None and decision.recipes:
            return _Opening(decision.block.end, others, e_processes)
        return _Opening(self.at, self.recipes, e_processes)


def _continued(before: EProcess | None, status: EProcessStatus, decision: Decision) -> EProcess:
    """Return the e-process of a status, with the records of earlier runs."""
    process = before
    # A run with too many holes before it opened the e-process again.
    if process is None or process.opened != status.opened:
        former = process.all_records if process else ()
        dropped = (*former, *status.dropped)
        process = EProcess(status.key, status.opened, status.weight, dropped=dropped)
    process = replace(process, excused=(*process.excused, *status.excused))
    for record in (*status.earlier, *([status.record] if status.record else [])):
        # A run of the same as-of may have recorded the block before.
        if record.block.start >= process.free_from:
            process = process.add(record)
    if status.use in ("underpowered", "alike"):
        process = replace(process, excused=(*process.excused, decision.block))
    return process
