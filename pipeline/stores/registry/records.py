"""What the registry is told about a night or a study: plain data, frozen, without a word of MLflow.

Promises: nothing here is computed; equal records give an equal mirror.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

DECISION_TAG = "nightjar.decision"


@dataclass(frozen=True)
class DatasetRecord:
    """A table as the night read it.

    Attributes
    ----------
    name
        Table of the lake, such as ``events``.
    lake_version
        Version of that table.
    digest
        What tells two contents apart; up to 36 characters are kept.
    rows
        Rows that the night saw.
    context
        What they were for: ``training``, ``catalogue``.
    """

    name: str
    lake_version: int
    digest: str
    rows: int
    context: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run of MLflow shows.

    Attributes
    ----------
    artifacts
        Path in MLflow, with slashes, such as ``figures/slices.png`` → local file.
    """

    params: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChildRecord(RunRecord):
    """One recipe of the night: the metrics have the same names for every recipe of every night.

    Attributes
    ----------
    recipe
        Its name, one of a kind within the night; of a study, the name of a trial.
    series
        Metrics that have a value a step, at steps 1, 2, ...
    failure
        The sentence of a recipe that could not be trained; its run is marked as failed.
    """

    recipe: str
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failure: str | None = None

    @property
    def status(self) -> str:
        """MLflow's status of the run once it has ended."""
        return "FAILED" if self.failure else "FINISHED"


@dataclass(frozen=True)
class ModelRecord:
    """The refit of the winning recipe, as files that a fresh process can load.

    Attributes
    ----------
    files
        Local files, kept under their own names: ``scorer.npz``, ``history.npz``, ``meta.json``
        (see `pyfunc_model`).
    description
        The decision in one sentence.
    tags
        Tags of the version: as-of, snapshot, recipe, git commit, decision.
    """

    files: tuple[Path, ...]
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ParentRecord(RunRecord):
    """A night or a study: a parent run with children.

    Attributes
    ----------
    MARK
        `RECIPE_TAG` of the parent run; no recipe has brackets in its name.
    run_id
        Nightjar's own; by it the night or study is found again.
    as_of
        Its instant in UTC; it stamps every metric.
    """

    MARK: ClassVar[str]
    run_id: str
    as_of: datetime
    sentence: str
    children: tuple[ChildRecord, ...]
    datasets: tuple[DatasetRecord, ...] = ()

    @property
    def title(self) -> str:
        """Name of the parent run."""
        return self.run_id

    @property
    def note(self) -> str:
        """Description of the parent run."""
        return self.sentence

    def note_of(self, child: ChildRecord) -> str | None:
        """Return the description of a child's run."""
        return child.failure


@dataclass(frozen=True, kw_only=True)
class NightRecord(ParentRecord):
    """Everything about one night that MLflow is to show.

    Attributes
    ----------
    why
        What the policy said of a retrain, in a sentence; stands below `sentence`.
    winner
        Name of the recipe that `model` belongs to, or ``None`` if the night made no version.
    """

    MARK = "(night)"
    why: str = ""
    winner: str | None = None
    model: ModelRecord | None = None

    def __post_init__(self) -> None:
        names = [child.recipe for child in self.children]
        if len(set(names)) < len(names):
            raise ValueError(f"two recipes of one night share a name: {sorted(names)}")
        if (self.winner is None) != (self.model is None):
            raise ValueError("a winner needs a model, and a model a winner")
        if self.winner is not None and self.winner not in names:
            raise ValueError(f"the winner {self.winner!r} is none of {names}")

    @property
    def title(self) -> str:
        """The day, and the decision."""
        return f"{self.as_of:%Y-%m-%d} {self.tags.get(DECISION_TAG, '')}".rstrip()

    @property
    def note(self) -> str:
        """The decision, and below it the policy's reason for the run."""
        return f"{self.sentence}\n\n{self.why}".rstrip()

    def note_of(self, child: ChildRecord) -> str | None:
        """Return a failure, or of the winner the decision."""
        return child.failure or (self.sentence if child.recipe == self.winner else None)


class StudyRecord(ParentRecord):
    """Everything about one study that MLflow is to show; it may be told again when it has grown.

    Its children are its trials; one that was shown stays as it is. Its params are what stays the
    same as the study goes on.
    """

    MARK = "(study)"


@dataclass(frozen=True)
class Mirrored:
    """Where the night is now.

    Attributes
    ----------
    parent_run_id
        MLflow's own id.
    version
        Number of the registered version, or ``None`` if the night made none.
    """

    parent_run_id: str
    version: int | None
