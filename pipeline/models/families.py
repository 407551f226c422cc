"""Imports all model families, which registers them; a new family is imported here.

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
"""What a night proves first on data that nobody has looked at: different ideas, in the weights that
the data ask for. What adds nothing is dropped when it settles. The exponents of the walks are those
that did best on a quarter of Gowalla's users; all else is a default of its family or is chosen."""


def default_recipes() -> dict[str, Recipe]:
    """Return what competes where nobody said otherwise: the baselines, ALS and a blend."""
    names = ("popularity", "decayed_popularity", "personal_frequency", "als")
    plain: dict[str, Mapping[str, Any]] = {name: {"family": name} for name in names}
    return {n: recipe_from(d) for n, d in {**plain, "blend": _BLEND}.items()}
