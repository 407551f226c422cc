"""Imports all model families, which registers them. A new family is imported here.

Guarantees: after an import of this module `FAMILIES` is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.models import (  # noqa: F401
    als,
    biased_mf,
    blend,
    bpr,
    ease,
    item_knn,
    lightfm,
    personal_frequency,
    popularity,
    ridge,
    rp3beta,
    svd,
)
from pipeline.models.contract import FAMILIES, AnyRecipe, Recipe, load, recipe_from
from pipeline.models.repeat_purchase import recipe  # noqa: F401

__all__ = ["FAMILIES", "AnyRecipe", "default_recipes", "load", "recipe_from"]

_BLEND: Mapping[str, Any] = {
    "family": "blend",
    "parts": {
        "als": {"family": "als", "tune": ["half_life_days", "alpha", "regularization"]},
        "svd": {"family": "svd", "factors": 256, "tune": ["half_life_days"]},
        "rp3beta": {
            "family": "rp3beta",
            "user_exponent": 1.0,
            "source_exponent": 0.9,
            "target_exponent": 0.15,
        },
        "ease": {
            "family": "ease",
            "item_limit": 4000,
            "tune": ["regularization", "half_life_days"],
        },
        "repeat_purchase": {"family": "repeat_purchase"},
    },
    "recency_boost": 0.25,
    "tune": ["weights", "recency_boost", "popularity_penalty"],
}
"""Blend for new data: parts of different families, with weights selected from the data. Parts that
add nothing are dropped in the selection. The exponents of `rp3beta` are the best ones on a quarter
of Gowalla's users; all other fields are defaults of their family or are selected."""


def default_recipes() -> dict[str, Recipe]:
    """Return the recipes of a config without recipes: the baselines, ALS and a blend."""
    names = ("popularity", "decayed_popularity", "personal_frequency", "als")
    return {**{name: recipe_from({"family": name}) for name in names}, "blend": recipe_from(_BLEND)}
