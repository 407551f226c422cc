from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from pipeline import columns as c
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.models import families, feature_map
from pipeline.models.als import Als
from pipeline.models.feature_map import learn_map
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.ridge import Ridge
from pipeline.models.selection import select_hyperparameters
from pipeline.models.topk import top_k
from tests.raising import raises

END = datetime(2024, 3, 1, tzinfo=UTC)
BASE = Als(factors=4, regularization=0.1, iterations=10, half_life_days=None, device="cpu")
GROUPS, SIZE = 3, 10


def described(rows, width: int) -> FeatureMatrix:
    """Rows of feature numbers."""
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.array([column for row in rows for column in row], np.int32)
    cells = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), (len(rows), width))
    return FeatureMatrix(np.array([f"f={n}" for n in range(width)]), cells)


def window(others: bool = True, users: bool = False) -> History:
    """Thirty items and thirty users in three groups; everybody has most items of their group."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{group}{n}", f"i{group}{m}", END - timedelta(days=1), 1.0)
        for group in range(GROUPS)
        for n in range(SIZE)
        for m in range(SIZE)
        if rng.random() < 0.8
    ]
    schema = {
        c.USER_ID: pl.String(),
        c.ITEM_ID: pl.String(),
        c.TIMESTAMP: c.INSTANT,
        WEIGHT: pl.Float32(),
    }
    history = build_history(pl.DataFrame(rows, schema=schema, orient="row"), END)
    groups = [[int(item[1])] for item in history.item_ids.tolist()]
    # New items sort before, among and after the others; one for each group.
    ids = np.array(["a0", "i1new", "z2"])
    more = ColdItems(ids, described([[0], [1], [2]], GROUPS)) if others else None
    tastes = described([[int(user[1])] for user in history.user_ids.tolist()], GROUPS)
    return replace(
        history,
        item_features=described(groups, GROUPS),
        cold_items=more,
        user_features=tastes if users else None,
    )


def users_without_events(history: History, tastes) -> History:
    """Users without an event, described by their taste."""
    return History(
        user_ids=np.array([f"new{n}" for n in range(len(tastes))]),
        item_ids=history.item_ids,
        indptr=np.zeros(len(tastes) + 1, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
        user_features=described(tastes, GROUPS),
    )


# --- the regression -----------------------------------------------------------------------------


def problem(n=40, p=6, f=3, noise=0.3) -> tuple[FeatureMatrix, np.ndarray]:
    rng = np.random.default_rng(1)
    x = sp.random(n, p, 0.5, format="csr", dtype=np.float32, random_state=rng)
    v = x @ rng.normal(size=(p, f)) + 2.0 + noise * rng.normal(size=(n, f))
    return FeatureMatrix(np.array([f"f={n}" for n in range(p)]), x), v.astype(np.float32)


def plainly(x: np.ndarray, v: np.ndarray, regularization: float):
    """Ridge with a free offset, as a least squares of its own."""
    x_mean, v_mean = x.mean(axis=0), v.mean(axis=0)
    left = (x - x_mean).T @ (x - x_mean) + regularization * np.eye(x.shape[1])
    weights = np.linalg.solve(left, (x - x_mean).T @ (v - v_mean))
    return weights, v_mean - x_mean @ weights


@pytest.mark.parametrize("regularization", [0.1, 10.0])
def test_the_map_is_plain_ridge_regression(regularization):
    known, factors = problem()
    found = learn_map(known, factors, [regularization])
    weights, offset = plainly(known.cells.toarray().astype(float), factors, regularization)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.offset, offset, rtol=1e-5)
    assert found.regularization == regularization


def test_the_regularization_predicts_best_the_row_left_out():
    known, factors = problem(noise=3.0)
    x, v = known.cells.toarray().astype(float), factors.astype(float)
    tries = (0.01, 1.0, 3.0, 10.0, 100.0, 1000.0)
    errors = []
    for value in tries:
        off = 0.0
        for row in range(len(v)):
            others = np.arange(len(v)) != row
            weights, offset = plainly(x[others], v[others], value)
            off += np.square(v[row] - offset - x[row] @ weights).sum()
        errors.append(off)
    best = tries[int(np.argmin(errors))]
    assert best not in (tries[0], tries[-1])
    assert learn_map(known, factors, tries).regularization == best


def test_rows_are_taken_a_block_at_a_time(monkeypatch):
    known, factors = problem()
    whole = learn_map(known, factors, (0.1, 1.0, 10.0))
    monkeypatch.setattr(feature_map, "_ROWS", 7)
    assert learn_map(known, factors, (0.1, 1.0, 10.0)).regularization == whole.regularization


def test_only_the_most_common_features_teach(monkeypatch):
    monkeypatch.setattr(feature_map, "WIDEST", 2)
    known = described([[0, 1], [0, 1], [0, 2], [1, 2], [0], [1]], 3)
    factors = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    found = learn_map(known, factors, [1.0])
    assert found.weights[2].tolist() == [0, 0]
    assert np.abs(found.weights[:2]).min() > 0


def test_two_features_that_always_go_together_are_no_obstacle():
    known = described([[0, 1], [0, 1], [2], [2, 3], [0, 1, 3]], 4)
    found = learn_map(known, np.arange(10, dtype=np.float32).reshape(5, 2), (1.0, 10.0))
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(found.weights[0], found.weights[1], rtol=1e-6)


def test_the_bytes_do_not_hang_on_threads():
    rng = np.random.default_rng(0)
    x = sp.random(700, 500, 0.05, format="csr", dtype=np.float32, random_state=rng)
    known = FeatureMatrix(np.array([f"f={n:03}" for n in range(500)]), x)
    factors = rng.normal(size=(700, 16)).astype(np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append(learn_map(known, factors, (1.0, 10.0)))
    assert found[0].weights.tobytes() == found[1].weights.tobytes()


def test_other_features_than_those_learnt_from_are_refused():
    known, factors = problem()
    found = learn_map(known, factors, [1.0])
    with pytest.raises(ValueError, match="other features"):
        found.factors(described([[0]], 3))


# --- new items ----------------------------------------------------------------------------------


def test_a_new_item_is_listed_for_users_of_its_group():
    history = window()
    scorer = Ridge(factors_of=BASE).train(history)
    assert scorer.item_ids.tolist() == sorted([*history.item_ids.tolist(), "a0", "i1new", "z2"])
    longer = history.reindex_items(scorer.item_ids)
    new = np.isin(scorer.item_ids, ["a0", "i1new", "z2"])
    lists = top_k(scorer.score(longer), 3, allowed=new)
    assert lists.counts.tolist() == [3] * history.n_users
    for row, user in enumerate(history.user_ids.tolist()):
        first = scorer.item_ids[lists.of(row)[0]]
        assert first == {"0": "a0", "1": "i1new", "2": "z2"}[user[1]]
    with pytest.raises(ValueError, match="catalogue"):
        scorer.score(history)


def test_items_with_users_keep_the_scores_of_the_base():
    history = window()
    base, scorer = BASE.train(history), Ridge(factors_of=BASE).train(history)
    expected, actual = base.score(history), scorer.score(history.reindex_items(scorer.item_ids))
    kept = np.isin(scorer.item_ids, history.item_ids)
    assert scorer.base.item_ids is history.item_ids
    assert actual.users.tobytes() == expected.users.tobytes()
    assert actual.items[kept].tobytes() == expected.items.tobytes()


@pytest.mark.parametrize("lacking", ["item_features", "cold_items", "features"])
def test_without_a_table_or_a_feature_it_is_its_base(lacking):
    history = window()
    if lacking == "item_features":
        history = replace(history, item_features=None, cold_items=None)
    elif lacking == "cold_items":
        history = replace(history, cold_items=None)
    else:
        history = replace(
            history, item_features=described([[]] * history.n_items, GROUPS), cold_items=None
        )
    base, scorer = BASE.train(history), Ridge(factors_of=BASE).train(history)
    assert scorer.item_ids is history.item_ids
    for answer, expected in (
        (scorer.score(history), base.score(history)),
        (scorer.fold_in(history), base.fold_in(history)),
    ):
        assert answer.users.tobytes() == expected.users.tobytes()
        assert answer.items.tobytes() == expected.items.tobytes()


def test_too_few_events_of_an_item_are_outweighed_by_its_features():
    history = replace(window(), cold_items=None)
    few = np.flatnonzero(history.item_ids == "i03")
    # Item i03 is left to one user, of another group, who has it by mistake.
    keep = history.item != few[0]
    odd = np.flatnonzero(history.user_ids == "u20")[0]
    keep[history.indptr[odd]] = True
    item = history.item.copy()
    item[history.indptr[odd]] = few[0]
    indptr = np.concatenate([[0], np.cumsum(keep)])[history.indptr]
    history = replace(
        history,
        indptr=indptr,
        item=item[keep],
        timestamp_us=history.timestamp_us[keep],
        weight=history.weight[keep],
    )
    fans = np.char.startswith(history.user_ids, "u0")
    scores = {}
    for min_users in (1, 2):
        found = Ridge(factors_of=BASE, min_users=min_users).train(history).score(history)
        scores[min_users] = float((found.users[fans] @ found.items[few].T).mean())
    assert abs(scores[1]) < 0.1 < 0.5 < scores[2]
    nameless = replace(history.item_features, cells=history.item_features.cells.copy())
    nameless.cells.data[history.item_features.cells.indptr[few[0]]] = 0
    nameless.cells.eliminate_zeros()
    bare = replace(history, item_features=nameless)
    found = Ridge(factors_of=BASE, min_users=2).train(bare).score(bare)
    expected = BASE.train(bare).score(bare)
    # Without features of its own, the item keeps the factors of the base.
    assert found.items.tobytes() == expected.items.tobytes()


def test_a_base_with_a_term_of_own_items_keeps_it_in_place():
    history = window()
    scorer = Ridge(factors_of=PersonalFrequency()).train(history)
    longer = history.reindex_items(scorer.item_ids)
    scores, expected = scorer.score(longer), PersonalFrequency().train(history).score(history)
    kept = np.isin(scorer.item_ids, history.item_ids)
    assert scores.shape == (history.n_users, len(scorer.item_ids))
    assert (scores.sparse_bonus[:, kept] != expected.sparse_bonus).nnz == 0
    assert scores.sparse_bonus[:, ~kept].nnz == 0
    assert scores.items[~kept].min() > 0  # as popular as its like
    assert scorer.capabilities.baseline is None
    assert scorer.capabilities.repeats_only


def test_a_base_that_lists_new_items_gets_the_old_ones_alone():
    history = window()
    scorer = Ridge(factors_of=Ridge(factors_of=BASE)).train(history)
    assert scorer.base.item_ids is history.item_ids
    assert len(scorer.item_ids) == history.n_items + 3


def test_a_base_without_factors_is_refused():
    knn = families.recipe_from({"family": "ridge", "factors_of": {"family": "item_knn"}})
    with raises("recipe.base_without_factors"):
        knn.train(window())


# --- new users ----------------------------------------------------------------------------------


def test_a_new_user_is_scored_by_features_and_not_without():
    history = replace(window(users=True), cold_items=None)
    scorer = Ridge(factors_of=BASE).train(history)
    lists = top_k(scorer.score(users_without_events(history, [[0], [2], []])), 5)
    assert lists.counts.tolist() == [5, 5, 0]
    for row, group in ((0, "i0"), (1, "i2")):
        assert np.char.startswith(history.item_ids[lists.of(row)], group).all()
    again = top_k(scorer.fold_in(users_without_events(history, [[0], [2], []])), 5)
    assert again.item.tolist() == lists.item.tolist()
    known = scorer.score(history)
    assert known.users.tobytes() == BASE.train(history).score(history).users.tobytes()


# --- files and settings -------------------------------------------------------------------------


def test_its_arrays_are_plain_and_bring_back_the_same_lists():
    history = window(users=True)
    scorer = Ridge(factors_of=BASE).train(history)
    arrays = scorer.arrays()
    assert all(array.dtype != object for array in arrays.values())
    again = families.load("ridge", arrays)
    longer = history.reindex_items(scorer.item_ids)
    new_users = users_without_events(longer, [[1], []])
    for some in (longer, new_users):
        one, other = (top_k(each.score(some), 10) for each in (scorer, again))
        assert one.item.tobytes() == other.item.tobytes()
        assert one.score.tobytes() == other.score.tobytes()
    assert again.base.item_ids.tolist() == history.item_ids.tolist()
    rebuilt = again.arrays()
    assert rebuilt.keys() == arrays.keys()
    # Where base and scorer share their catalogue it is stored once.
    alone = Ridge(factors_of=BASE).train(replace(history, cold_items=None)).arrays()
    assert sum(array.tolist() == history.item_ids.tolist() for array in alone.values()) == 1


def test_it_selects_for_its_base_and_then_for_itself():
    class Higher:
        """Trials where a larger alpha and a smaller regularization of the ridge are better."""

        discovery = True

        def better(self, recipe, than):
            def value(one):
                if isinstance(one, Ridge):
                    return -(one.regularization or 1e9)
                return one.alpha

            return value(recipe) > value(than)

        def pools(self, recipes, newest=None):
            raise AssertionError("no weights are sought")

    recipe = Ridge(
        factors_of=BASE.model_copy(update={"tune": ("alpha",)}), tune=("regularization",)
    )
    assert recipe.has_free_params
    selected = select_hyperparameters(recipe, Higher())
    assert not selected.has_free_params
    assert selected.factors_of.alpha == Als.space["alpha"].grid[-1]
    assert selected.regularization == 1.0
    assert selected.tune == selected.factors_of.tune == ()
    assert Ridge(factors_of=BASE).hash != Ridge(factors_of=Als()).hash


def test_another_device_of_a_part_is_the_same_recipe():
    for dumped in (
        {"family": "ridge", "factors_of": {"family": "als"}},
        {"family": "blend", "parts": {"a": {"family": "als"}, "b": {"family": "popularity"}}},
    ):
        recipe = families.recipe_from(dumped)
        (inner,) = (value for value in dumped.values() if isinstance(value, dict))
        als = inner.get("a", inner)
        als["device"] = "cuda"
        assert families.recipe_from(dumped).hash == recipe.hash
        als["alpha"] = 2.0
        assert families.recipe_from(dumped).hash != recipe.hash


def test_memory_counts_features_and_the_vectors_of_its_base():
    history = window(users=True)
    bare = replace(history, item_features=None, cold_items=None, user_features=None)
    assert Ridge(factors_of=BASE).peak_bytes(bare) == BASE.peak_bytes(bare)
    two = families.recipe_from(
        {"family": "blend", "parts": {"a": BASE.model_dump(), "b": BASE.model_dump()}}
    )
    short, long = (Ridge(factors_of=base).peak_bytes(history) for base in (BASE, two))
    assert BASE.peak_bytes(bare) < short < long


def test_an_item_without_features_is_scored_by_its_events():
    history = window(others=False)
    rows = [[int(item[1])] for item in history.item_ids.tolist()]
    rows[0] = []
    history = replace(history, item_features=described(rows, GROUPS))
    actual = Ridge(factors_of=BASE, min_users=1000).train(history).score(history).items
    expected = BASE.train(history).score(history).items
    assert np.isfinite(actual).all()
    changed = (actual != expected).any(axis=1)
    assert not changed[0]
    assert changed[1:].all()  # these are predicted from their features
