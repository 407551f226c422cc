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
class AxisRow:
    """A field that was searched, its span, and what share of the differences it explains."""

    name: str
    low: float
    high: float
    log: bool
    importance: float | None = None


@dataclass(frozen=True)
class StudyRows:
    """A study.

    Attributes
    ----------
    name
        The recipe it began with.
    candidate
        Whether something clearly better was found.
    best
        The metric of the best recipe, a new mixture included.
    """

    name: str
    metric: str
    candidate: bool
    best: float
    axes: tuple[AxisRow, ...]
    trials: tuple[TrialRow, ...]

    @classmethod
    def of(cls, study: StudyFile, axes: Mapping[str, Axis]) -> StudyRows:
        """Return the rows of a study that has measured its start."""
        return cls(
            name=study.name,
            metric=metric_name(NDCG, study.task.k),
            candidate=study.candidate,
            best=study.best or 0.0,
            axes=tuple(
                AxisRow(name, axis.low, axis.high, axis.log, study.importance.get(name))
                for name, axis in axes.items()
            ),
            trials=study.trials,
        )

    @property
    def complete(self) -> tuple[TrialRow, ...]:
        """The trials that were measured on every window."""
        return tuple(row for row in self.trials if row.state == "complete")

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
    def foremost(self) -> tuple[AxisRow, ...]:
        """The axes that explain most, in their own order; all of them where they are few."""
        most = sorted(self.axes, key=lambda axis: -(axis.importance or 0.0))[:_SHOWN]
        return tuple(axis for axis in self.axes if axis in most)

    @property
    def winner(self) -> TrialRow:
        """The best trial."""
        return max(self.complete, key=lambda row: (row.value or 0.0, -row.number))


def history_title(study: StudyRows) -> str:
    """Say what the search has brought."""
    begun = study.start.value or 0.0
    label = metric_label(study.metric)
    if not study.candidate:
        return f"Nothing is clearly better than {study.name} as it stands"
    if begun <= 0:
        return f"Tuning lifts {label} of {study.name} from 0 to {study.best:.4f}"
    lift = change(study.best / begun - 1).removeprefix("+")
    return f"Tuning lifts {label} of {study.name} by {lift}"


def importance_title(study: StudyRows) -> str:
    """Say which field matters most."""
    most = max(study.axes, key=lambda axis: axis.importance or 0.0)
    share = f"{100 * (most.importance or 0.0):.0f} %"
    return f"{most.name} explains {share} of what trials differ in"


def coordinates_title(study: StudyRows) -> str:
    """Say where the best trial stands."""
    fields = study.winner.fields
    where = [
        f"{axis.name} {number(fields[axis.name])}" for axis in study.axes if axis.name in fields
    ]
    best = "The start is the best trial" if study.winner is study.start else "The best trial"
    if len(study.axes) > _SHOWN:
        return f"{best}, by the {_SHOWN} of {len(study.axes)} fields that matter most"
    if len(where) > _NAMED:
        return f"{best}, and where it stands"
    return f"{best}: {', '.join(where)}"
