"""JSON files of a workspace: one frozen model per file, with the file's step and name.

`run.read(EvaluationFile)` reads one, `run.find(LiveFile)` returns None where a step wrote none,
`draft.write(EvaluationFile(...))` writes one. A file whose content is one object of a stage has
it as `root`.

Guarantees:

* The bytes follow from the content alone (`Draft.write`: keys sorted, instants by
  `format_instant`), so equal content gives equal checksums and run ids.
* A file of another shape is a `StorageError` that names the file and the field.

To add one: a class here with `step` and `file`, and `volatile` where the content is measured
(seconds, memory) and therefore differs between attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

import polars as pl
from pydantic import JsonValue, PlainSerializer, PlainValidator

from pipeline.base import Frozen, Instant, Interval
from pipeline.data.clean.treat import CleanReport
from pipeline.data.features import FeaturesConfig
from pipeline.data.split import PinnedTask, Split
from pipeline.data.targets import Task
from pipeline.data.validate.checks import DataCheck
from pipeline.data.validate.judge import Baseline
from pipeline.evaluation.gate.evidence import HitOption
from pipeline.evaluation.new_users import NewUsers
from pipeline.evaluation.prequential import PrequentialFigures
from pipeline.models.families import AnyRecipe
from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.verdicts import Drift
from pipeline.stores.json_files import Artifact, RootArtifact
from pipeline.workspace.config import Config, dump, load, short_digest, window_digest
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
"""A run's copy of the settings; `ConfigError` for a copy that another version wrote."""

Versions = Mapping[str, int | None]
"""Table -> its pinned version; None for a table that did not exist."""


# ---------------------------------------------------------------- nightly: snapshot


class Trigger(Frozen):
    """Request of a run: the policy's decision, and the drift that it is based on."""

    policy: RetrainDecision
    drift: Drift


class Known(Frozen):
    """Part of the lake that a run sees, and the reason.

    Attributes
    ----------
    by
        ``as_of``: nothing that was ingested after the as-of; ``now``: all that the lake held when
        the run began.
    """

    by: Literal["as_of", "now"]
    reason: str

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.by}: {self.reason}"


class SnapshotFile(Artifact, step="snapshot", file="snapshot"):
    """Inputs that a run pinned; `run_digest` is part of its id.

    Attributes
    ----------
    versions
        Table -> version of the lake that the run reads.
    known
        What the run sees of these versions.
    settings
        sha256 of the settings that the outcome depends on; a second start compares it.
    champion_name
        Name of the champion's recipe among `recipes`, which may differ from its old name.
    pinned, weights, seed_sds
        Results of earlier runs: see `LedgerHistory`.
    lake
        Id of the lake, which a copy of the workspace shares.
    airflow_run
        Address of the run in Airflow; None for a run that Airflow did not start.
    trigger, commit, libraries, replay
        Recorded, but not part of the run id, as are `lake` and `airflow_run`.
    """

    as_of: Instant
    versions: Versions
    known: Known
    settings: str
    config: StoredConfig
    recipes: Mapping[str, AnyRecipe]
    champion: Champion | None
    champion_name: str | None
    publish: bool
    pinned: PinnedTask
    seed_sds: Mapping[str, float]
    weights: FeaturesConfig | None
    trigger: Trigger | None
    commit: str
    libraries: Mapping[str, str]
    replay: bool
    lake: str
    airflow_run: str | None = None

    @property
    def run_digest(self) -> str:
        """First 8 hex digits of the sha256 of all fields that decide the run's outcome."""
        # The id must not change with the commit or the machine: a repeated start finds its run.
        aside = {"trigger", "commit", "libraries", "replay", "lake", "airflow_run"}
        decisive = self.model_dump(mode="json", by_alias=True, exclude=aside)
        return short_digest(decisive)


# ---------------------------------------------------------------- nightly: validate, features


class ValidationFile(Artifact, step="validate", file="validation"):
    """Checks of the pinned data.

    Attributes
    ----------
    rows
        Events that the rules read.
    great_expectations
        Result of the suite, as the library returns it.
    """

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


class WeightsFile(RootArtifact[FeaturesConfig], step="features", file="weights"):
    """Event weights that the run uses: as configured, or chosen from the data."""


class SplitFile(Artifact, step="features", file="split"):
    """The split without its frames beside it: ``truth``, ``targets`` and ``ratings``.

    Attributes
    ----------
    judged
        Holdout length in days and its number of evaluable users, for each length that was tried.
    """

    train: Interval
    holdout: Interval
    holdout_days: int
    task: Task
    repeat_share: float | None
    target_kinds: tuple[str, ...]
    judged: tuple[tuple[int, int], ...]
    flags: tuple[str, ...]
    stronger_kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, split: Split) -> Self:
        """Return a split without its frames."""
        return cls(**{name: getattr(split, name) for name in cls.model_fields})

    def split(
        self, truth: pl.DataFrame, targets: pl.DataFrame, ratings: pl.DataFrame | None
    ) -> Split:
        """Rebuild the split.

        Parameters
        ----------
        truth, targets
            `user_id`, `item_id`: the ground truth, and that of all users.
        ratings
            `user_id`, `item_id`, `value`, or None for data without ratings.
        """
        return Split(**dict(self), truth=truth, targets=targets, ratings=ratings)

    def comparison_key(self, config: Config) -> ComparisonKey:
        """Return the key that figures share if they can be compared with this run's."""
        return ComparisonKey(
            task=self.task,
            target_kinds=self.target_kinds,
            k=config.recommend.length,
            data=window_digest(config),
        )


class CleanFile(Artifact, step="features", file="clean"):
    """Reports of cleaning: events of the training and the full window, items and users."""

    train: CleanReport
    full: CleanReport
    items: CleanReport
    users: CleanReport

    @property
    def tables(self) -> Mapping[str, CleanReport]:
        """Reports by table; for events that of the training window."""
        return {"events": self.train, "items": self.items, "users": self.users}


class TablesFile(Artifact, step="features", file="tables"):
    """Rows of each table that the run read."""

    events: int
    items: int
    users: int

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows by table."""
        return dict(self)


# ---------------------------------------------------------------- nightly: train, refit


class RecipeFile(Artifact, file="recipe"):
    """Recipe of the scorer in the same folder: `train_step` of the recipe, or ``refit``.

    Attributes
    ----------
    trained_on
        ``cpu`` or ``cuda``.
    """

    name: str
    recipe: AnyRecipe
    trained_on: str


class AbsentFile(Artifact, file="absent"):
    """Reason why a recipe has no scorer in this run; in place of `RecipeFile`."""

    absent: str


class CostFile(Artifact, file="cost", volatile=True):
    """Measured cost of one training; in the folder of each scorer.

    Attributes
    ----------
    fit_seconds, fit_cpu_seconds
        Wall-clock time, and CPU time of all threads of the process.
    peak_mb, estimated_mb
        Growth of the process during training, and the estimate before it; in 2^20 bytes.
    parameters
        Number of trained parameters (`Scorer.parameters`).
    examples_per_second
        Events of the window / `fit_seconds`.
    trained_on
        ``cpu`` or ``cuda``.
    gpu_peak_mb, gpu_estimated_mb
        Memory of the GPU that the training took, and the estimate before it; in 2^20 bytes.
    gpu_cause
        Id and sentence of the reason for which the machine's GPU was not used.
    """

    fit_seconds: float
    fit_cpu_seconds: float
    peak_mb: float
    parameters: int
    examples_per_second: float
    estimated_mb: float
    trained_on: str
    gpu_peak_mb: float | None = None
    gpu_estimated_mb: float | None = None
    gpu_cause: str | None = None

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the measured figures as metrics."""
        described = {"estimated_mb", "trained_on", "gpu_estimated_mb", "gpu_cause"}
        measured = self.model_dump(exclude=described, exclude_none=True)
        return {f"{prefix}{name}": float(value) for name, value in measured.items()}

    def text(self) -> str:
        """Return the figures as one line."""
        return (
            f"{self.fit_seconds:,.1f} s, {self.peak_mb:,.0f} MB, {self.parameters:,} parameters, "
            f"{self.examples_per_second:,.0f} events a second"
        )


class FallbackEntry(Frozen):
    """An entry of the fallback list, which users without a history see."""

    item_id: str
    score: float


class MetaFile(Artifact, step=REFIT, file="meta"):
    """Settings of the MLflow model beside its arrays; read by `stores.registry.pyfunc_model`."""

    family: str
    exclude_seen: bool
    fallback: tuple[FallbackEntry, ...]


# ---------------------------------------------------------------- nightly: evaluate, gate, accept


class RecipeEvaluation(Frozen):
    """One recipe on the holdout; its values per user are in the frame ``users-<name>``.

    Attributes
    ----------
    metrics
        Means by full name (``ndcg_at_20``), their 95 % bounds under ``_lo`` and ``_hi``.
    coverage
        Share of the catalogue in any list.
    fits
        Number of replicates; the values are their means.
    new_users
        Lists from features for users without events; None if they were not compared.
    """

    metrics: Mapping[str, float]
    coverage: float | None
    fits: int
    new_users: NewUsers | None = None

    def interval(self, metric: str) -> tuple[float | None, float | None, float | None]:
        """Return mean, lower and upper 95 % bound of a metric."""
        mean, lo, hi = (self.metrics.get(f"{metric}{end}") for end in ("", "_lo", "_hi"))
        return mean, lo, hi


class ReferenceRun(Frozen):
    """An accepted run whose scorer was compared with tonight's fit of the same recipe."""

    run_id: str
    recipe: str
    day: str


class References(Frozen):
    """Stored scorers of the comparison, and the reason why the newest was skipped."""

    last: ReferenceRun | None = None
    month: ReferenceRun | None = None
    skipped: str | None = None


class AnsweredTargets(Frozen):
    """Number of target items of the holdout, and of those that answer a shown list."""

    targets: int
    answered: int


class EvaluationFile(Artifact, step="evaluate", file="evaluation"):
    """Evaluation of all trained recipes.

    Attributes
    ----------
    answers
        Targets that answer a shown list; None without a champion.
    hit_options
        Settings that give hits; empty if a recipe has one.
    """

    recipes: Mapping[str, RecipeEvaluation]
    references: References
    answers: AnsweredTargets | None = None
    hit_options: tuple[HitOption, ...] = ()


class EarlierBlockFile(Artifact, step="earlier", file="block"):
    """Evaluation of the trained recipes on a block of days before the holdout, see `catch_up`.

    Attributes
    ----------
    users
        Number of evaluated users.
    recipes
        Empty if there are too few users.
    """

    holdout: Interval
    users: int
    recipes: Mapping[str, RecipeEvaluation]


class LiveFile(Artifact, step="evaluate", file="live"):
    """Prequential scores since the run before; absent in the first run of a workspace.

    Attributes
    ----------
    events
        New target events; each is scored, `unlisted` or `repeated`.
    unlisted
        Events before the first publication.
    repeated
        Under *discovery*: events on items that the user had before the list's as-of, which no list
        contains.
    """

    k: int
    task: Task
    span: Interval
    events: int
    unlisted: int
    repeated: int
    rows: tuple[PrequentialFigures, ...]


class FollowedParityFile(Artifact, step="evaluate", file="parity"):
    """Prequential scores since the last promotion: its folded-in lists and retrained ones."""

    run_id: str
    k: int
    folded: PrequentialFigures | None
    retrained: PrequentialFigures | None
