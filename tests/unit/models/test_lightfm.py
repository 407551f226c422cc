from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from pipeline import columns as c
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.errors import ConfigError
from pipeline.models import families
from pipeline.models.lightfm import LightFm
from pipeline.models.ridge import Ridge
from pipeline.models.topk import top_k
from tests.raising import raises

END = datetime(2024, 3, 1, tzinfo=UTC)
GROUPS, SIZE = 3, 10
RECIPE = LightFm(factors=8, iterations=20, half_life_days=None)


@pytest.fixture(autouse=True)
def _library(request):
    if "without_the_library" not in request.node.name:
        pytest.importorskip("lightfm")


def described(rows, width: int = GROUPS) -> FeatureMatrix:
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.array([column for row in rows for column in row], np.int32)
    cells = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), (len(rows), width))
    return FeatureMatrix(np.array([f"f={n}" for n in range(width)]), cells)


def window(dislikes: bool = False) -> History:
    """Three groups of users and items; everybody has most items of their group."""
    rng = np.random.default_rng(0)
    rows = []
    for group in range(GROUPS):
        for n in range(SIZE):
            for other in range(GROUPS):
                for m in range(SIZE):
                    if group == other and rng.random() < 0.8:
                        rows.append((f"u{group}{n}", f"i{other}{m}", 1.0))
                    elif dislikes and group != other and rng.random() < 0.3:
                        rows.append((f"u{group}{n}", f"i{other}{m}", 0.0))
    frame = pl.DataFrame(
        [(user, item, END - timedelta(days=1), weight) for user, item, weight in rows],
        schema={
            c.USER_ID: pl.String(),
            c.ITEM_ID: pl.String(),
            c.TIMESTAMP: c.INSTANT,
            WEIGHT: pl.Float32(),
        },
        orient="row",
    )
    return build_history(frame, END)


def known(history: History) -> History:
    """The window with the groups of items and users as features, and a new item of each group."""
    return replace(
        history,
        item_features=described([[int(item[1])] for item in history.item_ids.tolist()]),
        user_features=described([[int(user[1])] for user in history.user_ids.tolist()]),
        cold_items=ColdItems(np.array(["a0", "i1new", "z2"]), described([[0], [1], [2]])),
    )


def new_users(history: History, tastes) -> History:
    return History(
        user_ids=np.array([f"new{n}" for n in range(len(tastes))]),
        item_ids=history.item_ids,
        indptr=np.zeros(len(tastes) + 1, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
        user_features=described(tastes),
    )


def own_group(scorer, history: History) -> float:
    """Share of the entries of lists of ten that are of the user's own group."""
    lists = top_k(scorer.score(history), 10)
    items = scorer.item_ids[lists.item]
    users = history.user_ids[lists.row]
    return float(np.mean([item[1] == user[1] for item, user in zip(items, users, strict=True)]))


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_it_learns_groups_from_events_alone(loss):
    history = window()
    scorer = RECIPE.model_copy(update={"loss": loss}).train(history)
    assert own_group(scorer, history) > 0.95


def test_logistic_learns_from_what_was_not_liked():
    history = window(dislikes=True)
    recipe = RECIPE.model_copy(update={"loss": "logistic", "iterations": 40})
    assert own_group(recipe.train(history), history) > 0.9


def test_the_scores_are_those_of_the_library(monkeypatch):
    from lightfm import LightFM

    made = []

    def kept(self, *arguments, fit=LightFM.fit_partial, **named):
        made.append((self, arguments))
        return fit(self, *arguments, **named)

    monkeypatch.setattr(LightFM, "fit_partial", kept)
    history = replace(known(window()), cold_items=None)
    scores = RECIPE.train(history).score(history)
    model, (_, of_users, of_items, _) = made[-1]
    assert len(made) == RECIPE.iterations
    for user in (0, 17):
        items = np.arange(history.n_items, dtype=np.int32)
        expected = model.predict(
            np.full_like(items, user), items, item_features=of_items, user_features=of_users
        )
        actual = scores.users[user] @ scores.items.T
        shift = expected - actual  # a user's own bias moves no list
        np.testing.assert_allclose(shift, shift[0], atol=1e-4)
    assert np.abs(scores.items[:, -1]).max() > 0.01


def test_a_new_item_and_a_new_user_are_answered_for_by_features():
    history = known(window())
    scorer = RECIPE.train(history)
    assert scorer.item_ids.tolist() == sorted([*history.item_ids.tolist(), "a0", "i1new", "z2"])
    longer = history.reindex_items(scorer.item_ids)
    new = np.isin(scorer.item_ids, ["a0", "i1new", "z2"])
    lists = top_k(scorer.score(longer), 1, allowed=new)
    firsts = scorer.item_ids[lists.item].tolist()
    kinds = {"0": "a0", "1": "i1new", "2": "z2"}
    assert firsts == [kinds[user[1]] for user in history.user_ids.tolist()]
    found = top_k(scorer.score(new_users(longer, [[0], [2]])), 5)
    assert {item[1] for item in scorer.item_ids[found.of(0)].tolist()} == {"0"}
    assert {item[1] for item in scorer.item_ids[found.of(1)].tolist()} <= {"2"}


def test_a_new_user_without_features_is_refused():
    history = known(window())
    scorer = RECIPE.train(history)
    longer = history.reindex_items(scorer.item_ids)
    with pytest.raises(KeyError, match="1 users were not in the training window"):
        scorer.score(new_users(longer, [[0], []]))
    with pytest.raises(KeyError, match="cannot"):
        scorer.fold_in(longer)


def test_features_of_no_items_and_no_users_change_nothing():
    history = window()
    blank = replace(
        history,
        item_features=described([[]] * history.n_items),
        user_features=described([[]] * history.n_users),
    )
    one, other = RECIPE.train(history), RECIPE.train(blank)
    np.testing.assert_array_equal(one.user_factors, other.user_factors)


def test_an_item_without_features_is_learnt_from_its_events():
    history = known(window())
    rows = [[int(item[1])] for item in history.item_ids.tolist()]
    rows[0] = []
    scorer = RECIPE.train(replace(history, item_features=described(rows), cold_items=None))
    assert own_group(scorer, history) > 0.9
    scores = scorer.score(history)
    liked = scores.users @ scores.items[:2].T
    fans = np.char.startswith(history.user_ids, "u" + history.item_ids[0][1])
    blank, described_one = liked[fans].mean(axis=0) - liked[~fans].mean(axis=0)
    assert blank > 0.3 * described_one > 0


def test_a_row_of_features_weighs_the_same_however_large_its_cells():
    def louder(known):
        return None if known is None else replace(known, cells=known.cells * np.float32(4))

    history = replace(known(window()), cold_items=None)
    loud = replace(
        history,
        item_features=louder(history.item_features),
        user_features=louder(history.user_features),
    )
    one, other = RECIPE.train(history), RECIPE.train(loud)
    assert one.item_factors.tobytes() == other.item_factors.tobytes()
    users = new_users(history, [[0, 1]])
    scores = [
        one.score(some).users.tobytes()
        for some in (users, replace(users, user_features=louder(users.user_features)))
    ]
    assert scores[0] == scores[1]


def test_one_thread_gives_the_same_bytes_and_another_replicate_others():
    history = known(window())
    one, other, redrawn = (
        RECIPE.train(history, replicate=replicate).arrays() for replicate in (0, 0, 1)
    )
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert one["item_factors"].tobytes() != redrawn["item_factors"].tobytes()
    assert not RECIPE.capabilities.deterministic


def test_an_example_weighs_its_confidence():
    history = window()
    heavy = history.weight.copy()
    heavy[history.indptr[0]] = 50.0
    one, other = RECIPE.train(history), RECIPE.train(replace(history, weight=heavy))
    scaled = RECIPE.train(replace(history, weight=history.weight * 8))
    assert one.item_factors.tobytes() != other.item_factors.tobytes()
    assert one.item_factors.tobytes() == scaled.item_factors.tobytes()


def test_whoever_took_everything_back_gets_no_list():
    history = window()
    weight = history.weight.copy()
    weight[: history.indptr[1]] = 0.0
    bare = replace(history, weight=weight)
    lists = top_k(RECIPE.train(bare).score(bare), 5)
    assert lists.counts.tolist() == [0] + [5] * (history.n_users - 1)
    described_ = replace(known(bare), cold_items=None)
    lists = top_k(RECIPE.train(described_).score(described_), 5)
    assert lists.counts.tolist() == [5] * history.n_users


def test_its_arrays_bring_back_the_same_lists():
    history = known(window())
    scorer = RECIPE.train(history)
    arrays = scorer.arrays()
    assert all(array.dtype != object for array in arrays.values())
    again = families.load("lightfm", arrays)
    longer = history.reindex_items(scorer.item_ids)
    for some in (longer, new_users(longer, [[1]])):
        one, other = (top_k(each.score(some), 10) for each in (scorer, again))
        assert (one.item.tobytes(), one.score.tobytes()) == (
            other.item.tobytes(),
            other.score.tobytes(),
        )


def test_it_can_be_the_base_of_ridge():
    history = known(window())
    scorer = Ridge(factors_of=RECIPE).train(history)
    longer = history.reindex_items(scorer.item_ids)
    some, new = longer.take(np.array([25, 3])), new_users(longer, [[2], []])
    assert top_k(scorer.score(some), 3).counts.tolist() == [3, 3]
    both = replace(
        some,
        user_ids=np.concatenate([some.user_ids, new.user_ids]),
        indptr=np.concatenate([some.indptr, some.indptr[-1:], some.indptr[-1:]]),
        user_features=described([[2], [0], [2], []]),
    )
    # LightFM refuses the last two; one of them is answered for by features.
    lists = top_k(scorer.score(both), 5)
    assert lists.counts.tolist() == [5, 5, 5, 0]
    assert lists.of(0).tolist() == top_k(scorer.score(some), 5).of(0).tolist()
    assert {item[1] for item in scorer.item_ids[lists.of(2)].tolist()} <= {"2"}
    with pytest.raises(KeyError):
        scorer.score(replace(some, user_ids=np.array(["x", "y"]), user_features=None))


def test_a_step_that_is_too_long_is_reported():
    recipe = RECIPE.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(ConfigError, match=r"lower learning_rate \(1e\+30\)"):
        recipe.train(window())


def test_without_the_library_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightfm", None)
    with raises("extra.lightfm_missing"):
        RECIPE.train(window())


def test_more_threads_are_the_same_recipe():
    assert LightFm(threads=2).hash == LightFm().hash != LightFm(loss="bpr").hash
