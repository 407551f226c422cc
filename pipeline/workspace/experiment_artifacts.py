"""JSON files of backtests, calibrations and studies; see `artifacts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, JsonValue

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.features import FeaturesConfig
from pipeline.data.targets import Policy
from pipeline.evaluation.calibration import Calibration
from pipeline.models.families import AnyRecipe
from pipeline.stores.runs import Artifact, RootArtifact
from pipeline.workspace.artifacts import StoredConfig, Versions
from pipeline.workspace.ledger import ComparisonKey


class CalibrationPlanFile(Artifact):
    """What a calibration pinned; `holdouts` oldest first."""

    STEP: ClassVar[str] = "plan"
    FILE: ClassVar[str] = "plan"

    as_of: Instant
    versions: Versions
    task: Policy
    block_days: int | None
    weights: FeaturesConfig | None
    k: int
    holdouts: tuple[Interval, ...]


class CalibrationFile(RootArtifact[Calibration]):
    """What a calibration measured."""

    STEP: ClassVar[str] = "result"
    FILE: ClassVar[str] = "result"


class BacktestPlanFile(Artifact):
    """What a backtest pinned."""

    STEP: ClassVar[str] = "plan"
    FILE: ClassVar[str] = "plan"

    start: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    every_hours: float
    plant_shift: Instant | None
    versions: Versions
    config: StoredConfig


class ScheduleFile(Artifact):
    """Whether a backtest runs a nightly at an instant; in ``<instant>-verdict``."""

    FILE: ClassVar[str] = "verdict"

    wanted: bool
    reason: str
    cause: str | None


class DayFile(Artifact):
    """One as-of of one schedule of a backtest; it is `report.backtest.Day` of today."""

    FILE: ClassVar[str] = "day"
    VOLATILE: ClassVar[bool] = True

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

    `stores.studies` stays without knowledge of it: it takes and returns plain JSON.
    """

    as_of: Instant
    until: Instant
    versions: Versions
    name: str
    key: str
    task: ComparisonKey
    weights: FeaturesConfig
    start: AnyRecipe
    axes: Mapping[str, JsonValue]


class TrialRow(Frozen):
    """A measured trial; it is `report.study.TrialRow` and the row of today in one."""

    number: int
    state: str
    start: bool
    fields: Mapping[str, float]
    windows: tuple[float, ...]
    seconds: float | None
    failure: str | None
    lift: float | None


class StudyFile(Artifact):
    """``studies/<id>/study.json``: what a study has found so far (written by `StudyFiles`)."""

    FILE: ClassVar[str] = "study"

    study: str
    as_of: Instant
    status: str
    sentence: str
    name: str
    candidate: bool
    windows: tuple[Instant, ...]
    start: float | None
    best: float | None
    recipe: AnyRecipe | None
    trials: tuple[TrialRow, ...]
    importance: Mapping[str, float]
    until: Instant
    task: ComparisonKey
    versions: Versions
    start_recipe: AnyRecipe
