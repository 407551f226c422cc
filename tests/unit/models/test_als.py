from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from pipeline.data.matrix import History
from pipeline.models.als import Als, solve_users
from tests.windows import random_history

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


def test_known_users_are_scored_as_trained_beside_strangers():
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


def test_solving_no_users_and_a_user_without_cells():
    items = np.ones((3, 2), np.float32)
    assert solve_users(items, sp.csr_matrix((0, 3), dtype=np.float32), 1.0).shape == (0, 2)
    assert not solve_users(items, sp.csr_matrix((2, 3), dtype=np.float32), 1.0).any()
