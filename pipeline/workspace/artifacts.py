"""JSON files of a workspace: one frozen model per file, which knows its step and its name.

`run.read(EvaluationFile)` reads one, `run.find(LiveFile)` returns None where a step wrote none,
`draft.write(EvaluationFile(...))` writes one. A file whose content is one object of a stage has
it as `root`.

Guarantees:

* The bytes follow from the content alone (`Draft.write`: keys sorted, instants by
  `format_instant`), so equal content gives equal checksums and run ids.
* A file of another shape is a `StorageError` that names the file and the field.

To add one: a class here with `STEP` and `FILE`, `VOLATILE` where it was measured on the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Self

import polars as pl
from pydantic import JsonValue, PlainSerializer, PlainValidator

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.clean.treat import CleanReport
from pipeline.data.features import FeaturesConfig
from pipeline.data.split import Split
from pipeline.data.targets import Task
from pipeline.data.validate.checks import DataCheck
from pipeline.data.validate.judge import Baseline
from pipeline.evaluation.gate.decision import Decision
from pipeline.evaluation.prequential import PrequentialFigures
from pipeline.models.families import AnyRecipe
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.rates import Attribution
from pipeline.monitoring.verdicts import Drift
from pipeline.serving.churn import FIRST, ChurnShares
from pipeline.serving.foldin import Seen
from pipeline.stores.runs import Artifact, RootArtifact
from pipeline.workspace.config import Config, dump, load
from pipeline.workspace.ledger import Champion, ComparisonKey

REFIT: Final = "refit"


def train_step(recipe: str) -> str:
    """Return the step of a recipe's evaluation scorer."""
    return f"train/{recipe}"


StoredConfig = Annotated[
    Config,
    PlainValidator(lambda value: value if isinstance(value, Config) else load(value)),
    PlainSerializer(dump),
]
"""A run's own copy of the settings; `ConfigError` for one of another version."""

Versions = Mapping[str, int | None]
"""Table -> its pinned version; None for a table that did not exist."""


# ---------------------------------------------------------------- nightly: snapshot


class Trigger(Frozen):
    """Why a run was requested: the policy's decision, and the drift that it saw."""

    policy: RetrainDecision
    drift: Drift


class SnapshotFile(Artifact):
    """What a run pinned; `run_digest` is part of its id.

    Attributes
    ----------
    settings
        Checksum of what the outcome depends on; a second start compares it.
    holdout_days, task, weights, seed_sds
        What earlier runs left: see `LedgerHistory`.
    trigger, commit, libraries, replay
        Recorded, and no part of the run id.
    """

    STEP: ClassVar[str] = "snapshot"
    FILE: ClassVar[str] = "snapshot"

    as_of: Instant
    versions: Versions
    settings: str
    config: StoredConfig
    recipes: Mapping[str, AnyRecipe]
    champion: Champion | None
    champion_name: str | None
    publish: bool
    holdout_days: int | None
    task: Task | None
    seed_sds: Mapping[str, float]
    weights: FeaturesConfig | None
    trigger: Trigger | None
    commit: str
    libraries: Mapping[str, str]
    replay: bool

    @property
    def run_digest(self) -> str:
        """First 8 hex digits of the sha256 of everything that decides the run's outcome."""
        decisive = self.model_dump(
            mode="json", by_alias=True, exclude={"trigger", "commit", "libraries", "replay"}
        )
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


# ---------------------------------------------------------------- nightly: validate, features


class ValidationFile(Artifact):
    """The checks of the pinned data.

    Attributes
    ----------
    rows
        Events that the rules read.
    great_expectations
        Result of the suite as the library gives it.
    """

    STEP: ClassVar[str] = "validate"
    FILE: ClassVar[str] = "validation"

    passed: bool
    as_of: Instant
    rows: int
    checks: tuple[DataCheck, ...]
    baseline: Baseline
    great_expectations: JsonValue

    @property
    def failed(self) -> tuple[DataCheck, ...]:
        """Checks that stop the run."""
        return tuple(check for check in self.checks if not check.passed)


class WeightsFile(RootArtifact[FeaturesConfig]):
    """Event weights that the run uses: as configured, or chosen from the data."""

    STEP: ClassVar[str] = "features"
    FILE: ClassVar[str] = "weights"


class SplitFile(Artifact):
    """The split without its frames, which lie beside it as ``truth`` and ``ratings``."""

    STEP: ClassVar[str] = "features"
    FILE: ClassVar[str] = "split"

    train: Interval
    holdout: Interval
    holdout_days: int
    task: Task
    repeat_share: float | None
    target_kinds: tuple[str, ...]
    judged: tuple[tuple[int, int], ...]
    flags: tuple[str, ...]

    @classmethod
    def of(cls, split: Split) -> Self:
        """Return what a split keeps in JSON."""
        names = set(cls.model_fields) - {"task"}
        return cls(task=split.task, **{name: getattr(split, name) for name in names})

    def split(self, truth: pl.DataFrame, ratings: pl.DataFrame | None) -> Split:
        """Rebuild the split from its frames."""
        fields = dict(self)
        return Split(task=fields.pop("task"), **fields, truth=truth, ratings=ratings)

    def comparison_key(self, k: int) -> ComparisonKey:
        """Return what figures must have in common to be compared with this run's."""
        return ComparisonKey(task=self.task, target_kinds=self.target_kinds, k=k)


class CleanFile(Artifact):
    """What cleaning did to both windows of events, and to the tables."""

    STEP: ClassVar[str] = "features"
    FILE: ClassVar[str] = "clean"

    train: CleanReport
    full: CleanReport
    items: CleanReport
    users: CleanReport

    @property
    def tables(self) -> Mapping[str, CleanReport]:
        """Reports by table; of events the training window's."""
        return {"events": self.train, "items": self.items, "users": self.users}


class TablesFile(Artifact):
    """Rows of each table that the run read."""

    STEP: ClassVar[str] = "features"
    FILE: ClassVar[str] = "tables"

    events: int
    items: int
    users: int

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows by table."""
        return dict(self)


# ---------------------------------------------------------------- nightly: train, refit


class RecipeFile(Artifact):
    """How the scorer beside it was made; in `train_step` of its recipe, and in ``refit``."""

    FILE: ClassVar[str] = "recipe"

    name: str
    recipe: AnyRecipe
    trained_on: str

    @property
    def family(self) -> str:
        """Model family, by which the scorer is loaded."""
        return self.recipe.family


class AbsentFile(Artifact):
    """Why a recipe has no scorer in this run; in place of `RecipeFile`."""

    FILE: ClassVar[str] = "absent"

    absent: str


class CostFile(Artifact):
    """What one training cost, measured; beside each scorer.

    Attributes
    ----------
    fit_seconds, fit_cpu_seconds
        Wall clock, and CPU time of all threads of the process.
    peak_mb, estimated_mb
        Growth of the process while it trained, and the estimate before it; in 2^20 bytes.
    parameters
        Learnt numbers (`Scorer.parameters`).
    examples_per_second
        Events of the window / `fit_seconds`.
    trained_on
        ``cpu`` or ``cuda``.
    """

    FILE: ClassVar[str] = "cost"
    VOLATILE: ClassVar[bool] = True

    fit_seconds: float
    fit_cpu_seconds: float
    peak_mb: float
    parameters: int
    examples_per_second: float
    estimated_mb: float
    trained_on: str

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the measured figures as metrics."""
        return {f"{prefix}{name}": float(getattr(self, name)) for name in _MEASURED}

    def text(self) -> str:
        """Return the figures in a few words."""
        return (
            f"{self.fit_seconds:,.1f} s, {self.peak_mb:,.0f} MB, {self.parameters:,} parameters, "
            f"{self.examples_per_second:,.0f} events a second"
        )


_MEASURED: Final = (
    "fit_seconds",
    "fit_cpu_seconds",
    "peak_mb",
    "parameters",
    "examples_per_second",
)


class FallbackEntry(Frozen):
    """An entry of the list for users without a history."""

    item_id: str
    score: float


class MetaFile(Artifact):
    """What the MLflow model needs beside the arrays; read by `stores.registry.pyfunc_model`."""

    STEP: ClassVar[str] = REFIT
    FILE: ClassVar[str] = "meta"

    family: str
    exclude_seen: bool
    fallback: tuple[FallbackEntry, ...]


# ---------------------------------------------------------------- nightly: evaluate, gate, accept


class RecipeEvaluation(Frozen):
    """One recipe on the holdout; its values per user lie beside it as ``users-<name>``.

    Attributes
    ----------
    fits
        Replicates that the values are the mean of.
    """

    metrics: Mapping[str, float]
    coverage: float | None
    fits: int

    def interval(self, metric: str) -> tuple[float | None, float | None, float | None]:
        """Return mean, lower and upper 95 % bound of a metric."""
        mean, lo, hi = (self.metrics.get(f"{metric}{end}") for end in ("", "_lo", "_hi"))
        return mean, lo, hi


class ReferenceRun(Frozen):
    """An accepted run whose scorer the champion's recipe was paired with."""

    run_id: str
    recipe: str
    day: str


class References(Frozen):
    """Stored scorers that the run was paired with, and why the newest was skipped."""

    last: ReferenceRun | None = None
    month: ReferenceRun | None = None
    skipped: str | None = None


class EvaluationFile(Artifact):
    """Evaluation of all trained recipes."""

    STEP: ClassVar[str] = "evaluate"
    FILE: ClassVar[str] = "evaluation"

    recipes: Mapping[str, RecipeEvaluation]
    references: References


class LiveFile(Artifact):
    """Prequential scores since the run before; absent in the first run of a workspace."""

    STEP: ClassVar[str] = "evaluate"
    FILE: ClassVar[str] = "live"

    k: int
    task: Task
    span: Interval
    events: int
    unlisted: int
    repeated: int
    rows: tuple[PrequentialFigures, ...]


class FollowedParityFile(Artifact):
    """What lists of the last promotion were worth since: folded in, and retrained."""

    STEP: ClassVar[str] = "evaluate"
    FILE: ClassVar[str] = "parity"

    run_id: str
    k: int
    folded: PrequentialFigures | None
    retrained: PrequentialFigures | None


class DecisionFile(RootArtifact[Decision]):
    """The decision; the gate's in ``gate``, the one that a person changed in ``accept``."""

    STEP: ClassVar[str] = "gate"
    FILE: ClassVar[str] = "decision"


class RoleMetrics(Frozen):
    """A metric of the best candidate, the champion's recipe and the best baseline."""

    candidate: float | None
    champion: float | None
    baseline: float | None


class MetricsFile(RootArtifact[Mapping[str, RoleMetrics]]):
    """Metrics by name, for `nightly --json`."""

    STEP: ClassVar[str] = "gate"
    FILE: ClassVar[str] = "metrics"


class OverrideFile(Artifact):
    """Who changed a decision, and why."""

    STEP: ClassVar[str] = "accept"
    FILE: ClassVar[str] = "override"

    by: str
    reason: str


# ---------------------------------------------------------------- nightly: cold_check to publish


class ColdCheckFile(Artifact):
    """Result of the cold check.

    Attributes
    ----------
    canaries
        Users whose lists a new process must reproduce.
    idle, overlap
        Users without new events, and the share of their first entries that stayed.
    fault
        Why the run publishes nothing, or None.
    """

    STEP: ClassVar[str] = "cold_check"
    FILE: ClassVar[str] = "cold"

    canaries: int
    idle: int
    overlap: float | None
    fault: str | None


class SeedNoise(Frozen):
    """Share of the first entries that another seed would change, or why it was not measured."""

    rate: float | None
    reason: str | None


class ChurnFile(Artifact):
    """What a promotion changes for users without new events, by list length."""

    STEP: ClassVar[str] = "cold_check"
    FILE: ClassVar[str] = "churn"
    VOLATILE: ClassVar[bool] = True  # whether seed noise is measured depends on the refit's seconds

    publication_id: str
    users: int
    at: Mapping[int, ChurnShares]
    seed_noise: SeedNoise

    @property
    def first(self) -> ChurnShares:
        """Shares among the first `FIRST` entries."""
        return self.at[FIRST]


class ParityFile(Artifact):
    """Overlap of fold-in and refit for users with new events, or why it was not measured."""

    STEP: ClassVar[str] = "cold_check"
    FILE: ClassVar[str] = "parity"

    users: int
    overlap: float | None
    k: int
    reason: str | None


class MlflowFile(Artifact):
    """Where the run is in MLflow; in ``register``, or in ``accept/register``."""

    STEP: ClassVar[str] = "register"
    FILE: ClassVar[str] = "mlflow"

    run: str
    version: int | None


class PinFile(Artifact):
    """Catalogue that the lists obey and when they go live, fixed once for all attempts."""

    STEP: ClassVar[str] = "publish-pin"
    FILE: ClassVar[str] = "pin"

    catalogue_version: int | None
    live_from: Instant


class PublicationFile(Artifact):
    """What publishing came to."""

    STEP: ClassVar[str] = "publish"
    FILE: ClassVar[str] = "publication"

    moved: bool
    reason: str | None
    publication_id: str | None
    generation: int | None


# ---------------------------------------------------------------- feedback


class AttributionFile(RootArtifact[Attribution | None]):
    """Attribution of the span since the run before; None without a run before."""

    STEP: ClassVar[str] = "attribution"
    FILE: ClassVar[str] = "attribution"


class DriftFile(RootArtifact[Drift]):
    """Drift in the days before the run."""

    STEP: ClassVar[str] = "drift"
    FILE: ClassVar[str] = "drift"


class PolicyFile(RootArtifact[RetrainDecision]):
    """Why the run was started, or that nothing requested it."""

    STEP: ClassVar[str] = "policy"
    FILE: ClassVar[str] = "policy"


class PatchFile(RootArtifact[Seen]):
    """What a patch of this run's lists knows; in ``foldin/<patch>``."""

    FILE: ClassVar[str] = "patch"
