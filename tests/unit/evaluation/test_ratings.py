"""RMSE and MAE equal a plain loop; unknown users and items are left out, and counted."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.features import FeaturesConfig, weigh
from pipeline.data.matrix import History, build_history
from pipeline.data.split import SplitConfig, split
from pipeline.evaluation import ratings
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.ratings import rating_errors
from pipeline.models.biased_mf import BiasedMf
from pipeline.models.contract import Capabilities, Scorer, Scores
from pipeline.models.popularity import DecayedPopularity
from tests.raising import raises

START = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=40)


def log(seed=0, n_users=40, n_items=30, events=1500):
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, n_users, events), rng.integers(0, n_items, events)
    kinds = rng.choice(["rating", "view"], events, p=[0.8, 0.2])
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{n}" for n in user],
            c.ITEM_ID: [f"i{n}" for n in item],
            c.KIND: kinds,
            c.VALUE: rng.integers(1, 6, events).astype(float),
            c.TIMESTAMP: pl.Series(
                [START + timedelta(days=float(d)) for d in rng.uniform(0, 40, events)],
                dtype=c.INSTANT,
            ),
        }
    )


def split_of(events):
    return split(events, AS_OF, SplitConfig(min_users=2, holdout_days_options=(7,)), first=False)


def slow(scorer, history, events, cutoff):
    """Ten plain lines: the newest rating of each pair in the holdout against the prediction."""
    scores = scorer.score(history)
    product = scores.users.astype(float) @ scores.items.T.astype(float)
    users, items = history.user_ids.tolist(), history.item_ids.tolist()
    newest = {}
    for row in events.sort(c.TIMESTAMP).iter_rows(named=True):
        if row[c.KIND] == "rating" and row[c.TIMESTAMP] >= cutoff:
            newest[row[c.USER_ID], row[c.ITEM_ID]] = row[c.VALUE]
    known = {k: v for k, v in newest.items() if k[0] in users and k[1] in items}
    off = [product[users.index(u), items.index(i)] - v for (u, i), v in known.items()]
    return (sum(o * o for o in off) / len(off)) ** 0.5, sum(map(abs, off)) / len(off), len(off)


@pytest.mark.parametrize("at_once", [8192, 7])
def test_both_equal_a_plain_loop_whatever_the_block(monkeypatch, at_once):
    monkeypatch.setattr(ratings, "AT_ONCE", at_once)
    events = log()
    parts = split_of(events)
    history = build_history(weigh(events, FeaturesConfig()), parts.cutoff)
    scorer = BiasedMf(factors=3).train(history)
    errors = rating_errors(scorer, history, parts.ratings)
    rmse, mae, count = slow(scorer, history, events, parts.cutoff)
    assert errors == {
        "rmse": pytest.approx(rmse),
        "mae": pytest.approx(mae),
        "ratings": count,
    }
    assert count > 100


def test_strangers_and_new_items_are_left_out_and_counted():
    events = log()
    parts = split_of(events)
    history = build_history(weigh(events, FeaturesConfig()), parts.cutoff)
    scorer = BiasedMf().train(history)
    before = rating_errors(scorer, history, parts.ratings)
    strange = pl.DataFrame(
        {c.USER_ID: ["zz", "u1", "a"], c.ITEM_ID: ["i1", "zz", "a"], c.VALUE: [1.0, 1.0, 1.0]}
    )
    assert rating_errors(scorer, history, pl.concat([parts.ratings, strange])) == before
    assert rating_errors(scorer, history, strange) == {"ratings": 0.0}
    assert rating_errors(scorer, history, strange[:0]) == {"ratings": 0.0}


def test_unknown_users_and_items_are_not_evaluated():
    events = log()
    parts = split_of(events)
    looked = events.with_columns(
        pl.when(pl.col(c.USER_ID) == "u3").then(pl.lit("view")).otherwise(c.KIND).alias(c.KIND)
    )
    history = build_history(weigh(looked, FeaturesConfig()), parts.cutoff)
    scorer = BiasedMf().train(history)
    errors = rating_errors(scorer, history, parts.ratings)
    others = parts.ratings.filter(pl.col(c.USER_ID) != "u3")
    assert errors == rating_errors(scorer, history, others)
    assert errors["ratings"] < parts.ratings.height


def test_only_scorers_that_predict_ratings_are_judged_by_them():
    events = log()
    parts = split_of(events)
    history = build_history(weigh(events, FeaturesConfig()), parts.cutoff)
    rated = evaluate(BiasedMf().train(history), history, parts, k=5).metrics
    assert {"rmse", "mae", "ratings", "ndcg_at_5"} <= set(rated)
    popular = evaluate(DecayedPopularity().train(history), history, parts, k=5).metrics
    assert not {"rmse", "mae", "ratings"} & set(popular)


@dataclass(frozen=True, eq=False)
class Empty(Scorer):
    """Declares ratings, but has no factors."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, ratings=True
    )

    def _fold_in(self, history: History) -> Scores:
        return Scores(sparse_bonus=history.seen)

    def arrays(self):
        return {}

    @classmethod
    def from_arrays(cls, arrays):
        raise AssertionError("not needed here")


def test_a_scorer_that_declares_ratings_and_gives_none_is_refused():
    events = log()
    parts = split_of(events)
    history = build_history(weigh(events, FeaturesConfig()), parts.cutoff)
    with raises("evaluate.ratings_without_factors"):
        rating_errors(
            Empty(item_ids=history.item_ids, trained_until=history.end), history, parts.ratings
        )
