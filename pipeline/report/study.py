"""View of a study for its figures, and their titles.

Guarantees: nothing is computed here but the best trial and its lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.models.search import Axis
from pipeline.number_text import change, share
from pipeline.report.wording import metric_label, number
from pipeline.workspace.experiment_artifacts import StudyFile, TrialRow

_NAMED = 4
_SHOWN = 8


@dataclass(frozen=True)
class StudyRows:
    """A study with at least the start measured on all windows.

    Attributes
    ----------
    axes
        Span of each searched field.
    """

    file: StudyFile
    axes: Mapping[str, Axis]

    @property
    def label(self) -> str:
        """Label of the metric, such as ``NDCG@20``."""
        return metric_label(metric_name(NDCG, self.file.task.k))

    @property
    def best(self) -> float:
        """Metric of the best recipe, including a reopened mixture."""
        return self.file.best or 0.0

    @property
    def complete(self) -> tuple[TrialRow, ...]:
        """Trials that were measured on all windows."""
        return tuple(row for row in self.file.trials if row.state == "complete")

    @property
    def start(self) -> TrialRow:
        """Trial of the recipe that the study began with."""
        return next(row for row in self.complete if row.start)

    @property
    def relative(self) -> bool:
        """True if lifts over the start exist, that is, its metric is above 0."""
        return self.start.lift is not None

    @property
    def mixed(self) -> float | None:
        """Lift (or value) of the reopened mixture; None if it is not better than the best trial."""
        # The mixture is searched after the trials and is not one of them.
        begun, most = self.start.value or 0.0, self.winner.value or 0.0
        if self.best <= most:
            return None
        return self.best / begun - 1 if self.relative else self.best

    @property
    def winner(self) -> TrialRow:
        """Best trial; of equal ones the first."""
        return max(self.complete, key=lambda row: (row.value or 0.0, -row.number))

    @property
    def importance(self) -> dict[str, float]:
        """Share of the variance between trials that each field explains; 0 if not measured."""
        return {name: self.file.importance.get(name, 0.0) for name in self.axes}

    @property
    def foremost(self) -> dict[str, Axis]:
        """Up to `_SHOWN` axes with the highest importance, in their own order."""
        importance = self.importance
        most = sorted(self.axes, key=lambda name: -importance[name])[:_SHOWN]
        return {name: axis for name, axis in self.axes.items() if name in most}


def history_title(study: StudyRows) -> str:
    """State the gain over the start."""
    begun = study.start.value or 0.0
    if not study.file.candidate:
        return f"No trial is clearly better than {study.file.name} before tuning"
    lift = f"from 0 to {study.best:.4f}"
    if begun > 0:
        lift = f"by {change(study.best / begun - 1).removeprefix('+')}"
    return f"Tuning lifts {study.label} of {study.file.name} {lift}"


def importance_title(study: StudyRows) -> str:
    """State the most important field."""
    name, part = max(study.importance.items(), key=lambda field: field[1])
    return f"{name} explains {share(part)} of the variance between trials"


def coordinates_title(study: StudyRows) -> str:
    """State the fields of the best trial."""
    fields = study.winner.fields
    where = [f"{name} {number(fields[name])}" for name in study.axes if name in fields]
    best = "The start is the best trial" if study.winner is study.start else "The best trial"
    if len(study.axes) > _SHOWN:
        return f"{best}: the {_SHOWN} most important of {len(study.axes)} fields"
    if len(where) > _NAMED:
        return f"{best} and its fields"
    return f"{best}: {', '.join(where)}"
