"""Content of the page of a nightly run: artefacts of the run and of earlier ones.

Guarantees: nothing is computed here but names and lookups; equal pages give equal bytes.
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
from pipeline.stores.json_files import Artifact
from pipeline.workspace.artifacts import (
    AnsweredTargets,
    CleanFile,
    CostFile,
    FollowedParityFile,
    Known,
    RecipeEvaluation,
    SplitFile,
    TablesFile,
    Versions,
)
from pipeline.workspace.ledger import CalibrationEntry
from pipeline.workspace.release_artifacts import ChurnFile, ParityFile

T = TypeVar("T")


@dataclass(frozen=True)
class LiftRow:
    """A recipe compared with another one on the same users.

    Attributes
    ----------
    lift, lo, hi
        Mean difference ÷ the other recipe's mean, and its 95 % interval; .02 is +2 %.
    proved
        True if the gate takes the recipe as better, by the evidence of all its blocks.
    underpowered
        Reason why the evidence is too small, or None.
    """

    name: str
    lift: float
    lo: float
    hi: float
    proved: bool = False
    underpowered: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """One user group under two recipes.

    Attributes
    ----------
    users
        Evaluated users of the group.
    candidate, champion
        Means of the primary metric; `champion` is the recipe compared with, champion or not.
    lift, lo, hi
        Mean difference ÷ the champion's mean, and its 95 % interval; None if that mean is 0.
    underpowered
        Reason why the evidence is too small, or None.
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
    """Content of a run with its as-of."""

    as_of: Instant
    content: T


class PastParity(NamedTuple):
    """Fold-in parity of a promotion, and the scores of its lists until the next run."""

    as_of: Instant
    parity: ParityFile
    followed: FollowedParityFile | None


@dataclass(frozen=True)
class PastRun:
    """Metrics of the champion's recipe on the holdout of one run; None if not measured.

    Attributes
    ----------
    kind
        Kind of the run's decision.
    recipe
        Champion after the run.
    holdout_days
        Length of the holdout; only metrics of equal lengths are comparable.
    mean, lo, hi
        Primary metric with its 95 % interval.
    lift, lift_lo, lift_hi
        Lift over the best baseline of that run, or over the version before, with its 95 % interval.
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
    """Content of the page of one nightly run.

    Attributes
    ----------
    k
        List length of all metrics.
    users
        Users of the holdout.
    champion, baselines
        Names of the champion's recipe before the run, and of the baselines.
    failures
        Reason why a recipe was not trained, by recipe.
    costs
        Of each training; that of the refit as ``NAME (refit)``.
    selected
        Summary of the hyperparameters that were selected on earlier windows, by recipe.
    challenger, against
        The two recipes of `slices`; `lifts` are over the latter.
    needed_lift
        Lift that a switch needs; .01 is +1 %.
    margin
        As for `evaluation.lift.verdict`.
    quarantined, quarantine_reasons
        Rows in quarantine (None if no table exists), and rows by reason.
    advice
        Possible next steps as sentences.
    calibration
        Newest calibration of the gate.
    e_process_paths
        Natural logarithm of the e-value by run, by the candidate's hash.
    past, live, churn, parity
        Results of this run and earlier ones, oldest first.
    attribution
        Attribution since the run before; None in a first run.
    answers
        Targets that answer a shown list; None without a champion.
    """

    STEP: ClassVar[str] = "gate"
    FILE: ClassVar[str] = "page"
    VOLATILE: ClassVar[bool] = True  # costs differ from attempt to attempt

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
    margin: float
    lifts: tuple[LiftRow, ...]
    slices: tuple[SliceRow, ...]
    checks: tuple[DataCheck, ...]
    versions: Versions
    known: Known
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
    answers: AnsweredTargets | None = None

    @property
    def metric(self) -> str:
        """Name of the primary metric."""
        return metric_name(NDCG, self.k)

    def values(self, metric: str) -> dict[str, float]:
        """Return a metric at `k` by recipe, of the recipes that have it."""
        name = metric_name(metric, self.k)
        metrics = {recipe: result.metrics for recipe, result in self.evaluations.items()}
        return {recipe: figures[name] for recipe, figures in metrics.items() if name in figures}

    @property
    def recipe_names(self) -> tuple[str, ...]:
        """Names of all recipes of the run."""
        return (*self.evaluations, *self.failures)

    @property
    def ranked(self) -> list[str]:
        """Recipes that have the primary metric, best first."""
        means = self.values(NDCG)
        # Names break ties, so that equal pages give equal bytes.
        return sorted(means, key=lambda name: (-means[name], name))

    def role(self, recipe: str) -> str:
        """Return ``champion``, ``baseline`` or ``candidate``."""
        if recipe == self.champion:
            return "champion"
        return "baseline" if recipe in self.baselines else "candidate"

    def blocked(self, rule: RuleResult) -> Self:
        """Return the page of a promotion that a check stopped after the gate."""
        # The gate's own decision is committed and stays; the page shows the outcome of the run.
        decision = replace(
            self.decision,
            kind="block",
            sentence=f"the gate passed the recipe, the cold check stopped it: {rule.sentence}",
            rules=(*self.decision.rules, rule),
        )
        return self.model_copy(
            update={"decision": decision, "advice": advice("block", (rule,))},
        )
