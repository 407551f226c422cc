"""The one list of model families: a new one is entered here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.models.als import Als
from pipeline.models.biased_mf import Rated
from pipeline.models.blend import Blend
from pipeline.models.bpr import Bpr
from pipeline.models.contract import Arrays, Recipe, Scorer
from pipeline.models.ease import Ease
from pipeline.models.item_knn import ItemKnn
from pipeline.models.lightfm import LightFm
from pipeline.models.personal_frequency import OwnCounts
from pipeline.models.popularity import DecayedPopularity, Popularity
from pipeline.models.repeat_purchase.recipe import LearnedRepeat
from pipeline.models.ridge import Ridge
from pipeline.models.rp3beta import Walks
from pipeline.models.svd import Svd

AnyRecipe = Annotated[
    Popularity
    | DecayedPopularity
    | OwnCounts
    | LearnedRepeat
    | Als
    | Svd
    | Bpr
    | ItemKnn
    | Ease
    | Walks
    | Rated
    | Ridge
    | LightFm
    | Blend,
    Field(discriminator="family"),
]
"""A recipe of any family, told apart by `family`."""

for _recipe in (Blend, Ridge):
    _recipe.model_rebuild(_types_namespace={"AnyRecipe": AnyRecipe})

FAMILIES: dict[str, type[Recipe]] = {
    recipe.model_fields["family"].default: recipe for recipe in get_args(get_args(AnyRecipe)[0])
}
"""The recipe of each family, by name."""

_ADAPTER: TypeAdapter[AnyRecipe] = TypeAdapter(AnyRecipe)


_BLEND: Mapping[str, Any] = {
    "family": "blend",
    "parts": {
        "als": {"family": "als", "tune": ["half_life_days", "alpha", "regularization"]},
        "svd": {"family": "svd", "factors": 256, "tune": ["half_life_days"]},
        "walks": {
            "family": "walks",
            "user_exponent": 1.0,
            "source_exponent": 0.9,
            "target_exponent": 0.15,
        },
        "ease": {
            "family": "ease",
            "item_limit": 4000,
            "tune": ["regularization", "half_life_days"],
        },
        "again": {"family": "learned_repeat"},
    },
    "trend": 0.25,
    "tune": ["weights", "trend", "spread"],
}
"""What a night proves first on data that nobody has looked at: different ideas, in the weights that
the data ask for. What adds nothing is dropped when it settles. The exponents of the walks are those
that did best on a quarter of Gowalla's users; all else is a default of its family or is chosen."""


def default_recipes() -> dict[str, AnyRecipe]:
    """Return what competes where nobody said otherwise: the baselines, ALS and a blend."""
    names = ("popularity", "decayed_popularity", "own_counts", "als")
    plain: dict[str, Mapping[str, Any]] = {name: {"family": name} for name in names}
    return {n: _ADAPTER.validate_python(d) for n, d in {**plain, "blend": _BLEND}.items()}


def recipe_from(dumped: Mapping[str, Any]) -> AnyRecipe:
    """Rebuild a recipe that ``model_dump(mode="json")`` wrote."""
    try:
        return _ADAPTER.validate_python(dumped)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise ConfigError(f"not a recipe: {where}: {first['msg']}") from error


def load(family: str, arrays: Arrays) -> Scorer:
    """Rebuild a scorer of `family` from its arrays."""
    if family not in FAMILIES:
        raise ConfigError(f"no model family {family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[family].scorer.from_arrays(arrays)
