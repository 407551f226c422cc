from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.split import Split
from pipeline.evaluation import new_users
from pipeline.evaluation.new_users import evaluate_new_users
from pipeline.models.als import Als
from pipeline.models.families import recipe_from
from pipeline.models.ridge import Ridge
from tests.raising import raises
from tests.windows import END, grouped, strangers, with_groups

WINDOW = with_groups(grouped(), cold_items=False)
NEW = strangers(WINDOW, [[n % 3] for n in range(60)])
RIDGE = Ridge(factors_of=Als(factors=4, regularization=0.1, device="cpu"))
POPULARITY = recipe_from({"family": "popularity"})


def split(targets) -> Split:
    """A holdout in which users without events have these targets."""
    frame = pl.DataFrame(targets, schema=[c.USER_ID, c.ITEM_ID], orient="row")
    return Split(
        train=Interval(END - timedelta(days=30), END),
        holdout=Interval(END, END + timedelta(days=7)),
        holdout_days=7,
        task="discovery",
        repeat_share=None,
        target_kinds=("purchase",),
        judged=(),
        flags=(),
        truth=frame.clear(),
        targets=frame,
    )


def of_group(shift: int) -> Split:
    return split([(f"new{n}", f"i{(n + shift) % 3}{n % 10}") for n in range(60)])


def judged(holdout, recipe=RIDGE):
    scorer, fallback = recipe.train(WINDOW), POPULARITY.train(WINDOW)
    return evaluate_new_users(scorer, fallback, NEW, holdout, 10)


def test_lists_from_features_are_better_where_users_want_what_their_like_had():
    result = judged(of_group(0))
    assert result.users == 60
    assert result.better and result.ndcg - result.fallback_ndcg > result.low > 0


def test_they_are_not_where_users_want_something_else():
    result = judged(of_group(1))
    assert not result.better and result.ndcg < result.fallback_ndcg


@pytest.mark.parametrize("family", ["als", "bpr", "popularity"])
def test_a_family_that_has_no_list_from_features_is_not_compared(family):
    assert judged(of_group(0), recipe_from({"family": family})) is None


def test_few_users_are_not_compared(monkeypatch):
    few = split(of_group(0).targets.rows()[: new_users.LEAST_USERS - 1])
    assert judged(few) is None
    monkeypatch.setattr(new_users, "LEAST_USERS", 49)
    assert judged(few).users == 49


def test_a_scorer_that_saw_the_holdout_is_refused():
    late = replace(WINDOW, end=END + timedelta(days=1))
    scorer, fallback = RIDGE.train(late), POPULARITY.train(WINDOW)
    with raises("evaluate.leak"):
        evaluate_new_users(scorer, fallback, NEW, of_group(0), 10)
