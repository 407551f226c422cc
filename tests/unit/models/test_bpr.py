from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.models import families
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


def test_what_a_user_has_comes_before_what_they_have_not():
    history = tastes()
    scorer = SMALL.model_copy(update={"iterations": 150}).train(history)
    lists = top_k(scorer.score(history), 3, exclude=history.seen)
    kind = lists.row % 3 == lists.item % 3  # a user's own kind, though they have none of these
    assert kind.mean() > 0.8


def test_popularity_is_given_back():
    # Without preferences a score is the log of an item's number of users, up to a constant.
    history = random_history(n_users=400, n_items=60, events=5000)
    scorer = SMALL.train(history)
    user_counts = np.bincount(history.confidence(None).indices, minlength=history.n_items)
    scores = (scorer.score(history).users @ scorer.item_factors.T).mean(axis=0)
    slope, _ = np.polyfit(np.log(user_counts), scores, 1)
    assert 0.8 < slope < 1.3


def test_one_thread_repeats_itself_and_threads_are_no_other_recipe():
    one, other = (SMALL.train(random_history()).arrays() for _ in range(2))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    both = SMALL.model_copy(update={"threads": 2})
    assert both.hash == SMALL.hash
    assert both.train(random_history()).item_factors.shape == (80, 9)


def test_unknown_users_are_refused_by_number():
    history = random_history()
    scorer = SMALL.train(history.take(np.arange(0, history.n_users, 2)))
    with pytest.raises(KeyError, match=f"{history.n_users // 2} users"):
        scorer.score(history)
    with pytest.raises(KeyError, match=f"{history.n_users} users"):
        scorer.fold_in(history)
    assert scorer.score(history.take(np.array([4, 2]))).users.tolist() == (
        scorer.user_factors[[2, 1]].tolist()
    )


def test_users_and_items_of_whom_nothing_is_left():
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "z", 1.0), ("c", "z", -1.0)]
    history = pairs(rows)
    lists = top_k(SMALL.train(history).score(history), 3)
    assert lists.counts.tolist() == [3, 3, 0]
    assert lists.of(0)[-1] == lists.of(1)[-1] == 2
    nothing = replace(history, weight=np.zeros_like(history.weight))
    assert top_k(SMALL.train(nothing).score(nothing), 3).counts.tolist() == [0, 0, 0]


def test_more_factors_than_users_and_items():
    history = pairs([("a", "x"), ("b", "x"), ("b", "y")])
    scorer = Bpr(factors=50, iterations=5).train(history)
    assert scorer.item_factors.shape == (2, 51)
    assert np.isfinite(scorer.item_factors).all()


def test_progress_reports_the_rounds():
    lines: list[str] = []
    SMALL.model_copy(update={"iterations": 3}).train(random_history(), progress=lines.append)
    assert lines == [f"bpr: iteration {n} of 3" for n in (1, 2, 3)]


def test_a_fit_that_does_not_stay_finite_is_refused():
    wild = Bpr(factors=8, iterations=300, learning_rate=1.0, regularization=0.0)
    advice = "lower learning_rate (1.0) or raise regularization (0.0)"
    with pytest.raises(ConfigError, match=re.escape(advice)):
        wild.train(random_history())


@pytest.mark.parametrize("field", ["learning_rate", "factors", "iterations", "threads"])
def test_nothing_is_no_setting(field):
    with pytest.raises(ConfigError, match=field):
        families.recipe_from({"family": "bpr", field: 0})
