from __future__ import annotations

from pipeline.models.families import default_recipes
from pipeline.steps.experiments.tuning.tune import _first_recipe
from pipeline.workspace.config import Config
from tests.entries import NIGHT, history, publication


def test_a_champion_without_free_settings_leaves_the_search_to_the_next_recipe():
    popular = publication(1, recipe=default_recipes()["decayed_popularity"], name="popular")
    lines: list[str] = []
    name, recipe = _first_recipe(Config(), history(popular), NIGHT, None, lines.append)
    assert (name, recipe.family) == ("als", "als")
    assert lines == ["champion popular has no field to tune; als is tuned instead"]


def test_a_champion_with_free_settings_is_tuned():
    lines: list[str] = []
    name, _ = _first_recipe(
        Config(), history(publication(1, name="live")), NIGHT, None, lines.append
    )
    assert (name, lines) == ("live", [])
