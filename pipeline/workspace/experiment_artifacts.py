"""JSON files of backtests, calibrations and studies; see `artifacts`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, Field, JsonValue

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.features import FeaturesConfig
from pipeline.data.targets import Task
from pipeline.evaluation.calibration import Calibration
from pipeline.models.families import AnyRecipe
from pipeline.stores.runs import Artifact, RootArtifact
from pipeline.workspace.artifacts import StoredConfig, Versions
from pipeline.workspace.ledger import ComparisonKey


class CalibrationPlanFile(Artifact, step="plan", file="plan"):
    """What a calibration pinned; `holdouts` oldest first."""

    as_of: Instant
    versions: Versions
    task: Task
    holdout_days: int | None
    weights: FeaturesConfig | None
    k: int
    holdouts: tuple[Interval, ...]


class CalibrationFile(RootArtifact[Calibration], step="result", file="result"):
    """What a calibration measured."""


class BacktestPlanFile(Artifact, step="plan", file="plan"):
    """What a backtest pinned."""

    model_config = ConfigDict(populate_by_name=True)

    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    every_hours: float
    plant_shift: Instant | None
    versions: Versions
    config: StoredConfig


class ScheduleFile(Artifact, file="schedule"):
    """Whether a backtest runs a nightly at an instant; in ``<instant>-schedule``."""

    wanted: bool
    reason: str
    cause: str | None


class DayFile(Artifact, file="day", volatile=True):
    """One as-of of one schedule of a backtest.

    Attributes
    ----------
    retrained
        Whether a nightly run took place.
    reason, cause
        Why, or why not; what requested it (`monitoring.policy.Cause`), where the policy did.
    decision, sentence, promoted
        Of the nightly run; whether it put new lists live.
    user_days, ndcg, base_ndcg
        Of the lists that were live on the day before: the number of user-days, their mean NDCG,
        and that of the lists without fold-in; None where no user-day was scored.
    training_seconds, foldin_seconds
        Seconds of all trainings of the run, refit included, and of the fold-in.
    """

    as_of: Instant
    retrained: bool
    reason: str
    cause: str | None = None
    decision: str | None = None
    sentence: str | None = None
    promoted: bool = False
    user_days: int = 0
    ndcg: float | None = None
    base_ndcg: float | None = None
    training_seconds: float = 0.0
    foldin_seconds: float = 0.0


class StudyFacts(Frozen):
    """What a study was begun with, as Optuna keeps it beside the trials.

    `stores.studies` knows nothing of it: it takes and returns plain JSON, and adds `axes`.
    """

    as_of: Instant
    until: Instant
    versions: Versions
    name: str
    key: str
    task: ComparisonKey
    weights: FeaturesConfig
    start: AnyRecipe
    axes: Mapping[str, JsonValue] = {}


class TrialRow(Frozen):
    """A measured trial.

    Attributes
    ----------
    state
        ``complete``, ``pruned`` or ``failed``.
    fields
        By axis; one that is not a number or lies outside of its span is left out.
    windows
        The metric on each window, newest first.
    lift
        Mean of `windows` / the start's on the same windows - 1; None where the start's is 0.
    """

    number: int
    state: str
    start: bool
    fields: Mapping[str, int | float]
    windows: tuple[float, ...]
    seconds: float | None
    failure: str | None
    lift: float | None

    @property
    def value(self) -> float | None:
        """Mean of the metric over the windows it was measured on; None without any."""
        return float(np.mean(self.windows)) if self.windows else None


class StudyResult(Frozen):
    """Result of a study so far.

    Attributes
    ----------
    status
        ``candidate``; ``nothing_better``; ``unfinished``: not even the start was measured.
    name, start
        The recipe that the search began with, and its mean NDCG on the windows.
    windows
        Starts of the windows' ground truth, newest first.
    best, recipe
        The best recipe so far, which may be the start, and its mean NDCG.
    """

    study: str
    as_of: Instant
    status: str
    sentence: str
    name: str
    windows: tuple[Instant, ...]
    start: float | None = None
    best: float | None = None
    recipe: AnyRecipe | None = None


class StudyFile(Artifact, StudyResult, file="study"):
    """``studies/<id>/study.json``: result and trials of a study (written by `StudyFiles`)."""

    candidate: bool
    trials: tuple[TrialRow, ...]
    importance: Mapping[str, float]
    until: Instant
    task: ComparisonKey
    versions: Versions
    start_recipe: AnyRecipe
