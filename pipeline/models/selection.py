"""Selects the hyperparameters that a recipe leaves open, by trials on windows before the holdout.

Guarantees: the recipe returned leaves nothing open; a family with its own way of selecting
registers it in its own module.
"""

from __future__ import annotations

from functools import singledispatch
from typing import TypeVar

from pipeline.base import Progress, silent
from pipeline.models.contract import Recipe, Span
from pipeline.models.tuning import Trials

R = TypeVar("R", bound=Recipe)


@singledispatch
def select_hyperparameters(recipe: Recipe, trials: Trials, progress: Progress = silent) -> Recipe:
    """Select the hyperparameters that a recipe leaves open, by the rule of its family.

    Parameters
    ----------
    recipe
        The recipe; by default its fields of `tune` are selected in that order.
    trials
        Measures recipes on windows before the holdout.
    progress
        Receives one line per trial.
    """
    return select_in_order(recipe, trials, progress)


def select_in_order(recipe: R, trials: Trials, progress: Progress) -> R:
    """Select the fields of `recipe.tune`, in that order, by rough fits; see `coordinate_search`.

    Parameters
    ----------
    recipe, trials, progress
        As in `select_hyperparameters`.
    """
    best = rough(recipe)
    for field in recipe.tune:
        best = coordinate_search(best, field, recipe.space[field], trials, progress)
    selected = {field: getattr(best, field) for field in recipe.tune}
    return recipe.model_copy(update={"tune": (), **selected})


def rough(recipe: R) -> R:
    """Return a recipe whose fits cost less and rank values alike, without open fields."""
    limits = {
        field: min(getattr(recipe, field), most)
        for field, most in recipe.rough.items()
        if field not in recipe.tune
    }
    return recipe.model_copy(update={"tune": (), **limits})


def coordinate_search(recipe: R, field: str, span: Span, trials: Trials, progress: Progress) -> R:
    """Move one field along the values of its span, upwards or else downwards, while that is better.

    Parameters
    ----------
    recipe
        First recipe; a field that is ``None`` starts below all values.
    field, span
        Name of the field, and its values.
    trials, progress
        As in `select_hyperparameters`.
    """
    start = getattr(recipe, field)
    above = [value for value in span.grid if start is None or value > start]
    below = [value for value in reversed(span.grid) if start is not None and value < start]
    best = recipe
    for way in (above, below):
        for value in way:
            progress(f"{field} {value:g}")
            # `model_copy` would skip the validation of the value.
            trial = type(best).model_validate(best.model_dump() | {field: value})
            if not trials.better(trial, best):
                break
            best = trial
        if best is not recipe:
            break
    return best
