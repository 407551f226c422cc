from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models import families
from pipeline.models.als import Als, solve_users
from tests.raising import raises
from tests.windows import END, pairs, random_history, shuffled

SMALL = Als(factors=6, regularization=0.5, iterations=4, device="cpu")


def test_users_solve_their_normal_equations():
    history = random_history()
    scorer = SMALL.train(history)
    cells = history.confidence(SMALL.half_life_days).toarray().astype(np.float64) * scorer.scale
    items = scorer.item_factors.astype(np.float64)
    for row, confidence in enumerate(cells):
        # Seen cells want 1 with their confidence, all others want 0 with confidence 1.
        weight = np.where(confidence > 0, confidence, 1.0)
        left = items.T @ (weight[:, None] * items) + SMALL.regularization * np.eye(6)
        right = items.T @ confidence
        np.testing.assert_allclose(
            scorer.user_factors[row], np.linalg.solve(left, right), rtol=1e-5, atol=1e-6
        )


def test_training_lowers_the_objective_round_by_round():
    history = random_history()

    def objective(rounds: int) -> float:
        scorer = SMALL.model_copy(update={"iterations": rounds}).train(history)
        cells = history.confidence(SMALL.half_life_days).toarray() * scorer.scale
        predicted = scorer.user_factors @ scorer.item_factors.T
        loss = np.where(cells > 0, cells * (1 - predicted) ** 2, predicted**2).sum()
        penalty = (scorer.user_factors**2).sum() + (scorer.item_factors**2).sum()
        return float(loss + SMALL.regularization * penalty)

    losses = [objective(rounds) for rounds in (1, 3, 10)]
    assert losses[0] > losses[1] > losses[2]


def test_the_mean_cell_weighs_alpha():
    history = random_history()
    for alpha in (0.3, 40.0):
        scorer = SMALL.model_copy(update={"alpha": alpha}).train(history)
        cells = history.confidence(SMALL.half_life_days) * scorer.scale
        assert cells.data.mean() == pytest.approx(alpha, rel=1e-5)


@pytest.mark.parametrize(
    "same_but",
    [
        pytest.param(lambda: random_history(scale=7.0), id="weights in another unit"),
        pytest.param(lambda: random_history(end=END + timedelta(days=9)), id="days without events"),
    ],
)
def test_what_scales_all_cells_changes_nothing(same_but):
    one, other = SMALL.train(random_history()), SMALL.train(same_but())
    np.testing.assert_allclose(one.item_factors, other.item_factors, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.user_factors, other.user_factors, rtol=0, atol=1e-4)


def test_recent_events_weigh_more_and_no_half_life_is_no_decay():
    history = random_history()
    forever = SMALL.model_copy(update={"half_life_days": None}).train(history)
    later = History(
        **(history.arrays() | {"timestamp_us": history.timestamp_us // 2, "end": history.end})
    )
    unmoved = SMALL.model_copy(update={"half_life_days": None}).train(later)
    assert np.array_equal(forever.item_factors, unmoved.item_factors)
    assert not np.allclose(forever.item_factors, SMALL.train(history).item_factors, atol=1e-3)
    again = type(forever).from_arrays(forever.arrays())
    assert again.half_life_days is None


def test_threads_change_no_bit():
    # Large enough that a row of blocks is shared out among the threads.
    history = random_history(n_users=2000, n_items=500, events=60_000)
    recipe = SMALL.model_copy(update={"factors": 32})
    with threadpool_limits(1):
        single = recipe.train(history).arrays()
    with threadpool_limits(2):
        double = recipe.train(history).arrays()
    assert all(single[name].tobytes() == double[name].tobytes() for name in single)


def test_order_of_rows_and_pseudonyms_are_no_cause():
    history = random_history()
    other, order = shuffled(history)
    one, two = SMALL.train(history), SMALL.train(other)
    np.testing.assert_allclose(one.item_factors, two.item_factors, rtol=0, atol=1e-4)
    users = two.score(other).users
    np.testing.assert_allclose(one.user_factors[order], users, rtol=0, atol=1e-4)


def test_known_users_are_scored_as_trained_beside_others():
    history = random_history()
    scorer = SMALL.train(history.take(np.arange(0, history.n_users, 2)))
    mixed = scorer.score(history)
    known = np.arange(history.n_users) % 2 == 0
    assert mixed.users is not None
    assert np.array_equal(mixed.users[known], scorer.user_factors)
    folded = scorer.fold_in(history).users
    assert np.array_equal(mixed.users, folded)
    newer = history.take(np.arange(history.n_users)[::-1])
    newer = History(**(newer.arrays() | {"user_ids": history.user_ids, "end": history.end}))
    stays = scorer.score(newer).users
    assert np.array_equal(stays[known], scorer.user_factors)
    assert not np.allclose(scorer.fold_in(newer).users[known], scorer.user_factors, atol=1e-3)


def test_solving_no_user_and_a_user_without_cells():
    items = np.ones((3, 2), np.float32)
    assert solve_users(items, sp.csr_matrix((0, 3), dtype=np.float32), 1.0).shape == (0, 2)
    assert not solve_users(items, sp.csr_matrix((2, 3), dtype=np.float32), 1.0).any()


def test_progress_reports_the_rounds():
    lines: list[str] = []
    SMALL.train(random_history(), progress=lines.append)
    assert lines == [f"als: iteration {n} of 4" for n in (1, 2, 3, 4)]


def test_a_fit_that_does_not_stay_finite_is_refused():
    history = random_history()
    with raises("model.diverged"):
        SMALL.model_copy(update={"alpha": 1e30}).train(history)


@pytest.mark.parametrize("field", ["alpha", "regularization", "factors", "iterations"])
def test_nothing_is_no_setting(field):
    with pytest.raises(ConfigError, match=field):
        families.recipe_from({"family": "als", field: 0})


def test_more_factors_than_users_and_items():
    history = pairs([("a", "x"), ("b", "x"), ("b", "y")])
    scorer = Als(factors=50, regularization=0.1, device="cpu").train(history)
    assert scorer.item_factors.shape == (2, 50)
    scores = scorer.score(history)
    assert (scores.users @ scores.items.T)[0, 1] > 0  # b has both


def test_what_everybody_gave_back_leaves_no_vector():
    history = pairs([("a", "x", 1.0), ("a", "x", -2.0), ("b", "y", 0.0)])
    scorer = SMALL.train(history)
    assert not scorer.item_factors.any()
    assert not scorer.user_factors.any()
