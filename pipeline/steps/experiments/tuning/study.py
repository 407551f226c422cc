"""What a study has found so far, and whether that is a candidate.

Promises: all of it follows from what the study's trials were told, so it can be concluded again;
only a recipe that is clearly better than the one the search began with, on most windows, becomes a
candidate; its ledger line is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from pydantic import computed_field

from pipeline.base import Instant, Progress, silent
from pipeline.errors import NightjarError
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import Window
from pipeline.models.contract import Recipe
from pipeline.models.families import AnyRecipe, recipe_from
from pipeline.models.search import current_values, moved, reopened_mixture
from pipeline.models.selection import select_hyperparameters
from pipeline.report.wording import change
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED, Asked, Trial
from pipeline.workspace.experiment_artifacts import StudyFacts
from pipeline.workspace.ledger import CandidateEntry, append_entry
from pipeline.workspace.workspace import Workspace

Measure = Callable[[str, Recipe, Window], float]
"""Trains a recipe, under a name, on a window, and returns what its lists are worth there."""

CLEAR: Final = 0.01
"""Share by which the best of many must be ahead: being the best of many is luck in part."""
_MIXTURE: Final = "mixture"
_MOVES: Final = 4
"""Fields that a sentence names."""


@dataclass(frozen=True)
class TuningResult:
    """Result of a call of `tune`, the shape of `tune --json`.

    Attributes
    ----------
    status
        ``candidate``; ``nothing_better``; ``unfinished``: not even the start was measured.
    name, start
        The recipe that the search began with, and its mean NDCG on the windows.
    best, recipe
        The best that was found, which may be the start.
    trials
        How many were ``complete``, ``pruned`` and ``failed``, over all calls.
    windows
        Where the windows' truth begins, newest first.
    """

    study: str
    as_of: Instant
    status: str
    sentence: str
    name: str
    trials: Mapping[str, int]
    windows: tuple[Instant, ...]
    start: float | None = None
    best: float | None = None
    recipe: AnyRecipe | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def candidate(self) -> bool:
        """Whether a nightly run will evaluate it."""
        return self.status == "candidate"

    def text(self) -> str:
        """Return the result as lines."""
        counts = ", ".join(f"{count} {state}" for state, count in self.trials.items())
        return (
            f"{self.status.replace('_', ' ')}: {self.sentence}\n"
            f"trials: {counts}\nstudy:  {self.study}"
        )


def facts_of(study: Study) -> StudyFacts:
    """Return what a study was begun with."""
    return StudyFacts.model_validate(study.facts)


def recipe_of(study: Study, trial: Trial | Asked) -> Recipe:
    """Return what a trial measured, or is to measure."""
    start = facts_of(study).start
    return start if trial.start else moved(start, trial.values, study.axes)


def measured(study: Study) -> tuple[Trial, ...]:
    """Return the trials that were measured: not those that repeated another one."""
    return tuple(trial for trial in study.trials() if "same_as" not in trial.notes)


def value_of(trial: Trial) -> float:
    """Return the mean of what a trial's recipe was worth on the windows it was measured on."""
    return float(np.mean(trial.notes["windows"]))


def lift_over(values: Sequence[float], start: Sequence[float]) -> float | None:
    """Return how far values lie above the start's on the same windows; ``None`` if those are 0."""
    base = sum(start[: len(values)])
    return sum(values) / base - 1 if values and base > 0 else None


def conclude(
    ws: Workspace,
    study: Study,
    windows: Sequence[Window],
    measure: Measure,
    progress: Progress = silent,
) -> TuningResult:
    """Say what was found; a recipe that is clearly better becomes a line of the ledger.

    Of a blend whose parts were moved, the mixture is chosen anew first.
    """
    trials, facts = measured(study), facts_of(study)
    result = TuningResult(
        study=study.study_id,
        as_of=facts.as_of,
        status="unfinished",
        sentence=f"the budget was over before {facts.name} itself was measured; run the same "
        "command again to go on",
        name=facts.name,
        trials={s: sum(t.state == s for t in trials) for s in (COMPLETE, PRUNED, FAILED)},
        windows=tuple(window.history.end for window in windows),
    )
    done = [trial for trial in trials if trial.state == COMPLETE]
    start = next((trial for trial in done if trial.start), None)
    if start is None:
        return result
    best = max(done, key=lambda trial: (value_of(trial), -trial.number))
    recipe, values, mixed = recipe_of(study, best), list(best.notes["windows"]), False
    if best is not start:
        pools = EarlierWindows(windows, facts.task.k, progress)
        again = _mixed(study, recipe, pools, measure, progress)
        if again is not None and np.mean(again[1]) > np.mean(values):
            (recipe, values), mixed = again, True
    result = replace(result, start=value_of(start), best=float(np.mean(values)), recipe=recipe)
    if not ahead(values, start.notes["windows"]):
        sentence = _none_sentence(result, facts.until)
        return replace(result, status="nothing_better", sentence=sentence)
    moves = [*_moves(study, recipe), *(["a new mixture"] if mixed else [])]
    sentence = _sentence(result, facts.until, moves)
    entry = CandidateEntry(
        key=f"candidate:{study.study_id}:{recipe.hash}",
        name=facts.name,
        recipe=recipe,
        as_of=facts.as_of,
        study=study.study_id,
        sentence=sentence,
        start=value_of(start),
        value=float(np.mean(values)),
    )
    append_entry(ws.ledger, entry)
    return replace(result, status="candidate", sentence=sentence)


def _mixed(
    study: Study, recipe: Recipe, pools: EarlierWindows, measure: Measure, progress: Progress
) -> tuple[Recipe, list[float]] | None:
    """Choose the mixture of a blend for its new parts; what was chosen once is remembered."""
    opened = reopened_mixture(recipe)
    if opened is None:
        return None
    kept = study.noted(_MIXTURE)
    if kept is None or kept["of"] != recipe.hash:
        progress("mixture: chosen anew for the best parts")
        try:
            mixed = select_hyperparameters(opened, pools, progress)
            values = [measure("the new mixture", mixed, window) for window in pools.windows]
        except NightjarError as error:
            progress(f"mixture: stays as it was: {error.sentence}")
            return None
        kept = {"of": recipe.hash, "recipe": mixed.model_dump(mode="json"), "windows": values}
        study.note(_MIXTURE, kept)
    return recipe_from(kept["recipe"]), list(kept["windows"])


def ahead(values: Sequence[float], start: Sequence[float]) -> bool:
    """Return whether values are clearly better than the start's, and so on most of the windows."""
    wins = sum(value > other for value, other in zip(values, start, strict=True))
    return float(np.mean(values)) > float(np.mean(start)) * (1 + CLEAR) and wins * 2 > len(values)


def _moves(study: Study, recipe: Recipe) -> list[str]:
    """Say what is different from where the search began."""
    start = facts_of(study).start
    was, now = current_values(start, study.axes), current_values(recipe, study.axes)
    moves = [
        f"{field} {was[field]:g} → {value:g}" if field in was else f"{field} {value:g}"
        for field, value in now.items()
        if was.get(field) != value
    ]
    more = len(moves) - _MOVES
    return moves if more < 2 else [*moves[:_MOVES], f"{more} more fields"]


def _on(result: TuningResult, until: datetime) -> str:
    count = len(result.windows)
    return f"on {count} window{'' if count == 1 else 's'} before {until:%Y-%m-%d}"


def _lift(result: TuningResult) -> float:
    return (result.best or 0.0) / result.start - 1 if result.start else float("inf")


def _sentence(result: TuningResult, until: datetime, moves: Sequence[str]) -> str:
    lift = (
        f"is {change(_lift(result)).removeprefix('+')} better" if result.start else "is no more 0"
    )
    return (
        f"{result.name} {lift} {_on(result, until)} with {_listed(moves)}; "
        f"the next night judges it as a candidate"
    )


def _listed(moves: Sequence[str]) -> str:
    *most, last = moves
    return f"{', '.join(most)} and {last}" if most else last


def _none_sentence(result: TuningResult, until: datetime) -> str:
    best = f"it is the best of {sum(result.trials.values())} trials itself"
    if result.best != result.start:
        needed = change(CLEAR).removeprefix("+")
        best = f"the best trial is ahead by {change(_lift(result))}, {needed} is asked for"
    return f"nothing is clearly better than {result.name} {_on(result, until)}: {best}"
