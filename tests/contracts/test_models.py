from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.matrix import History
from pipeline.models import families
from pipeline.models.als import Als
from pipeline.models.item_item import ItemItemScorer
from pipeline.models.topk import Lists, top_k
from tests.contracts.recipes import (
    GENERALISES,
    RECIPES,
    every_drawing_family,
    every_family,
    every_quiet_family,
    every_steady_family,
    installed,
    reseeded,
    those,
)
from tests.raising import raises
from tests.windows import END, window

ROOT = Path(__file__).parents[2]


def checkerboard(n=20, days=1.0) -> History:
    """User ``a`` has all items of the same parity but item ``a`` itself."""
    return window(
        (f"u{a:02}", f"i{b:02}", days, 1.0)
        for a in range(n)
        for b in range(n)
        if (a + b) % 2 == 0 and a != b
    )


def random_window(seed=0, n_users=60, n_items=40, events=1500) -> History:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, n_users, events), rng.geometric(0.08, events) % n_items
    days, weights = rng.uniform(0.1, 300, events), rng.choice([1.0, 1.0, 2.0, -1.0], events)
    rows = zip(users, items, days, weights, rng.integers(1, 6, events), strict=True)
    return window((f"u{u}", f"i{i}", float(d), float(w), float(r)) for u, i, d, w, r in rows)


def without_events(history: History, user_ids) -> History:
    return History(
        user_ids=np.array(user_ids),
        item_ids=history.item_ids,
        indptr=np.zeros(len(user_ids) + 1, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
    )


def renamed(history: History, prefix: str) -> History:
    return History(**(vars_of(history) | {"user_ids": np.char.add(prefix, history.user_ids)}))


def vars_of(history: History) -> dict:
    return history.arrays() | {"end": history.end}


def same(one: Lists, other: Lists) -> bool:
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in ("indptr", "item", "score")
    )


@every_family
def test_checkerboard(recipe):
    history = checkerboard()
    scorer = recipe.train(history)
    unseen = top_k(scorer.score(history), 1, exclude=history.seen)
    everything = top_k(scorer.score(history), 9)
    assert unseen.counts.tolist() == [1] * 20
    for user in range(20):
        own = set(range(user % 2, 20, 2)) - {user}
        if recipe.family in GENERALISES:
            assert unseen.of(user).tolist() == [user]
        else:  # all are as popular: the first that the user does not have
            assert unseen.of(user).tolist() == [min(set(range(20)) - own)]
        if recipe.capabilities.repeats_only:
            assert set(everything.of(user).tolist()) == own


# Imports take longer than lists: one process makes them and forks a fresh one for each family.
FRESH = """
import os, sys, numpy as np
from pipeline.data.matrix import History
from pipeline.models import families, topk

def write_lists(folder, family):
    scorer = families.load(family, dict(np.load(f"{folder}/{family}.npz")))
    history = History.from_arrays(dict(np.load(f"{folder}/history.npz")))
    lists = topk.top_k(scorer.score(history), 20, exclude=history.seen)
    np.savez(f"{folder}/{family}-lists", indptr=lists.indptr, item=lists.item, score=lists.score)

for family in sys.argv[2:]:
    if os.fork() == 0:
        write_lists(sys.argv[1], family)
        os._exit(0)
    assert os.wait()[1] == 0, f"{family}: lists of a fresh process"
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A scorer of each family, and the folder with the results of a fresh process."""
    folder, history = tmp_path_factory.mktemp("fresh"), random_window()
    np.savez(folder / "history.npz", **history.arrays())
    recipes = [recipe for recipe in RECIPES.values() if installed(recipe)]
    scorers = {recipe.family: recipe.train(history) for recipe in recipes}
    for family, scorer in scorers.items():
        np.savez(folder / f"{family}.npz", **scorer.arrays())
    subprocess.run(
        [sys.executable, "-c", FRESH, str(folder), *scorers],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return scorers, folder


@every_family
def test_a_fresh_process_gives_the_same_lists(recipe, fresh):
    scorers, folder = fresh
    history = random_window()
    expected = Lists(**np.load(folder / f"{recipe.family}-lists.npz"))
    lists = top_k(scorers[recipe.family].score(history), 20, exclude=history.seen)
    assert same(expected, lists)
    assert expected.counts.min() > 0


@every_family
def test_arrays_rebuild_the_scorer(recipe):
    history = random_window()
    scorer = recipe.train(history)
    arrays = scorer.arrays()
    again = families.load(recipe.family, arrays)
    assert type(again) is type(scorer)
    assert (again.trained_until, again.trained_on) == (END, "cpu")
    assert again.item_ids.tolist() == history.item_ids.tolist()
    assert all(array.dtype != object for array in arrays.values())
    rebuilt = again.arrays()
    assert rebuilt.keys() == arrays.keys()
    different = [name for name in arrays if not np.array_equal(rebuilt[name], arrays[name])]
    assert not different, f"{recipe.family}: arrays change when stored and loaded: {different}"


@every_steady_family
def test_equal_data_and_recipe_give_equal_bytes(recipe):
    one, other = recipe.train(random_window()).arrays(), recipe.train(random_window()).arrays()
    different = [name for name in one if one[name].tobytes() != other[name].tobytes()]
    assert not different, f"{recipe.family}: two fits of equal data differ in {different}"


@every_steady_family
def test_a_scorer_for_a_few_users_gives_their_lists(recipe):
    history = random_window()
    few = history.take(np.arange(0, history.n_users, 7))
    scores = [train(history).score(few) for train in (recipe.train, recipe.train_items)]
    assert same(*(top_k(score, 5) for score in scores))


@every_drawing_family
def test_another_replicate_and_another_seed_are_other_draws(recipe):
    history = random_window()
    draws = [
        recipe.train(history),
        recipe.train(history, replicate=1),
        reseeded(recipe).train(history),
    ]
    lists = [top_k(scorer.score(history), 10, exclude=history.seen) for scorer in draws]
    assert not any(same(lists[a], lists[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@every_family
def test_the_estimate_of_time_follows_from_counts(recipe):
    few, many = (random_window(events=n) for n in (300, 3000))
    assert 0 < recipe.cpu_seconds(few) < recipe.cpu_seconds(many)
    turned = replace(many, weight=many.weight[::-1], timestamp_us=many.timestamp_us[::-1])
    assert recipe.cpu_seconds(turned) == recipe.cpu_seconds(many)
    parts = [part.cpu_seconds(many) for part in recipe.inner_recipes.values()]
    assert recipe.cpu_seconds(many) >= sum(parts)


@every_steady_family
def test_a_replicate_trained_after_the_first_fit_is_that_trained_alone(recipe):
    history = random_window()
    first = recipe.train(history)
    again = recipe.train_again(history, first, 1).arrays()
    alone = recipe.train(history, replicate=1).arrays()
    assert not [name for name in alone if alone[name].tobytes() != again[name].tobytes()]
    assert recipe.seeded == (reseeded(recipe) is not None)


def test_a_replicate_of_a_blend_trains_only_the_parts_that_draw():
    blend, history = RECIPES["blend"], random_window()
    first = blend.train(history)
    again = blend.train_again(history, first, 1)
    drawn = {name for name, part in again.parts.items() if part is not first.parts[name]}
    assert drawn == {"als", "svd"}


@every_family
def test_trained_until_is_the_end_of_the_window(recipe):
    end = END - timedelta(days=30, microseconds=1)
    history = window([("a", "x", 40, 1), ("b", "y", 31, 1), ("a", "z", 29, 1)], end)
    scorer = recipe.train(history)
    assert scorer.trained_until == end
    assert families.load(recipe.family, scorer.arrays()).trained_until == end
    assert scorer.item_ids.tolist() == ["x", "y"]


@every_family
def test_lists_name_the_items_that_were_learnt(recipe):
    history = random_window()
    scorer = recipe.train(history)
    order = np.random.default_rng(0).permutation(history.n_users)
    straight = top_k(scorer.score(history), 10, exclude=history.seen)
    mixed = top_k(scorer.score(history.take(order)), 10, exclude=history.seen[order])
    for place, row in enumerate(order):
        assert mixed.of(place).tolist() == straight.of(row).tolist()
    seen = {(u, i) for u, i in zip(*history.seen.nonzero(), strict=True)}
    assert not seen & set(zip(straight.row.tolist(), straight.item.tolist(), strict=True))


@every_family
def test_unknown_users_are_folded_in_or_refused(recipe):
    history = random_window()
    scorer = recipe.train(history)
    strangers = renamed(history, "x")
    if not recipe.capabilities.fold_in:
        with pytest.raises(KeyError):
            scorer.score(strangers)
        return
    folded = top_k(scorer.fold_in(history), 10, exclude=history.seen)
    assert same(top_k(scorer.score(strangers), 10, exclude=history.seen), folded)
    assert same(top_k(scorer.score(history), 10, exclude=history.seen), folded)


# Learned repeats learn from the time since the last event.
@those(lambda recipe: recipe.capabilities.fold_in and recipe.family != "repeat_purchase")
def test_time_that_passes_alone_moves_nobodys_list(recipe):
    history = random_window()
    scorer = recipe.train(history)
    later = replace(history, end=history.end + timedelta(days=40))
    known = top_k(scorer.score(history), 10, exclude=history.seen)
    folded = top_k(scorer.fold_in(later), 10, exclude=history.seen)
    assert folded.item.tolist() == known.item.tolist()
    assert len(known.item) > 500


@every_family
def test_users_without_events(recipe):
    scorer = recipe.train(random_window())
    no_users = without_events(random_window(), ["new1", "new2"])
    assert top_k(scorer.score(without_events(random_window(), [])), 5).n_rows == 0
    if not recipe.capabilities.fold_in:
        with pytest.raises(KeyError):
            scorer.score(no_users)
        return
    lists = top_k(scorer.score(no_users), 5)
    if recipe.capabilities.baseline is None:
        assert lists.counts.tolist() == [0, 0]  # nothing is known, nothing is invented
    else:
        assert lists.counts.tolist() == [5, 5]
        assert lists.of(0).tolist() == lists.of(1).tolist()


@every_family
def test_one_item_one_user(recipe):
    history = window([("a", "x", 3, 1.0)])
    scorer = recipe.train(history)
    # Similarities lead to other items only: without another item the list is empty.
    alone = [] if issubclass(recipe.scorer, ItemItemScorer) else [0]
    assert top_k(scorer.score(history), 7).item.tolist() == alone
    assert top_k(scorer.score(history), 7, exclude=history.seen).counts.tolist() == [0]


@every_family
def test_longer_lists_than_the_catalogue(recipe):
    history = random_window()
    lists = top_k(recipe.train(history).score(history), 1000)
    full = lists.counts == history.n_items
    taken_back = np.diff(history.confidence(None).indptr) == 0
    assert (full | taken_back).all()
    assert full.sum() > 50
    for row in np.flatnonzero(full):
        assert sorted(lists.of(row).tolist()) == list(range(history.n_items))


# A rating stays true when the item was given back.
@those(lambda recipe: not recipe.capabilities.ratings)
def test_returned_items_count_as_never_had(recipe):
    rows = [("a", "x", 9, 1.0), ("b", "x", 8, 1.0), ("b", "y", 8, 1.0), ("a", "y", 9, 1.0)]
    rows += [("c", "z", 20, 1.0), ("b", "z", 20, 1.0)]
    kept = window([*rows, ("d", "x", 5, 1.0), ("d", "z", 3, 0.0)])
    returned = window([*rows, ("d", "x", 5, 1.0), ("d", "z", 3, 2.0), ("d", "z", 3, -2.0)])
    lists = [top_k(recipe.train(h).score(h), 3) for h in (kept, returned)]
    assert same(*lists)
    bought = window([*rows, ("d", "x", 5, 1.0), ("d", "z", 3, 2.0)])
    assert not same(top_k(recipe.train(bought).score(bought), 3), lists[0])


@every_family
def test_everything_was_taken_back(recipe):
    history = window([("a", "x", 9, 1.0), ("a", "x", 3, -5.0), ("b", "y", 1, 0.0)])
    lists = top_k(recipe.train(history).score(history), 2)
    assert np.isfinite(lists.score).all()


@every_family
def test_another_catalogue_is_refused(recipe):
    scorer = recipe.train(random_window())
    with pytest.raises(ValueError, match="catalogue"):
        scorer.score(random_window(n_items=30))
    with pytest.raises(ValueError, match="catalogue"):
        scorer.fold_in(random_window(n_items=30))


@every_family
def test_scores_keep_the_contract_and_the_history(recipe):
    history = random_window()
    before = {name: array.copy() for name, array in history.arrays().items()}
    scores = recipe.train(history).score(history)
    assert scores.shape == (history.n_users, history.n_items)
    for factors in (scores.users, scores.items):
        assert factors is None or factors.dtype == np.float32
    if recipe.capabilities.ratings:  # on the scale of the data, and of factors alone
        assert scores.sparse_bonus is scores.user_history is None
        assert (scores.users @ scores.items.T).mean() == pytest.approx(3, abs=0.2)
    if scores.sparse_bonus is not None:
        assert scores.sparse_bonus.dtype == np.float32
        assert scores.sparse_bonus.data.min() >= 0
        assert scores.sparse_bonus.multiply(history.seen).nnz == scores.sparse_bonus.nnz
    after = history.arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@every_quiet_family
def test_quiet_nights(recipe):
    # Tastes that are there to be learnt: three groups of items, a user likes mostly one.
    rng = np.random.default_rng(3)
    rows = []
    for u in range(120):
        for _ in range(25):
            group = u % 3 if rng.random() < 0.8 else int(rng.integers(3))
            item, liked = group * 20 + int(rng.integers(20)), 5.0 if group == u % 3 else 1.0
            rows.append((f"u{u:03}", f"i{item:02}", 5.0, 1.0, liked))
    names = dict(zip([f"u{u:03}" for u in range(120)], rng.permutation(120), strict=True))
    today = window(rows)
    tomorrow = window(
        [(f"p{names[u]:03}", *rest) for u, *rest in rows]
        + [("p999", f"i{b:02}", 1.0, 1.0) for b in range(6)]
    )
    old, new = recipe.train(today), recipe.train(tomorrow)
    other_seed = recipe.train(today, replicate=1)
    before, after, other = (
        scorer.score(today.take(np.empty(0, np.int64))).items for scorer in (old, new, other_seed)
    )
    size = np.linalg.norm(before)
    assert np.linalg.norm(after - before) < 0.15 * size
    assert np.linalg.norm(other - before) > 0.5 * size
    lists = top_k(old.score(today), 10)
    renewed = top_k(new.score(tomorrow), 10)
    row = {name: place for place, name in enumerate(tomorrow.user_ids.tolist())}
    shared = [
        len(set(lists.of(place)) & set(renewed.of(row[f"p{names[user]:03}"])))
        for place, user in enumerate(today.user_ids.tolist())
    ]
    assert np.mean(shared) > 9


def test_recipes_survive_json_with_their_families():
    for name, recipe in families.default_recipes().items():
        again = families.recipe_from(json.loads(recipe.model_dump_json()))
        assert (again, again.hash) == (recipe, recipe.hash), f"{name}: JSON changes the recipe"
        assert recipe.family == name
        assert families.FAMILIES[name] is type(recipe), f"{name}: registered is another class"
        declared = getattr(recipe.scorer, "declared", recipe.capabilities)
        assert declared == recipe.capabilities, f"{name}: recipe and scorer differ in capabilities"
        for field, info in type(recipe).model_fields.items():
            assert info.description, f"{name}.{field} has no description"
    assert Als(alpha=2.0).hash != Als().hash


def test_baselines_form_a_ladder():
    ranks = {
        name: recipe.capabilities.baseline for name, recipe in families.default_recipes().items()
    }
    assert ranks == {
        "popularity": 0,
        "decayed_popularity": 1,
        "personal_frequency": 2,
        "als": None,
        "blend": None,
    }


@pytest.mark.parametrize(
    ("dumped", "expected"),
    [
        ({"family": "als", "alfa": 1}, "als.alfa"),
        ({"family": "als", "regularization": 0}, "als.regularization"),
        ({"family": "alz"}, "'alz'"),
        (
            {"family": "ridge", "factors_of": {"family": "als", "alfa": 1}},
            "ridge.factors_of.alfa",
        ),
        ({"family": "ridge", "factors": {"family": "als"}}, "ridge.factors"),
        ({"family": "lightfm", "loss": "wrap"}, "lightfm.loss"),
        ({}, "family"),
    ],
)
def test_a_value_that_is_not_a_recipe_is_refused_by_name(dumped, expected):
    with raises("recipe.invalid") as caught:
        families.recipe_from(dumped)
    assert expected in caught.value.sentence


def test_an_unknown_family_cannot_be_loaded():
    with raises("recipe.unknown_family"):
        families.load("deep", {})


def test_config_loads_without_heavy_libraries():
    # A child of its own: others in this process have imported it.
    code = (
        "import sys; from pipeline.models import families; families.default_recipes(); "
        "sys.exit(bool({'implicit', 'lightfm', 'lightgbm'} & set(sys.modules)))"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
