"""Hyperparameters that a longer search may change: those a recipe reads, and those of its parts.

Guarantees: a field is changed within its span only, to values of two significant digits, so that a
span is a grid; a changed recipe is validated like any other. The mixture of a blend is not part of
the search: for given parts it is selected as a whole, see `reopened_mixture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from typing import Any, get_args

from pipeline.models.blend import Blend
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from


@dataclass(frozen=True)
class Axis:
    """One number that a search may change.

    Attributes
    ----------
    path
        Keys that lead to it in the dumped recipe.
    low, high
        Range, both ends included.
    log
        Steps are ratios, not differences.
    whole
        It is an integer.
    """

    path: tuple[str, ...]
    low: float
    high: float
    log: bool
    whole: bool

    def snap(self, value: float) -> float:
        """Return the nearest value of the grid."""
        near = min(max(float(f"{value:.2g}"), self.low), self.high)
        return round(near) if self.whole else near


def axes(recipe: Recipe) -> dict[str, Axis]:
    """Return the hyperparameters that a search may change, by name.

    A field of a recipe inside another one is named ``part.field``. A blend has only the fields of
    its parts.
    """
    blend = recipe if isinstance(recipe, Blend) else None
    named: dict[str, Axis] = {}
    for field, span in ({} if blend else recipe.tunable).items():
        kind = type(recipe).model_fields[field].annotation
        whole = kind is int or int in get_args(kind)
        named[field] = Axis((field,), span.low, span.high, span.log, whole)
    for path, part in recipe.inner_recipes.items():
        # A part of weight 0 is not trained, so moving its fields would change nothing.
        if blend is None or blend.weight(path[-1]) > 0:
            for field, axis in axes(part).items():
                named[f"{path[-1]}.{field}"] = replace(axis, path=(*path, *axis.path))
    return named


def current_values(recipe: Recipe, among: Mapping[str, Axis]) -> dict[str, float]:
    """Return the values of a recipe on some axes.

    Parameters
    ----------
    recipe
        The recipe.
    among
        Axes by name. Fields that are not numbers, lie outside their span, or belong to a part that
        the recipe does not have any more are left out.
    """
    dumped: Any = recipe.model_dump(mode="json")
    present = axes(recipe)
    return {
        name: value
        for name, axis in among.items()
        if name in present
        and isinstance(value := reduce(getitem, axis.path, dumped), int | float)
        and axis.low <= value <= axis.high
    }


def moved(recipe: Recipe, values: Mapping[str, float], among: Mapping[str, Axis]) -> Recipe:
    """Return the recipe with some fields changed.

    Parameters
    ----------
    recipe
        The recipe.
    values
        New values by name of the axis; the nearest values of the grid are taken.
    among
        Axes by name.
    """
    dumped: Any = recipe.model_dump(mode="json")
    for name, value in values.items():
        *way, last = among[name].path
        reduce(getitem, way, dumped)[last] = among[name].snap(value)
    return recipe_from(dumped)  # validates, unlike `model_copy`


def reopened_mixture(recipe: Recipe) -> Recipe | None:
    """Return a blend whose mixture is to be selected again; ``None`` without a mixture."""
    if not isinstance(recipe, Blend) or len(recipe.parts) < 2:
        return None
    return recipe.model_copy(update={"tune": tuple(recipe.space)})
