from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.models.families import FAMILIES, recipe_from
from pipeline.models.search import Axis, axes, current_values, moved, reopened_mixture

ALS = recipe_from({"family": "als", "alpha": 40.0, "regularization": 3.0})
BLEND = recipe_from(
    {
        "family": "blend",
        "parts": {
            "als": ALS.model_dump(),
            "quick": {"family": "als", "iterations": 2},
            "own": {"family": "personal_frequency"},
            "mute": {"family": "als"},
        },
        "weights": {"mute": 0.0},
    }
)


def test_a_value_is_snapped_to_two_digits_within_its_span():
    axis = Axis(("alpha",), 0.03, 1000.0, True, False)
    assert [axis.snap(v) for v in (0.03149, 34.49, 999.7, 1e9, 0.0)] == [
        0.031,
        34.0,
        1000.0,
        1000.0,
        0.03,
    ]
    whole = Axis(("factors",), 4, 1024, True, True)
    assert whole.snap(127.4) == 130
    assert isinstance(whole.snap(127.4), int)


def test_the_fields_of_a_family_are_those_with_a_span():
    fields = axes(ALS)
    assert set(fields) == set(type(ALS).space)
    assert (fields["alpha"].high, fields["alpha"].log, fields["alpha"].whole) == (
        1000.0,
        True,
        False,
    )
    assert axes(recipe_from({"family": "popularity"})) == {}


@pytest.mark.parametrize(
    ("similarity", "read", "ignored"),
    [("cosine", "shrinkage", "b"), ("tfidf", "shrinkage", "b"), ("bm25", "b", "shrinkage")],
)
def test_what_a_similarity_ignores_is_neither_searched_nor_tuned(similarity, read, ignored):
    dumped = {"family": "item_knn", "similarity": similarity}
    names = set(axes(recipe_from(dumped)))
    assert names == set(FAMILIES["item_knn"].space) - {ignored}
    assert recipe_from(dumped | {"tune": [read]}).tune == (read,)
    with pytest.raises(ConfigError, match=f"'{ignored}' cannot be selected.*Allowed: .*{read}"):
        recipe_from(dumped | {"tune": ["neighbours", ignored]})


def test_a_blend_moves_the_fields_of_its_parts_but_not_of_a_part_that_does_not_count():
    fields = axes(BLEND)
    assert {"als.alpha", "quick.alpha"} < set(fields)
    assert not any(name.startswith(("mute.", "weights", "recency_boost")) for name in fields)
    there = moved(BLEND, {"als.alpha": 5.04, "quick.regularization": 17.0}, fields)
    assert there.parts["als"].alpha == 5.0
    assert there.parts["quick"].regularization == 17.0
    assert there.parts["quick"].alpha == BLEND.parts["quick"].alpha
    assert there.weights == BLEND.weights


def test_a_recipe_that_builds_on_another_moves_its_fields_too():
    ridge = recipe_from({"family": "ridge", "factors_of": ALS.model_dump()})
    fields = axes(ridge)
    assert {"regularization", "factors_of.alpha"} < set(fields)
    there = moved(ridge, {"regularization": 30.0, "factors_of.alpha": 2.0}, fields)
    assert (there.regularization, there.factors_of.alpha) == (30.0, 2.0)
    assert "regularization" not in current_values(ridge, fields)  # it is chosen in training


def test_a_recipe_is_read_where_it_was_moved_to():
    among = axes(ALS)
    there = moved(ALS, {"alpha": 2.0, "half_life_days": 33.0}, among)
    assert current_values(there, among) == {
        "alpha": 2.0,
        "regularization": 3.0,
        "half_life_days": 33.0,
    }


def test_values_that_are_not_numbers_or_outside_the_span_have_no_place():
    among = axes(ALS)
    odd = ALS.model_copy(update={"half_life_days": None, "alpha": 5000.0})
    assert current_values(odd, among) == {"regularization": 3.0}
    parts = {"quick": BLEND.parts["quick"], "own": BLEND.parts["own"]}
    fewer = BLEND.model_copy(update={"parts": parts, "weights": {}})
    assert set(current_values(fewer, axes(BLEND))) == {
        name for name in axes(BLEND) if "quick" in name
    }


def test_only_a_blend_of_several_parts_is_mixed_anew():
    assert reopened_mixture(ALS) is None
    again = reopened_mixture(BLEND)
    assert again is not None
    assert set(again.tune) == {"weights", "recency_boost", "popularity_penalty"}
    one = BLEND.model_copy(update={"parts": {"als": ALS}, "weights": {}})
    assert reopened_mixture(one) is None


ALONE = sorted(set(FAMILIES) - {"blend"})


@pytest.mark.parametrize("family", ALONE)
def test_both_ends_of_every_span_are_allowed(family):
    recipe = recipe_from({"family": family})
    for name, axis in axes(recipe).items():
        assert axis.low < axis.high
        assert axis.low > 0 or not axis.log
        for end in (axis.low, axis.high):
            there = moved(recipe, {name: end}, {name: axis})
            assert current_values(there, {name: axis}) == {name: axis.snap(end)}
