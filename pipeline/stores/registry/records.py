"""Input of the registry: plain, frozen data about a nightly run or a study, without MLflow types.

Guarantees: equal records produce equal mirrors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

DECISION_TAG = "nightjar.decision"
AIRFLOW_TAG = "nightjar.airflow_run"
EVALUATION = "evaluation"
"""Context of the dataset to which the metrics of a model are tied."""
FILES_REMOVED_TAG = "nightjar.files_removed"


@dataclass(frozen=True)
class DatasetRecord:
    """A table of the lake as a run read it.

    Attributes
    ----------
    name
        Table of the lake, such as ``events``.
    lake_version
        Version of that table.
    digest
        Name of this content; MLflow keeps up to 36 characters.
    rows
        Number of rows that the run read.
    context
        Use of the rows: ``training``, ``catalogue``, `EVALUATION`.
    """

    name: str
    lake_version: int
    digest: str
    rows: int
    context: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of a run in MLflow.

    Attributes
    ----------
    artifacts
        Local file, or content, by path in MLflow, such as ``figures/slices.png``.
    """

    # MLflow rejects a param whose value changes, so these are values that no retry changes.
    params: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path | bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ChildRecord(RunRecord):
    """One recipe of a nightly run, or one trial of a study.

    Attributes
    ----------
    recipe
        Name of the recipe or trial, unique among its siblings.
    series
        Metrics with one value per step, at steps 1, 2, ...
    failure
        Message of a recipe that could not be trained; its run is marked as failed.
    """

    recipe: str
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failure: str | None = None

    @property
    def status(self) -> str:
        """MLflow's final status of the run."""
        # A recipe that could not be trained is visible in MLflow too, beside those that were.
        return "FAILED" if self.failure else "FINISHED"


@dataclass(frozen=True)
class ModelRecord:
    """The refit of the winning recipe, as files that a new process can load.

    Attributes
    ----------
    files
        Local files that `pyfunc_model` names; empty if
        they were removed.
    figure
        Lifts of the version; its description begins with them.
    description
        The decision in one sentence.
    pages
        Pages among the artifacts of the version's run, to which the description links: name ->
        path.
    """

    files: tuple[Path, ...]
    figure: str
    description: str
    pages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ParentRecord(RunRecord):
    """A parent run with children.

    Attributes
    ----------
    MARK
        Value of `RECIPE_TAG` of the parent run; names of recipes have no brackets.
    run_id
        Nightjar's id; the runs are found again by it.
    as_of
        In UTC; timestamp of all metrics.
    sentence
        Description of the parent run.
    began, ended
        Start and end of all its runs; None for the time of the upload.
    """

    MARK: ClassVar[str]
    run_id: str
    as_of: datetime
    sentence: str
    children: tuple[ChildRecord, ...]
    datasets: tuple[DatasetRecord, ...] = ()
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def title(self) -> str:
        """Name of the parent run."""
        return self.run_id

    @property
    def note(self) -> str:
        """Description of the parent run."""
        return self.sentence

    def title_of(self, child: ChildRecord) -> str:
        """Return the name of a child's run."""
        return f"{self.as_of:%Y-%m-%d} {child.recipe}"

    def note_of(self, child: ChildRecord) -> str | None:
        """Return the description of a child's run; None for none."""
        return child.failure


@dataclass(frozen=True, kw_only=True)
class NightRecord(ParentRecord):
    """A nightly run.

    Attributes
    ----------
    figure
        Lift over the version before in the run's name, such as ``+4.9 %``; empty without one.
    why
        The policy's decision, in a sentence; shown below `sentence`.
    winner
        Recipe of `model`; None if the run creates no version.
    version
        Number of the version in the ledger; None for a version that is new.
    taken
        Numbers of the versions of other runs; MLflow must not give one of them to `model`.
    """

    MARK = "(night)"
    figure: str = ""
    why: str = ""
    winner: str | None = None
    model: ModelRecord | None = None
    version: int | None = None
    taken: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        names = [child.recipe for child in self.children]
        # Child runs are found again by this name, so two equal ones would be mirrored into one run.
        if len(set(names)) < len(names):
            raise ValueError(f"children must have different names: {sorted(names)}")
        # The version belongs to the winner's child run: one without the other has no place.
        if (self.winner is None) != (self.model is None):
            raise ValueError("winner and model must be given together")
        if self.winner is not None and self.winner not in names:
            raise ValueError(f"winner {self.winner!r} is not one of {names}")

    def accepts(self, number: int) -> bool:
        """Return whether MLflow may call the version by this number.

        It must be that of the ledger, or a later one that no other run has.
        """
        later = number > (self.version or 0) and number not in self.taken
        return number == self.version or later

    @property
    def title(self) -> str:
        """The day, the decision, and the figure."""
        parts = (f"{self.as_of:%Y-%m-%d}", self.tags.get(DECISION_TAG, ""), self.figure)
        return " ".join(part for part in parts if part)

    @property
    def note(self) -> str:
        """The decision, that of the policy, and the link to Airflow."""
        return self._paragraphs(self.sentence, self.why)

    def title_of(self, child: ChildRecord) -> str:
        """Return the day and the recipe; the winner's run is named like the night."""
        day_and_recipe = super().title_of(child)
        return f"{self.title} ({child.recipe})" if child.recipe == self.winner else day_and_recipe

    def note_of(self, child: ChildRecord) -> str | None:
        """Return the failure of a recipe, or the decision for the winner."""
        own = self._paragraphs(self.sentence) if child.recipe == self.winner else None
        return child.failure or own

    def _paragraphs(self, *texts: str) -> str:
        airflow = self.tags.get(AIRFLOW_TAG)
        link = "" if airflow is None else f"[The run in Airflow]({airflow})"
        return "\n\n".join(text for text in (*texts, link) if text)


class StudyRecord(ParentRecord):
    """A study; it may be mirrored again once it has grown.

    The children are its trials; mirrored ones stay as they are. MLflow does not allow changed
    params, so `params` contains only values that stay the same while the study grows.
    """

    MARK = "(study)"


@dataclass(frozen=True)
class Mirrored:
    """A mirrored nightly run.

    Attributes
    ----------
    parent_run_id
        MLflow's id of the parent run.
    version
        Number of the registered version; None if the run created none.
    children
        Number of child runs.
    """

    parent_run_id: str
    version: int | None
    children: int
