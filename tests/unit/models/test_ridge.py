from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.models import families, feature_map
from pipeline.models.als import Als
from pipeline.models.feature_map import learn_map
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.ridge import Ridge
from pipeline.models.selection import select_hyperparameters
from tests.raising import raises
from tests.windows import described, grouped, with_groups

BASE = Als(factors=4, regularization=0.1, iterations=10, half_life_days=None, device="cpu")


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
    fitted = learn_map(known, factors, [regularization])
    weights, offset = plainly(known.cells.toarray().astype(float), factors, regularization)
    np.testing.assert_allclose(fitted.weights, weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.offset, offset, rtol=1e-5)
    assert fitted.regularization == regularization


def test_the_regularization_minimises_the_error_of_left_out_rows():
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
    fitted = learn_map(known, factors, [1.0])
    assert fitted.weights[2].tolist() == [0, 0]
    assert np.abs(fitted.weights[:2]).min() > 0


def test_two_features_that_always_go_together_are_no_obstacle():
    known = described([[0, 1], [0, 1], [2], [2, 3], [0, 1, 3]], 4)
    fitted = learn_map(known, np.arange(10, dtype=np.float32).reshape(5, 2), (1.0, 10.0))
    assert np.isfinite(fitted.weights).all()
    np.testing.assert_allclose(fitted.weights[0], fitted.weights[1], rtol=1e-6)


def test_the_bytes_do_not_hang_on_threads():
    rng = np.random.default_rng(0)
    x = sp.random(700, 500, 0.05, format="csr", dtype=np.float32, random_state=rng)
    known = FeatureMatrix(np.array([f"f={n:03}" for n in range(500)]), x)
    factors = rng.normal(size=(700, 16)).astype(np.float32)
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            results.append(learn_map(known, factors, (1.0, 10.0)))
    assert results[0].weights.tobytes() == results[1].weights.tobytes()


def test_other_features_than_those_learnt_from_are_refused():
    known, factors = problem()
    fitted = learn_map(known, factors, [1.0])
    with pytest.raises(ValueError, match="other features"):
        fitted.factors(described([[0]], 3))


# --- new items ----------------------------------------------------------------------------------


def test_items_with_users_keep_the_scores_of_the_base():
    history = with_groups(grouped(), users=False)
    base, scorer = BASE.train(history), Ridge(factors_of=BASE).train(history)
    expected, actual = base.score(history), scorer.score(history.reindex_items(scorer.item_ids))
    kept = np.isin(scorer.item_ids, history.item_ids)
    assert scorer.base.item_ids is history.item_ids
    assert actual.users.tobytes() == expected.users.tobytes()
    assert actual.items[kept].tobytes() == expected.items.tobytes()


@pytest.mark.parametrize("lacking", ["item_features", "cold_items"])
def test_without_a_table_it_is_its_base(lacking):
    history = with_groups(grouped(), users=False)
    if lacking == "item_features":
        history = replace(history, item_features=None, cold_items=None)
    else:
        history = replace(history, cold_items=None)
    base, scorer = BASE.train(history), Ridge(factors_of=BASE).train(history)
    assert scorer.item_ids is history.item_ids
    for answer, expected in (
        (scorer.score(history), base.score(history)),
        (scorer.fold_in(history), base.fold_in(history)),
    ):
        assert answer.users.tobytes() == expected.users.tobytes()
        assert answer.items.tobytes() == expected.items.tobytes()


def test_too_few_events_of_an_item_are_outweighed_by_its_features():
    history = with_groups(grouped(), cold_items=False, users=False)
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
        predicted = Ridge(factors_of=BASE, min_users=min_users).train(history).score(history)
        scores[min_users] = float((predicted.users[fans] @ predicted.items[few].T).mean())
    assert abs(scores[1]) < 0.1 < 0.5 < scores[2]
    without_features = replace(history.item_features, cells=history.item_features.cells.copy())
    without_features.cells.data[history.item_features.cells.indptr[few[0]]] = 0
    without_features.cells.eliminate_zeros()
    bare = replace(history, item_features=without_features)
    predicted = Ridge(factors_of=BASE, min_users=2).train(bare).score(bare)
    expected = BASE.train(bare).score(bare)
    assert predicted.items.tobytes() == expected.items.tobytes()  # nothing is known of it: no guess


def test_a_base_with_a_term_of_own_items_keeps_it_in_place():
    history = with_groups(grouped(), users=False)
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


def test_a_base_that_lists_new_items_itself_is_asked_for_the_old_ones_alone():
    history = with_groups(grouped(), users=False)
    scorer = Ridge(factors_of=Ridge(factors_of=BASE)).train(history)
    assert scorer.base.item_ids is history.item_ids
    assert len(scorer.item_ids) == history.n_items + 3


def test_a_base_without_factors_is_refused():
    knn = families.recipe_from({"family": "ridge", "factors_of": {"family": "item_knn"}})
    with raises("recipe.base_without_factors"):
        knn.train(with_groups(grouped(), users=False))


# --- files and settings -------------------------------------------------------------------------


def test_a_catalogue_that_base_and_scorer_share_is_stored_once():
    history = with_groups(grouped())
    scorer = Ridge(factors_of=BASE).train(history)
    again = families.load("ridge", scorer.arrays())
    assert again.base.item_ids.tolist() == history.item_ids.tolist() != again.item_ids.tolist()
    alone = Ridge(factors_of=BASE).train(replace(history, cold_items=None)).arrays()
    assert sum(array.tolist() == history.item_ids.tolist() for array in alone.values()) == 1


def test_it_selects_its_base_and_then_itself():
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


def test_memory_includes_features_and_the_vectors_of_the_base():
    history = with_groups(grouped())
    bare = replace(history, item_features=None, cold_items=None, user_features=None)
    assert Ridge(factors_of=BASE).peak_bytes(bare) == BASE.peak_bytes(bare)
    two = families.recipe_from(
        {"family": "blend", "parts": {"a": BASE.model_dump(), "b": BASE.model_dump()}}
    )
    short, long = (Ridge(factors_of=base).peak_bytes(history) for base in (BASE, two))
    assert BASE.peak_bytes(bare) < short < long


def test_an_item_without_features_is_predicted_from_its_events():
    history = with_groups(grouped(), cold_items=False, users=False)
    rows = [[int(item[1])] for item in history.item_ids.tolist()]
    rows[0] = []
    history = replace(history, item_features=described(rows))
    scores = Ridge(factors_of=BASE, min_users=1000).train(history).score(history).items
    expected = BASE.train(history).score(history).items
    assert np.isfinite(scores).all()
    changed = (scores != expected).any(axis=1)
    assert not changed[0]
    assert changed[1:].all()  # these are predicted from their features
