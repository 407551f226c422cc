"""Content of a night's page: artefacts of its run, and those of earlier runs beside them.

Guarantees: nothing here is computed but names and lookups; equal pages draw equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, NamedTuple, Self, TypeVar

from pipeline.base import Instant
from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.prequential import LiveFigures
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.rates import Attribution
from pipeline.monitoring.verdicts import Drift
from pipeline.report.wording import advice
from pipeline.stores.runs import Artifact
from pipeline.workspace.artifacts import (
    ChurnFile,
    CleanFile,
    CostFile,
    FollowedParityFile,
    ParityFile,
    RecipeEvaluation,
    SplitFile,
    TablesFile,
    Versions,
)
from pipeline.workspace.ledger import CalibrationEntry

T = TypeVar("T")


@dataclass(frozen=True)
class LiftRow:
    """A recipe compared with another one on the same people; relative, .02 is +2 %.

    Attributes
    ----------
    lift, lo, hi
        Mean difference ÷ the other's mean, and its 95 % interval.
    proved
        Whether the gate takes this recipe as better: by its own threshold, not by this interval.
    underpowered
        Why it must not be judged, or ``None``.
    """

    name: str
    lift: float
    lo: float
    hi: float
    proved: bool = False
    underpowered: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """One group of people under two recipes.

    Attributes
    ----------
    users
        People of the group who were judged.
    candidate, champion
        Means of the primary metric; `champion` stands for whatever the candidate is held against.
    lift, lo, hi
        Mean difference ÷ the champion's mean, and its 95 % interval; ``None`` without a level.
    underpowered
        Why the group must not be judged, or ``None``.
    """

    name: str
    users: int
    candidate: float
    champion: float
    lift: float | None = None
    lo: float | None = None
    hi: float | None = None
    underpowered: str | None = None


class Dated(NamedTuple, Generic[T]):
    """What a run had, and its as-of."""

    as_of: Instant
    content: T


class PastParity(NamedTuple):
    """Parity of a promotion, and what its lists were worth until the next run."""

    as_of: Instant
    parity: ParityFile
    followed: FollowedParityFile | None


@dataclass(frozen=True)
class PastRun:
    """What the champion's recipe reached on one run's holdout.

    Attributes
    ----------
    kind
        What that run decided.
    recipe
        Champion after it.
    holdout_days
        Length of its holdout; only figures of equal lengths are comparable.
    mean, lo, hi
        Primary metric with its 95 % interval.
    lift, lift_lo, lift_hi
        Over that run's best baseline, with its 95 % interval.
    """

    as_of: Instant
    kind: str
    recipe: str
    holdout_days: int
    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    lift: float | None = None
    lift_lo: float | None = None
    lift_hi: float | None = None


class NightPage(Artifact):
    """Everything on the page of one night.

    Attributes
    ----------
    k
        List length of the metrics.
    users
        Users of the holdout.
    champion, baselines
        Names of the champion's recipe before the run, and of the baselines.
    failures
        Why recipes could not be trained, by recipe.
    selected
        What the data selected where a recipe left something open, by recipe.
    challenger, against
        The two recipes of `slices`; `lifts` are over the latter.
    needed_lift
        Lift that a switch needs; .01 is +1 %.
    quarantined, quarantine_reasons
        Rows in quarantine, ``None`` where that is not known; and rows by reason.
    advice
        Sentences on what a person can do now.
    calibration
        The newest calibration of the gate.
    e_process_paths
        Logarithm of each e-process run by run, by the candidate's hash.
    past, live, churn, parity
        What this run and earlier ones had, oldest first.
    attribution
        Of the span since the run before; ``None`` in a first run.
    """

    STEP: ClassVar[str] = "gate"
    FILE: ClassVar[str] = "page"
    VOLATILE: ClassVar[bool] = True  # it holds costs

    run_id: str
    as_of: Instant
    commit: str
    settings: str
    decision: Decision
    k: int
    split: SplitFile
    users: int
    evaluations: Mapping[str, RecipeEvaluation]
    champion: str | None
    baselines: tuple[str, ...]
    failures: Mapping[str, str]
    selected: Mapping[str, str]
    costs: Mapping[str, CostFile]
    challenger: str | None
    against: str | None
    needed_lift: float
    lifts: tuple[LiftRow, ...]
    slices: tuple[SliceRow, ...]
    checks: tuple[DataCheck, ...]
    versions: Versions
    tables: TablesFile
    cleaning: CleanFile
    quarantined: int | None
    quarantine_reasons: Mapping[str, int]
    advice: tuple[str, ...]
    calibration: CalibrationEntry | None
    e_process_paths: Mapping[str, tuple[Dated[float], ...]]
    past: tuple[PastRun, ...]
    live: tuple[Dated[LiveFigures], ...]
    churn: tuple[Dated[ChurnFile], ...]
    parity: tuple[PastParity, ...]
    attribution: Attribution | None
    drift: Drift | None
    policy: RetrainDecision | None

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return metric_name(NDCG, self.k)

    def values(self, metric: str) -> dict[str, float]:
        """Return a metric of the recipes that have it, by recipe."""
        name = metric_name(metric, self.k)
        metrics = {recipe: result.metrics for recipe, result in self.evaluations.items()}
        return {recipe: figures[name] for recipe, figures in metrics.items() if name in figures}

    @property
    def ranked(self) -> list[str]:
        """Recipes that have the primary metric, best first."""
        means = self.values(NDCG)
        return sorted(means, key=lambda name: (-means[name], name))

    def role(self, recipe: str) -> str:
        """Return ``champion``, ``baseline`` or ``candidate``."""
        if recipe == self.champion:
            return "champion"
        return "baseline" if recipe in self.baselines else "candidate"

    def blocked(self, rule: RuleResult) -> Self:
        """Return the page of a promotion that a check stopped after the gate."""
        decision = replace(
            self.decision,
            kind="block",
            sentence=f"the gate passed the recipe, the cold check stopped it: {rule.sentence}",
            rules=(*self.decision.rules, rule),
        )
        return self.model_copy(
            update={"decision": decision, "advice": advice("block", (rule,))},
        )
