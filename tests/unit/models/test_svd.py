from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.models.svd import Svd
from pipeline.models.topk import top_k
from tests.windows import pairs, random_history

SMALL = Svd(factors=6, oversampling=4)


def plainly(history, recipe) -> np.ndarray:
    """Scores of all users by the formula, in float64 and with all singular vectors."""
    cells = history.confidence(recipe.half_life_days).toarray().astype(np.float64)
    users, items = cells.sum(axis=1), cells.sum(axis=0)
    users += recipe.smoothing * users.mean()
    items += recipe.smoothing * items.mean()
    _, values, vectors = np.linalg.svd(cells / np.sqrt(np.outer(users, items)))
    kept = vectors[: recipe.factors].T
    weight = values[: recipe.factors] ** recipe.damping
    return (cells / np.sqrt(items)) @ (kept * weight) @ kept.T * np.sqrt(items)


def scored(scorer, history) -> np.ndarray:
    scores = scorer.score(history)
    return scores.users @ scores.items.T


def overlap(one, other) -> float:
    rows = range(one.n_rows)
    return float(np.mean([len(set(one.of(n)) & set(other.of(n))) for n in rows])) / 10


@pytest.mark.parametrize(
    ("factors", "damping", "smoothing"), [(5, 0.5, 0.3), (5, 2.0, 0.0), (20, 0.0, 0.3)]
)
def test_scores_are_those_of_the_formula(factors, damping, smoothing):
    history = random_history(n_users=150, n_items=60, events=2000)
    recipe = Svd(factors=factors, damping=damping, smoothing=smoothing, iterations=50)
    expected = plainly(history, recipe)
    scores = scored(recipe.train(history), history)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_few_rounds_come_near():
    history = random_history()
    exact = plainly(history, SMALL)
    far = [
        np.abs(scored(SMALL.model_copy(update={"iterations": n}).train(history), history) - exact)
        for n in (1, 3, 10)
    ]
    assert far[0].mean() > far[1].mean() > far[2].mean()


def test_other_users_hardly_move_a_list_and_another_seed_does():
    # No taste to be learnt: which directions are found is up to the projection.
    today = random_history(events=3000, n_items=200)
    tomorrow = random_history(events=3000, n_items=200)
    tomorrow = replace(tomorrow, weight=tomorrow.weight.copy())
    tomorrow.weight[:20] += 1.0
    old = top_k(SMALL.train(today).score(today), 10, exclude=today.seen)
    new = top_k(SMALL.train(tomorrow).score(tomorrow), 10, exclude=today.seen)
    reseeded = top_k(SMALL.train(today, replicate=1).score(today), 10, exclude=today.seen)
    assert overlap(old, new) > 0.93
    assert overlap(old, reseeded) < 0.8


def test_without_smoothing_a_lonely_pair_is_a_direction_as_strong_as_any():
    rows = [(f"u{n % 40:02}", f"i{n * n % 37:02}") for n in range(400)]
    history = pairs([*rows, ("lonely", "own")])
    own = history.item_ids.tolist().index("own")
    shares = []
    for smoothing in (0.0, 1.0):
        recipe = Svd(factors=2, smoothing=smoothing, damping=0.0, iterations=30)
        scorer = recipe.train(history)
        # Of a full direction, the vector over the root of the degree has length 1.
        shares.append(np.linalg.norm(scorer.item_factors[own]) / np.sqrt(scorer.degree[own]))
    assert shares[0] == pytest.approx(1.0, abs=1e-3)
    assert shares[1] < 0.1


def test_more_factors_than_the_window_has_directions():
    # All but one item of one's own kind: rank 12, and the missing one is to be found.
    n = 12
    rows = [(f"u{a:02}", f"i{b:02}") for a in range(n) for b in range(a % 2, n, 2) if a != b]
    history = pairs(rows)
    recipe = Svd(factors=50, half_life_days=None)
    scorer = recipe.train(history)
    assert scorer.item_factors.shape == (n, 50)
    assert scorer.item_factors[:, :n].any(axis=0).all()
    assert not scorer.item_factors[:, n:].any()
    lists = top_k(scorer.score(history), 1, exclude=history.seen)
    assert lists.item.tolist() == list(range(n))
    np.testing.assert_allclose(scored(scorer, history), plainly(history, recipe), atol=1e-5)


def test_users_and_items_of_which_nothing_is_left():
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "z", 1.0), ("c", "z", -1.0)]
    history = pairs(rows)
    scorer = SMALL.train(history)
    scores = scorer.score(history)
    assert not scores.users[2].any()
    assert not scores.items[2].any()
    assert scores.users[:2].any(axis=1).all()
    nothing = SMALL.train(replace(history, weight=np.zeros_like(history.weight)))
    assert not nothing.item_factors.any()
    assert top_k(nothing.score(history), 3).counts.tolist() == [0, 0, 0]  # nor is it infinite


def test_old_events_weigh_less_in_the_window_and_in_a_profile():
    history = random_history()
    forever = SMALL.model_copy(update={"half_life_days": None}).train(history)
    scorer = SMALL.train(history)
    assert not np.allclose(forever.item_factors, scorer.item_factors, rtol=0.05)
    again = type(forever).from_arrays(forever.arrays())
    assert again.half_life_days is None
    long_ago = replace(history, timestamp_us=history.timestamp_us - 10 * 60 * 86_400_000_000)
    assert np.abs(scorer.score(long_ago).users).max() < np.abs(scorer.score(history).users).max()
    assert np.array_equal(forever.score(long_ago).users, forever.score(history).users)


def test_ancient_events_stay_finite():
    # 0.5^(3,650 days / 7) is far below what float32 can write.
    history = random_history()
    at = history.timestamp_us.copy()
    at[history.item == 3] -= 3650 * 86_400_000_000
    at[history.item == 4] -= 1000 * 86_400_000_000
    scorer = Svd(factors=6, half_life_days=7.0, smoothing=0.0).train(
        replace(history, timestamp_us=at)
    )
    assert np.isfinite(scored(scorer, replace(history, timestamp_us=at))).all()
