"""Families that learn from features of items and users: properties that all of them share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.models import families
from pipeline.models.als import Als
from pipeline.models.lightfm import LightFm
from pipeline.models.ridge import Ridge
from pipeline.models.topk import top_k
from tests.contracts.recipes import LACKING, installed
from tests.windows import described, grouped, strangers, with_groups

BASE = Als(factors=4, regularization=0.1, iterations=10, half_life_days=None, device="cpu")
RECIPES = {
    "ridge": Ridge(factors_of=BASE),
    "lightfm": LightFm(factors=8, iterations=20, half_life_days=None),
}


@pytest.fixture(params=RECIPES.values(), ids=RECIPES.keys())
def recipe(request):
    if not installed(request.param):
        pytest.skip(LACKING)
    return request.param


def test_a_new_item_is_listed_for_users_of_its_kind(recipe):
    history = with_groups(grouped())
    scorer = recipe.train(history)
    assert scorer.item_ids.tolist() == sorted([*history.item_ids.tolist(), "a0", "i1new", "z2"])
    longer = history.reindex_items(scorer.item_ids)
    new = np.isin(scorer.item_ids, ["a0", "i1new", "z2"])
    lists = top_k(scorer.score(longer), 3, allowed=new)
    assert lists.counts.tolist() == [3] * history.n_users
    firsts = [scorer.item_ids[lists.of(row)[0]] for row in range(history.n_users)]
    kinds = {"0": "a0", "1": "i1new", "2": "z2"}
    assert firsts == [kinds[user[1]] for user in history.user_ids.tolist()]
    with pytest.raises(ValueError, match="catalogue"):
        scorer.score(history)


def test_a_new_user_gets_a_list_by_features_and_one_without_features_gets_none(recipe):
    history = with_groups(grouped(), cold_items=False)
    scorer = recipe.train(history)
    lists = top_k(scorer.score(strangers(history, [[0], [2]])), 5)
    assert lists.counts.tolist() == [5, 5]
    for row, group in ((0, "i0"), (1, "i2")):
        assert np.char.startswith(history.item_ids[lists.of(row)], group).all()
    users = strangers(history, [[0], [2], []])
    if not recipe.capabilities.fold_in:
        with pytest.raises(KeyError, match="1 users were not in the training window"):
            scorer.score(users)
        with pytest.raises(KeyError, match="cannot"):
            scorer.fold_in(history)
        return
    for scores in (scorer.score(users), scorer.fold_in(users)):
        some = top_k(scores, 5)
        assert some.counts.tolist() == [5, 5, 0]
        assert some.item.tolist() == lists.item.tolist()


def test_rows_without_a_feature_change_nothing(recipe):
    if recipe.family == "ridge":  # features answer for every item that has one
        recipe = recipe.model_copy(update={"min_users": 1000})
    history = grouped()
    blank = replace(
        history,
        item_features=described([[]] * history.n_items),
        user_features=described([[]] * history.n_users),
    )
    one, other = (recipe.train(some).score(history) for some in (history, blank))
    assert one.users.tobytes() == other.users.tobytes()
    assert one.items.tobytes() == other.items.tobytes()


def test_arrays_bring_back_the_lists_of_new_items_and_users(recipe):
    history = with_groups(grouped())
    scorer = recipe.train(history)
    arrays = scorer.arrays()
    assert all(array.dtype != object for array in arrays.values())
    again = families.load(recipe.family, arrays)
    longer = history.reindex_items(scorer.item_ids)
    for some in (longer, strangers(longer, [[1]])):
        one, other = (top_k(each.score(some), 10) for each in (scorer, again))
        assert one.item.tobytes() == other.item.tobytes()
        assert one.score.tobytes() == other.score.tobytes()
    assert again.arrays().keys() == arrays.keys()
