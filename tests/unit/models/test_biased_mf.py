"""Predicted ratings: the biases are a least squares, the factors model the rest."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.matrix import RATING, WEIGHT, History, build_history
from pipeline.models.biased_mf import BiasedMf, ratings_of
from pipeline.models.topk import top_k
from tests.raising import raises

END = datetime(2026, 3, 1, tzinfo=UTC)


def window(rows) -> History:
    """Build from (user, item, days before the end, rating or None)."""
    schema = {
        c.USER_ID: pl.String(),
        c.ITEM_ID: pl.String(),
        c.TIMESTAMP: c.INSTANT,
        RATING: pl.Float32(),
    }
    full = [(user, item, END - timedelta(days=days), rating) for user, item, days, rating in rows]
    frame = pl.DataFrame(full, schema=schema, orient="row")
    return build_history(frame.with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT)), END)


def random_ratings(seed=0, n_users=25, n_items=18, share=0.4):
    rng = np.random.default_rng(seed)
    quality, mood = rng.normal(0, 1, n_items), rng.normal(0, 0.7, n_users)
    return [
        (f"u{u:02}", f"i{i:02}", 3.0, float(np.clip(np.rint(3 + quality[i] + mood[u]), 1, 5)))
        for u in range(n_users)
        for i in range(n_items)
        if rng.random() < share
    ]


def predicted(scorer, history):
    scores = scorer.score(history)
    return scores.users.astype(np.float64) @ scores.items.T.astype(np.float64)


def least_squares(history, regularization):
    """Slow and plain: one dense system over all biases at once."""
    cells = ratings_of(history).tocoo()
    n_users, n_items = cells.shape
    design = np.zeros((len(cells.data), n_users + n_items))
    design[np.arange(len(cells.data)), cells.row] = 1
    design[np.arange(len(cells.data)), n_users + cells.col] = 1
    mean = cells.data.mean()
    left = design.T @ design + regularization * np.eye(n_users + n_items)
    biases = np.linalg.solve(left, design.T @ (cells.data - mean))
    return mean + biases[:n_users, None] + biases[None, n_users:]


@pytest.mark.parametrize("regularization", [0.5, 5.0, 50.0])
def test_biases_are_the_least_squares_of_all_ratings_at_once(regularization):
    history = window(random_ratings())
    recipe = BiasedMf(factors=0, regularization=regularization, iterations=100)
    expected = least_squares(history, regularization)
    np.testing.assert_allclose(predicted(recipe.train(history), history), expected, atol=1e-5)


def test_factors_find_a_taste_that_no_bias_can_express():
    rng = np.random.default_rng(1)
    taste, kind = rng.choice([-1.0, 1.0], 40), rng.choice([-1.0, 1.0], 30)
    truth = 3.0 + 1.5 * taste[:, None] * kind[None, :]
    given = rng.random(truth.shape) < 0.5
    rows = [(f"u{u:02}", f"i{i:02}", 2.0, float(truth[u, i])) for u, i in np.argwhere(given)]
    history = window(rows)
    hidden = ~given
    off = {
        factors: np.sqrt(
            np.mean(
                (
                    predicted(BiasedMf(factors=factors, regularization=0.1).train(history), history)
                    - truth
                )[hidden] ** 2
            )
        )
        for factors in (0, 1, 4)
    }  # fmt: skip
    assert off[1] < 0.1 and off[4] < 0.1
    assert off[0] > 1.2


def test_the_newest_rating_of_a_pair_counts_and_zero_is_a_rating():
    rows = [("a", "x", 9, 5.0), ("a", "x", 2, 0.0), ("a", "x", 1, None), ("b", "y", 4, 3.0)]
    for order in (rows, rows[::-1]):
        cells = ratings_of(window(order))
        assert cells.nnz == 2
        assert cells.toarray().tolist() == [[0.0, 0.0], [0.0, 3.0]]
    twice = BiasedMf().train(window([("a", "x", 9, 5.0), ("b", "x", 2, 4.0), ("a", "x", 1, 1.0)]))
    assert twice.mean == 2.5


def test_a_user_without_a_rating_gets_no_list_and_an_unrated_item_the_mean():
    rows = [("a", "x", 3, 5.0), ("a", "z", 3, 4.0), ("b", "x", 3, 2.0), ("b", "y", 2, None)]
    history = window([*rows, ("silent", "x", 1, None)])
    scorer = BiasedMf(factors=2).train(history)
    lists = top_k(scorer.score(history), 3)
    assert lists.counts.tolist() == [3, 3, 0]
    scores = predicted(scorer, history)
    assert scorer.item_biases[1] == 0  # y: seen by b, rated by no user
    assert scores[0, 1] > scores[1, 1]  # a rates higher than b


def test_more_damping_brings_all_users_nearer_to_the_mean():
    history = window(random_ratings())
    spread = [
        predicted(BiasedMf(factors=0, regularization=damping).train(history), history).std()
        for damping in (0.1, 3.0, 30.0, 1000.0)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.1 < spread[0]


@pytest.mark.parametrize("rating", [None, float("nan")])
def test_without_a_rating_it_is_refused_in_one_sentence(rating):
    history = window([("a", "x", 3, rating), ("b", "x", 3, rating)])
    with raises("model.no_ratings"):
        BiasedMf().train(history)
