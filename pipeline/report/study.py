"""What the figures of a study are made of: frozen rows, and the titles that state the finding.

Promises: nothing here is computed but who is best and how far ahead; equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.models.search import Axis
from pipeline.report.wording import change, metric_label, number
from pipeline.workspace.experiment_artifacts import StudyFile, TrialRow

_NAMED = 4
_SHOWN = 8


@dataclass(frozen=True)
class StudyRows:
    """A study that has measured its start, and the fields that it searches.

    Attributes
    ----------
    axes
        The span of each field.
    """

    file: StudyFile
    axes: Mapping[str, Axis]

    @property
    def label(self) -> str:
        """The metric as a reader knows it."""
        return metric_label(metric_name(NDCG, self.file.task.k))

    @property
    def best(self) -> float:
        """The metric of the best recipe, a new mixture included."""
        return self.file.best or 0.0

    @property
    def complete(self) -> tuple[TrialRow, ...]:
        """The trials that were measured on every window."""
        return tuple(row for row in self.file.trials if row.state == "complete")

    @property
    def start(self) -> TrialRow:
        """The recipe as it stood."""
        return next(row for row in self.complete if row.start)

    @property
    def relative(self) -> bool:
        """Whether trials can be told as changes from the start."""
        return self.start.lift is not None

    @property
    def mixed(self) -> float | None:
        """What a new mixture reaches, told like the trials; ``None`` where it brings nothing."""
        begun, most = self.start.value or 0.0, self.winner.value or 0.0
        if self.best <= most:
            return None
        return self.best / begun - 1 if self.relative else self.best

    @property
    def winner(self) -> TrialRow:
        """The best trial."""
        return max(self.complete, key=lambda row: (row.value or 0.0, -row.number))

    @property
    def importance(self) -> dict[str, float]:
        """The share of the differences that each field explains; 0 where it is not known."""
        return {name: self.file.importance.get(name, 0.0) for name in self.axes}

    @property
    def foremost(self) -> dict[str, Axis]:
        """The axes that explain most, in their own order; all of them where they are few."""
        importance = self.importance
        most = sorted(self.axes, key=lambda name: -importance[name])[:_SHOWN]
        return {name: axis for name, axis in self.axes.items() if name in most}


def history_title(study: StudyRows) -> str:
    """Say what the search has brought."""
    begun = study.start.value or 0.0
    if not study.file.candidate:
        return f"Nothing is clearly better than {study.file.name} as it stands"
    lift = f"from 0 to {study.best:.4f}"
    if begun > 0:
        lift = f"by {change(study.best / begun - 1).removeprefix('+')}"
    return f"Tuning lifts {study.label} of {study.file.name} {lift}"


def importance_title(study: StudyRows) -> str:
    """Say which field matters most."""
    name, share = max(study.importance.items(), key=lambda field: field[1])
    return f"{name} explains {100 * share:.0f} % of what trials differ in"


def coordinates_title(study: StudyRows) -> str:
    """Say where the best trial stands."""
    fields = study.winner.fields
    where = [f"{name} {number(fields[name])}" for name in study.axes if name in fields]
    best = "The start is the best trial" if study.winner is study.start else "The best trial"
    if len(study.axes) > _SHOWN:
        return f"{best}, by the {_SHOWN} of {len(study.axes)} fields that matter most"
    if len(where) > _NAMED:
        return f"{best}, and where it stands"
    return f"{best}: {', '.join(where)}"
