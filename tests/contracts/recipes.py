"""One recipe of each model family, and the marks that run a test for those that it is about."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipeline.models import families
from pipeline.models.als import Als
from pipeline.models.biased_mf import BiasedMf
from pipeline.models.bpr import Bpr
from pipeline.models.contract import Recipe
from pipeline.models.ease import Ease
from pipeline.models.item_knn import ItemKnn
from pipeline.models.lightfm import LightFm
from pipeline.models.repeat_purchase.recipe import RepeatPurchase
from pipeline.models.ridge import Ridge
from pipeline.models.rp3beta import Rp3Beta
from pipeline.models.svd import Svd

RECIPES: dict[str, Recipe] = {
    **families.default_recipes(),
    "als": Als(factors=8, regularization=0.1, iterations=15, device="cpu"),
    "repeat_purchase": RepeatPurchase(block_days=30, iterations=5),
    "item_knn": ItemKnn(),
    "ease": Ease(regularization=3.0),
    "rp3beta": Rp3Beta(),
    "svd": Svd(factors=4, oversampling=2),
    "bpr": Bpr(factors=8, iterations=300, learning_rate=0.1),
    "biased_mf": BiasedMf(factors=4, regularization=1.0),
    "ridge": Ridge(
        factors_of=Als(factors=8, regularization=0.1, iterations=15, device="cpu"), min_users=3
    ),
    "lightfm": LightFm(factors=8, iterations=40, learning_rate=0.1),
    "blend": families.recipe_from(
        {
            "family": "blend",
            "parts": {
                "als": {
                    "family": "als",
                    "factors": 8,
                    "regularization": 0.1,
                    "iterations": 15,
                    "device": "cpu",
                },
                "svd": {"family": "svd", "factors": 4, "oversampling": 2},
                "rp3beta": {"family": "rp3beta"},
                "own": {"family": "personal_frequency"},
            },
            "recency_boost": 0.25,
        }
    ),
}
GENERALISES = {"als", "svd", "bpr", "item_knn", "ease", "rp3beta", "ridge", "lightfm", "blend"}
"""Families that find the one item that all who are alike have, where all are equally popular."""


def changed(recipe: Recipe, values: Callable[[Recipe], Mapping[str, Any]]) -> Recipe | None:
    """Return the recipe with other values, of its own or of its parts; None if none changes."""
    update = dict(values(recipe))
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if isinstance(value, Recipe) and (part := changed(value, values)):
            update[name] = part
        elif isinstance(value, dict):
            parts = {key: part for key, part in value.items() if isinstance(part, Recipe)}
            others = {key: changed(part, values) for key, part in parts.items()}
            if any(others.values()):
                update[name] = {key: others[key] or part for key, part in parts.items()}
    return recipe.model_copy(update=update) if update else None


def has(field: str) -> Callable[[Recipe], bool]:
    """Return a filter for `those`: families with a field of this name."""
    return lambda recipe: field in type(recipe).model_fields


def reseeded(recipe: Recipe) -> Recipe | None:
    """Return the recipe with another seed, or None if it draws nothing."""
    return changed(recipe, lambda part: {"random_state": 1} if has("random_state")(part) else {})


def elsewhere(recipe: Recipe) -> Recipe | None:
    """Return the recipe on another device with other threads, or None if it has neither field."""
    settings = {"device": "auto", "threads": 2}
    return changed(
        recipe, lambda part: {name: settings[name] for name in settings if has(name)(part)}
    )


def those(chosen: Callable[[Recipe], Any]) -> pytest.MarkDecorator:
    """Run a test for the recipes that a filter chooses, each under the name of its family."""
    params = [
        pytest.param(recipe, id=name, marks=[] if installed(recipe) else pytest.mark.skip(LACKING))
        for name, recipe in RECIPES.items()
        if chosen(recipe)
    ]
    assert params
    return pytest.mark.parametrize("recipe", params)


LACKING = "the extra of this family is not installed"


def installed(recipe: Recipe) -> bool:
    return recipe.family != "lightfm" or importlib.util.find_spec("lightfm") is not None


every_family = those(lambda recipe: True)
every_steady_family = those(lambda recipe: recipe.capabilities.deterministic)
every_drawing_family = those(reseeded)
every_quiet_family = those(lambda recipe: recipe.capabilities.deterministic and reseeded(recipe))
