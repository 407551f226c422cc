"""JSON files of backtests, calibrations and studies; see `artifacts`.

Guarantees: every file has a type; a file with an unknown or missing field is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, Field, JsonValue

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.features import FeaturesConfig
from pipeline.data.split import PinnedTask
from pipeline.data.targets import Task
from pipeline.evaluation.calibration import Calibration
from pipeline.models.families import AnyRecipe
from pipeline.stores.json_files import Artifact, RootArtifact
from pipeline.workspace.artifacts import Known, StoredConfig, Versions
from pipeline.workspace.ledger import ComparisonKey


class CalibrationPlanFile(Artifact, step="plan", file="plan"):
    """Inputs that a calibration pinned; `holdouts` oldest first."""

    as_of: Instant
    versions: Versions
    task: Task
    pinned: PinnedTask
    weights: FeaturesConfig | None
    k: int
    holdouts: tuple[Interval, ...]


class CalibrationFile(RootArtifact[Calibration], step="result", file="result"):
    """Result of a calibration."""


class DeliveredCatalogue(Frozen):
    """Versions of items and users that a sandbox receives at an as-of, if they are new."""

    at: Instant
    versions: Versions


class BacktestPlanFile(Artifact, step="plan", file="plan"):
    """Inputs that a backtest pinned.

    Attributes
    ----------
    known
        When events are delivered: by the time of their ingest, or by their timestamp.
    catalogues
        Items and users by as-of, in order.
    """

    model_config = ConfigDict(populate_by_name=True)

    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    every_hours: float
    plant_shift: Instant | None
    versions: Versions
    known: Known
    catalogues: tuple[DeliveredCatalogue, ...]
    config: StoredConfig


class ScheduleFile(Artifact, file="schedule"):
    """Decision on a nightly run at one instant of a backtest; in ``<instant>-schedule``."""

    wanted: bool
    reason: str
    cause: str | None


class DayFile(Artifact, file="day", volatile=True):
    """One as-of of one schedule of a backtest.

    Attributes
    ----------
    retrained
        True if a nightly run took place.
    reason, cause
        Reason for or against the run; the policy's cause (`monitoring.policy.Cause`) if it
        requested the run.
    decision, sentence, promoted
        Result of the nightly run; `promoted` is true if it put new lists live.
    user_days, ndcg, base_ndcg
        Number of user-days on which the lists of the previous day were live, their mean NDCG, and
        that of the lists without fold-in; None without a user-day.
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
    """Facts of a study at its beginning, as Optuna stores them beside the trials.

    `stores.studies` takes and returns plain JSON without this type, and adds `axes`.

    Attributes
    ----------
    until
        End of all windows.
    key
        Digest of family, fields and task: studies of one key search the same space.
    start
        The recipe that the search begins with.
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
        Value by axis, without fields that are not a number or lie outside their span.
    windows
        The metric on each window, newest first.
    lift
        Mean of `windows` / mean of the start on the same windows - 1; None where that is 0.
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
        """Mean of the metric over the windows of the trial; None without any."""
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
