"""What a longer search may move in a recipe: fields that it reads; of a blend, its parts'.

Promises: a field is moved within its span only, to values of two significant digits, so that a span
is a grid; what was moved is validated like any recipe. What mixes the parts of a blend is no field
here: for given parts it is chosen as a whole, see `reopened_mixture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from pipeline.models.blend import Blend
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from


@dataclass(frozen=True)
class Axis:
    """One number that a search may move.

    Attributes
    ----------
    path
        Keys that lead to it in the dumped recipe.
    low, high
        Both ends included.
    log
        Whether steps are ratios.
    whole
        Whether it is an integer.
    """

    path: tuple[str, ...]
    low: float
    high: float
    log: bool
    whole: bool

    def snap(self, value: float) -> float:
        """Return the value of the grid that is nearest."""
        near = min(max(float(f"{value:.2g}"), self.low), self.high)
        return round(near) if self.whole else near


def axes(recipe: Recipe) -> dict[str, Axis]:
    """Return what can be moved, by name; a part's field is called ``part.field``."""
    within: dict[str, tuple[tuple[str, ...], Recipe]]
    own: dict[str, Axis] = {}
    if isinstance(recipe, Blend):
        heard = {n: part for n, part in recipe.parts.items() if recipe.weights.get(n, 1.0) > 0}
        within = {name: (("parts", name), part) for name, part in heard.items()}
    else:
        fields = {field: getattr(recipe, field) for field in type(recipe).model_fields}
        within = {f: ((f,), one) for f, one in fields.items() if isinstance(one, Recipe)}
        own = {
            field: Axis((field,), span.low, span.high, span.log, _whole(recipe, field))
            for field, span in recipe.tunable.items()
        }
    return own | {
        f"{name}.{field}": replace(axis, path=(*path, *axis.path))
        for name, (path, part) in within.items()
        for field, axis in axes(part).items()
    }


def current_values(recipe: Recipe, among: Mapping[str, Axis]) -> dict[str, float]:
    """Return where a recipe stands.

    A field that is no number or lies outside its span is left out, and so is one of a part that the
    recipe does not have any more.
    """
    dumped = recipe.model_dump(mode="json")
    there = among.keys() & axes(recipe).keys()
    values = {name: _leaf(dumped, axis.path) for name, axis in among.items() if name in there}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and among[name].low <= value <= among[name].high
    }


def moved(recipe: Recipe, values: Mapping[str, float], among: Mapping[str, Axis]) -> Recipe:
    """Return the recipe with some fields at the values of the grid that are nearest to `values`."""
    dumped = recipe.model_dump(mode="json")
    for name, value in values.items():
        *way, last = among[name].path
        _leaf(dumped, way)[last] = among[name].snap(value)
    return recipe_from(dumped)


def reopened_mixture(recipe: Recipe) -> Recipe | None:
    """Return a blend whose mixture is left open again; ``None`` where nothing is mixed."""
    if not isinstance(recipe, Blend) or len(recipe.parts) < 2:
        return None
    return recipe.model_copy(update={"tune": tuple(recipe.space)})


def _whole(recipe: Recipe, field: str) -> bool:
    kind = type(recipe).model_fields[field].annotation
    return kind is int or int in get_args(kind)


def _leaf(dumped: Any, path: tuple[str, ...] | list[str]) -> Any:
    for key in path:
        dumped = dumped[key]
    return dumped
