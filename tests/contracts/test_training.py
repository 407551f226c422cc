"""Training of every family: settings, units, order, threads, progress, almost empty windows."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pipeline.models import families
from pipeline.models.topk import top_k
from tests.contracts.recipes import (
    RECIPES,
    elsewhere,
    every_family,
    every_steady_family,
    has,
    installed,
    reseeded,
    those,
)
from tests.raising import raises
from tests.windows import END, dense, pairs, random_history, shuffled, window

every_family_of_own_items = those(lambda recipe: recipe.capabilities.repeats_only)


def scores(recipe, history):
    return dense(recipe.train(history).score(history)).astype(np.float64)


def same_bytes(one, other):
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        *((family, "factors", 0) for family in ("als", "svd", "bpr", "lightfm")),
        *((family, "iterations", 0) for family in ("als", "svd", "bpr", "lightfm", "biased_mf")),
        *((family, "regularization", 0) for family in ("als", "ease", "biased_mf")),
        *((family, "learning_rate", 0) for family in ("bpr", "lightfm")),
        *((family, "threads", 0) for family in ("bpr", "lightfm")),
        *((family, "neighbours", 0) for family in ("item_knn", "rp3beta", "ease")),
        ("als", "alpha", 0),
        ("svd", "smoothing", -1),
        ("svd", "damping", -0.5),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(family, field, value):
    with raises("recipe.invalid") as caught:
        families.recipe_from({"family": family, field: value})
    assert f"{family}.{field}" in caught.value.sentence


@those(elsewhere)
def test_device_and_threads_are_not_part_of_the_hash(recipe):
    assert elsewhere(recipe) != recipe
    assert elsewhere(recipe).hash == recipe.hash != reseeded(recipe).hash


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("als", {"alpha": 1e30}),
        ("bpr", {"iterations": 300, "learning_rate": 1.0, "regularization": 0.0}),
        ("lightfm", {"learning_rate": 1e30}),
    ],
)
def test_a_fit_that_does_not_stay_finite_names_the_settings_to_change(family, values):
    if not installed(RECIPES[family]):
        pytest.skip("the extra of this family is not installed")
    with raises("model.diverged") as caught:
        RECIPES[family].model_copy(update=values).train(random_history())
    changeable = values.keys() - {"iterations"}
    assert all(f"{name} ({values[name]})" in caught.value.sentence for name in changeable)


# --- what does not matter -----------------------------------------------------------------------


LARGE = {"als": {"factors": 32}, "svd": {"factors": 200}}
"""Sizes at which the work of these two is shared out among threads."""


@pytest.fixture(scope="module")
def large():
    return random_history(n_users=2000, n_items=900, events=60_000, tail=0.002)


@every_steady_family
def test_the_number_of_threads_changes_no_byte(recipe, large):
    recipe = recipe.model_copy(update=LARGE.get(recipe.family, {}))
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(recipe.train(large).arrays())
    assert same_bytes(*results)


@those(has("threads"))
def test_one_thread_repeats_itself_and_two_learn_as_much(recipe):
    history = random_history()
    one, other = recipe.train(history).arrays(), recipe.train(history).arrays()
    assert same_bytes(one, other)
    assert not recipe.capabilities.deterministic  # by more threads it is another draw
    both = recipe.model_copy(update={"threads": 2}).train(history).arrays()
    assert {name: array.shape for name, array in both.items()} == {
        name: array.shape for name, array in one.items()
    }


@every_steady_family
def test_order_and_names_of_users_change_no_score(recipe):
    history = random_history()
    other, order = shuffled(history)
    one, two = scores(recipe, history)[order], scores(recipe, other)
    assert np.abs(one).max() > 0
    # The sums of a factorisation run over the users, so they round in the order of the users.
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-4 * np.abs(one).max())


def shared_entries(recipe, history, other):
    """Share of the entries of lists of ten that two windows have in common."""
    one, two = (top_k(recipe.train(some).score(some), 10) for some in (history, other))
    shared = [len(set(one.of(row)) & set(two.of(row))) for row in range(one.n_rows)]
    return sum(shared) / one.counts.sum()


# The trees of learned repeats cut between numbers of events.
@those(lambda r: r.capabilities.deterministic and r.family != "repeat_purchase")
def test_weights_in_another_unit_change_no_list(recipe):
    assert shared_entries(recipe, random_history(), random_history(scale=7.0)) > 0.999


# Learned repeats learn from recency; EASE adds its regularization to decayed counts.
@those(lambda r: r.capabilities.deterministic and r.family not in ("repeat_purchase", "ease"))
def test_days_without_events_change_no_list(recipe):
    later = random_history(end=END + timedelta(days=9))
    assert shared_entries(recipe, random_history(), later) > 0.999


def of_items(scorer, history):
    user_scores = scorer.score(history)
    return user_scores.item_similarity.toarray() if user_scores.items is None else user_scores.items


@those(lambda recipe: has("half_life_days")(recipe) and not recipe.capabilities.repeats_only
       and recipe.capabilities.baseline is None)  # fmt: skip
def test_old_events_weigh_less_unless_there_is_no_half_life(recipe):
    history = random_history()
    older = replace(history, timestamp_us=history.timestamp_us // 2)
    unlimited = recipe.model_copy(update={"half_life_days": None})
    short = recipe.model_copy(update={"half_life_days": 30.0})
    forever = unlimited.train(history)
    assert same_bytes(forever.arrays(), unlimited.train(older).arrays())
    one, other = (of_items(scorer, history) for scorer in (forever, short.train(history)))
    assert not np.allclose(one, other, rtol=0.05)
    loaded = families.load(recipe.family, forever.arrays())
    assert same_bytes(forever.arrays(), loaded.arrays())


@every_family
def test_some_of_the_users_are_scored_as_beside_all_others(recipe):
    history = random_history()
    scorer, some = recipe.train(history), np.arange(0, history.n_users, 7)
    expected = dense(scorer.score(history))[some]
    np.testing.assert_allclose(dense(scorer.score(history.take(some))), expected, rtol=1e-6)
    if recipe.capabilities.fold_in:
        alone, beside = scorer.fold_in(history.take(some)), scorer.fold_in(history)
        np.testing.assert_allclose(dense(alone), dense(beside)[some], rtol=1e-6)


# --- progress -----------------------------------------------------------------------------------


@those(lambda recipe: has("iterations")(recipe) and recipe.family != "repeat_purchase")
def test_progress_counts_the_rounds(recipe):
    lines: list[str] = []
    recipe.model_copy(update={"iterations": 3}).train(
        window([("a", "x", 3, 1.0), ("b", "x", 2, 1.0), ("b", "y", 1, 1.0)]), progress=lines.append
    )
    rounds = [re.findall(r"iteration (\d+) of (\d+)", line) for line in lines]
    assert rounds == [[(str(n), "3")] for n in (1, 2, 3)]


# --- windows of almost nothing ------------------------------------------------------------------


@those(has("factors"))
def test_more_factors_than_users_and_items(recipe):
    history = pairs([("a", "x"), ("b", "x"), ("b", "y")])
    scorer = recipe.model_copy(update={"factors": 50}).train(history)
    user_scores = scorer.score(history)
    assert user_scores.items.shape[1] >= 50
    assert np.isfinite(user_scores.users).all() and np.isfinite(user_scores.items).all()
    assert top_k(user_scores, 1, exclude=history.seen).of(0).tolist() == [1]
    if recipe.family in ("als", "svd"):
        assert dense(user_scores)[0, 1] > 0  # b has both


# A rating stays true when the item was given back; a blend has the fallback of its parts.
@those(lambda recipe: not recipe.capabilities.ratings and recipe.family != "blend")
def test_users_and_items_of_whom_nothing_is_left(recipe):
    if recipe.family == "bpr":  # few steps: on two users it would learn that all others are alike
        recipe = recipe.model_copy(update={"iterations": 20, "learning_rate": 0.05})
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "z", 1.0), ("c", "z", -1.0)]
    history = pairs(rows)
    lists = top_k(recipe.train(history).score(history), 3)
    for user in (0, 1):
        assert len(lists.of(user)) > 0
        assert 2 not in lists.of(user)[:2]
    nothing = replace(history, weight=np.zeros_like(history.weight))
    of_nothing = top_k(recipe.train(nothing).score(nothing), 3)
    if recipe.capabilities.baseline is None:
        assert lists.counts[2] == 0
        assert of_nothing.counts.tolist() == [0, 0, 0]
    else:
        assert lists.of(2)[:2].tolist() == [0, 1]
        assert np.isfinite(of_nothing.score).all()


@every_family_of_own_items
def test_a_faint_own_item_precedes_the_most_popular_one(recipe):
    rows = [(f"u{n}", "hit", 1, 1.0) for n in range(3000)]
    rows += [("me", "old", 2000, 1.0), ("me", "loved", 100, 4.0)]
    history = window(rows)
    lists = top_k(recipe.train(history).score(history), 3)
    mine = lists.of(history.user_ids.tolist().index("me"))
    assert history.item_ids[mine].tolist() == ["loved", "old", "hit"]


@every_family_of_own_items
def test_equal_own_counts_are_ordered_by_popularity(recipe):
    history = window([("me", "a", 10, 1.0), ("me", "b", 10, 1.0), ("you", "b", 1, 1.0)])
    lists = top_k(recipe.train(history).score(history), 2)
    assert history.item_ids[lists.of(0)].tolist() == ["b", "a"]


@every_family_of_own_items
def test_after_the_own_items_come_the_popular_ones(recipe):
    history = pairs([("a", "z"), ("b", "x"), ("b", "y"), ("c", "y")])
    lists = top_k(recipe.train(history).score(history), 3)
    assert history.item_ids[lists.of(0)].tolist() == ["z", "y", "x"]
