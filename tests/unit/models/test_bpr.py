from __future__ import annotations

import numpy as np
import pytest

from pipeline.models.bpr import Bpr
from pipeline.models.topk import top_k
from tests.windows import pairs, random_history

SMALL = Bpr(factors=8, iterations=20, learning_rate=0.05, regularization=0.01)


def tastes(n_users=90, n_items=30, seed=0):
    """Three groups: a user has most of a third of the items, and one other."""
    rng = np.random.default_rng(seed)
    rows = []
    for u in range(n_users):
        own = rng.permutation(np.arange(u % 3, n_items, 3))[:7]
        rows += [(f"u{u:02}", f"i{i:02}") for i in [*own, rng.integers(n_items)]]
    return pairs(rows)


def test_items_of_a_user_rank_above_other_items():
    history = tastes()
    scorer = SMALL.model_copy(update={"iterations": 150}).train(history)
    lists = top_k(scorer.score(history), 3, exclude=history.seen)
    kind = lists.row % 3 == lists.item % 3  # a user's own kind, though they have none of these
    assert kind.mean() > 0.8


def test_popularity_is_given_back():
    # No user has a taste: a score is the log of the number of users with the item, plus a constant.
    history = random_history(n_users=400, n_items=60, events=5000)
    scorer = SMALL.train(history)
    user_counts = np.bincount(history.confidence(None).indices, minlength=history.n_items)
    scores = (scorer.score(history).users @ scorer.item_factors.T).mean(axis=0)
    slope, _ = np.polyfit(np.log(user_counts), scores, 1)
    assert 0.8 < slope < 1.3


def test_users_who_were_not_there_are_refused_by_number():
    history = random_history()
    scorer = SMALL.train(history.take(np.arange(0, history.n_users, 2)))
    with pytest.raises(KeyError, match=f"{history.n_users // 2} users"):
        scorer.score(history)
    with pytest.raises(KeyError, match=f"{history.n_users} users"):
        scorer.fold_in(history)
    assert scorer.score(history.take(np.array([4, 2]))).users.tolist() == (
        scorer.user_factors[[2, 1]].tolist()
    )
