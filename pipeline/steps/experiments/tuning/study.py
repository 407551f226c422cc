"""Conclusion of a study: its best recipe, and the candidate if that is clearly better.

Guarantees:

* The conclusion follows from the trials alone, so it can be repeated.
* Only a recipe that `models.tuning.ACCEPTANCE` accepts becomes a candidate.
* Its ledger entry is written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from pydantic import computed_field

from pipeline.base import Progress, silent
from pipeline.errors import NightjarError, StorageError
from pipeline.evaluation.trials import EarlierWindows
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from
from pipeline.models.search import current_values, moved, reopened_mixture
from pipeline.models.selection import select_hyperparameters
from pipeline.models.tuning import ACCEPTANCE
from pipeline.number_text import change
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED, Asked, Trial
from pipeline.workspace.experiment_artifacts import StudyFacts, StudyResult
from pipeline.workspace.ledger import CandidateEntry, append_entry
from pipeline.workspace.workspace import Workspace

_MIXTURE: Final = "mixture"
_MOVES: Final = 4
"""Maximum number of fields in a sentence."""


class TuningResult(StudyResult):
    """Result of a call of `tune`, the shape of `tune --json`.

    Attributes
    ----------
    trials
        Numbers of ``complete``, ``pruned`` and ``failed`` trials, over all calls.
    """

    trials: Mapping[str, int]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def candidate(self) -> bool:
        """True if a nightly run will evaluate the recipe."""
        return self.status == "candidate"

    def text(self) -> str:
        """Return the result as lines."""
        counts = ", ".join(f"{count} {state}" for state, count in self.trials.items())
        return (
            f"{self.status.replace('_', ' ')}: {self.sentence}\n"
            f"trials: {counts}\nstudy:  {self.study}"
        )


def facts_of(study: Study) -> StudyFacts:
    """Return the facts of a study."""
    return StudyFacts.model_validate(study.facts)


def recipe_of(study: Study, trial: Trial | Asked) -> Recipe:
    """Return the recipe of a trial.

    Parameters
    ----------
    trial
        A finished trial, or one that is to be measured.
    """
    start = facts_of(study).start
    return start if trial.start else moved(start, trial.values, study.axes)


def measured(study: Study) -> tuple[Trial, ...]:
    """Return the measured trials, without those that repeat another one."""
    return tuple(trial for trial in study.trials() if "same_as" not in trial.notes)


def value_of(trial: Trial) -> float:
    """Return the mean NDCG of a trial over its windows."""
    return float(np.mean(trial.notes["windows"]))


def lift_over(values: Sequence[float], start: Sequence[float]) -> float | None:
    """Return the relative lead of values over the start.

    Parameters
    ----------
    values, start
        NDCG by window, newest first; the start on all windows, the values on the first ones.

    Returns
    -------
    Sum ratio - 1 on the windows of `values`; None without values or if the start's sum is 0.
    """
    base = sum(start[: len(values)])
    return sum(values) / base - 1 if values and base > 0 else None


def conclude(
    ws: Workspace,
    study: Study,
    windows: EarlierWindows,
    progress: Progress = silent,
) -> TuningResult:
    """Conclude a study, and append the candidate to the ledger if the best recipe is ahead.

    The mixture of a blend is chosen again where its parts changed.

    Parameters
    ----------
    windows
        Measures recipes; newest first.

    Returns
    -------
    Equal studies give equal results; the entry is appended once.
    """
    trials, facts = measured(study), facts_of(study)
    result = TuningResult(
        study=study.study_id,
        as_of=facts.as_of,
        status="unfinished",
        sentence=f"the budget ended before {facts.name} itself was measured; run the same command "
        "again to resume",
        name=facts.name,
        trials={s: sum(t.state == s for t in trials) for s in (COMPLETE, PRUNED, FAILED)},
        windows=tuple(window.history.end for window in windows.windows),
    )
    done = [trial for trial in trials if trial.state == COMPLETE]
    start = next((trial for trial in done if trial.start), None)
    if start is None:
        return result
    # Pruned trials are not comparable: they were measured on fewer windows.
    best = max(done, key=lambda trial: (value_of(trial), -trial.number))
    recipe, values, moves = recipe_of(study, best), list(best.notes["windows"]), list[str]()
    if best is not start:
        mixed = _mixed(study, recipe, windows, progress)
        # A new mixture is measured like a trial, and may be worse than the old one.
        if mixed is not None and np.mean(mixed[1]) > np.mean(values):
            (recipe, values), moves = mixed, ["a new mixture"]
    before, after = value_of(start), float(np.mean(values))
    result = result.model_copy(update={"start": before, "best": after, "recipe": recipe})
    lift = change(after / before - 1 if before else np.inf)
    place = f"on {len(result.windows)} window{'' if len(result.windows) == 1 else 's'} before"
    place = f"({before:.4f} to {after:.4f}) {place} {facts.until:%Y-%m-%d}"
    if not ACCEPTANCE.accepts(values, start.notes["windows"]):
        sentence = (
            f"no recipe is clearly better than {facts.name}: the best of {len(trials)} trials "
            f"changes NDCG by {lift} {place}; needed: {ACCEPTANCE}"
        )
        return result.model_copy(update={"status": "nothing_better", "sentence": sentence})
    moves = [*_moves(study, recipe), *moves]
    sentence = (
        f"{facts.name} with {', '.join(moves)} changes NDCG by {lift} {place}; "
        "the next nightly run evaluates it as a candidate"
    )
    result = result.model_copy(update={"status": "candidate", "sentence": sentence})
    # The key has the recipe's hash: a resumed search may append a better candidate.
    append_entry(ws.ledger, candidate_entry(result))
    return result


def candidate_entry(result: StudyResult) -> CandidateEntry:
    """Return the ledger entry of a study with the status ``candidate``."""
    recipe = result.recipe
    if recipe is None or result.start is None or result.best is None:
        raise StorageError(
            "study.no_result", f"study {result.study} has no result; run `nightjar tune`"
        )
    return CandidateEntry(
        key=f"candidate:{result.study}:{recipe.hash}",
        name=result.name,
        recipe=recipe,
        as_of=result.as_of,
        study=result.study,
        sentence=result.sentence,
        start=result.start,
        value=result.best,
    )


def _mixed(
    study: Study, recipe: Recipe, windows: EarlierWindows, progress: Progress
) -> tuple[Recipe, list[float]] | None:
    """Choose the mixture of a blend for its changed parts; the study keeps the first choice."""
    opened = reopened_mixture(recipe)
    if opened is None:
        return None
    kept = study.noted(_MIXTURE)
    # Kept by recipe: a resumed search may have found better parts.
    if kept is None or kept["of"] != recipe.hash:
        progress("mixture: selecting it for the best parts")
        try:
            mixed = select_hyperparameters(opened, windows, progress)
            values = []
            for at in range(len(windows.windows)):
                values.append(windows.value(mixed, at))
                windows.release(mixed)
        except NightjarError as error:
            progress(f"mixture: unchanged: {error.sentence}")
            return None
        kept = {"of": recipe.hash, "recipe": mixed.model_dump(mode="json"), "windows": values}
        study.note(_MIXTURE, kept)
    return recipe_from(kept["recipe"]), list(kept["windows"])


def _moves(study: Study, recipe: Recipe) -> list[str]:
    """Write the fields that differ from the start: at most `_MOVES`, and the number of others."""
    start = current_values(facts_of(study).start, study.axes)
    moves = [
        f"{field} {start[field]:g} → {value:g}" if field in start else f"{field} {value:g}"
        for field, value in current_values(recipe, study.axes).items()
        if start.get(field) != value
    ]
    more = len(moves) - _MOVES
    return [*moves[:_MOVES], *([f"{more} more"] if more > 0 else [])]
