"""Stability of lists overnight, as a figure of a trial.

Covered errors: an active user counts as inactive; the previous day has an event of the last day;
users or items are mixed up between the two; the figure of a pool is not that of the recipe's lists;
a stable recipe without hits wins, or an unstable one by a negligible lift.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.features import FeaturesConfig, weigh
from pipeline.data.matrix import build_history
from pipeline.data.split import SplitConfig, split
from pipeline.evaluation import blend_pool
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import MIN_INACTIVE, Window
from pipeline.models.families import recipe_from
from pipeline.models.topk import pair_scores
from pipeline.models.tuning import ACCEPTANCE, STABILITY_WEIGHT, utility
from tests import worlds

CUTOFF = worlds.START + timedelta(days=84)
DAY = timedelta(days=1)
ALS = recipe_from(
    {"family": "als", "factors": 8, "regularization": 1.0, "alpha": 4.0, "device": "cpu"}
)
TREND = recipe_from({"family": "decayed_popularity", "half_life_days": 0.5})


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return worlds.events(users=250)


def history(events, end):
    return build_history(weigh(events, FeaturesConfig()), end)


def window(events, policy="discovery") -> Window:
    parts = split(events, CUTOFF, SplitConfig(task=policy, min_users=50), first=False)
    past = events.filter(pl.col(c.TIMESTAMP) < parts.cutoff)
    previous_day = history(past, parts.cutoff - DAY)
    return Window.of(history(past, parts.cutoff), parts, CUTOFF, previous_day)


def with_a_new_item(events) -> pl.DataFrame:
    """Add a purchase, an hour before the window ends, of a new item that sorts first."""
    end = window(events).history.end
    late = events.head(1).with_columns(
        pl.lit("a0").alias(c.ITEM_ID),
        pl.lit(end - timedelta(hours=1)).cast(pl.Datetime("us", "UTC")).alias(c.TIMESTAMP),
    )
    return pl.concat([events, late])


@pytest.mark.parametrize("policy", ["discovery", "repeat"])
def test_the_previous_day_is_of_users_without_events_since(events, policy):
    tuning = window(events, policy)
    assert tuning.previous_day is not None
    since = tuning.history.end - DAY
    assert tuning.previous_day.history.end == since
    acted = events.filter(
        (pl.col(c.TIMESTAMP) >= since) & (pl.col(c.TIMESTAMP) < tuning.history.end)
    )[c.USER_ID]
    judged = tuning.judged.user_ids
    idle = sorted(set(judged) - set(acted))
    assert 0 < len(idle) < len(judged)
    assert sorted(judged[tuning.previous_day.rows]) == idle
    assert np.array_equal(tuning.previous_day.judged.user_ids, judged[tuning.previous_day.rows])
    assert (tuning.previous_day.exclude is None) == (policy == "repeat")


def test_an_event_at_the_very_end_of_the_previous_day_is_of_the_day_after(events):
    whole = window(events)
    assert whole.previous_day is not None
    one = whole.previous_day.judged.user_ids[0]
    at = pl.lit(whole.previous_day.history.end).cast(pl.Datetime("us", "UTC")).alias(c.TIMESTAMP)
    more = events.filter(pl.col(c.USER_ID) == one).head(1).with_columns(at)
    again = window(pl.concat([events, more]))
    assert again.previous_day is not None
    assert one in again.judged.user_ids
    assert one not in again.previous_day.judged.user_ids


def test_fewer_users_take_their_previous_day_along(events):
    whole = window(events)
    thin = whole.thinned(60)
    assert whole.previous_day is not None
    assert thin.previous_day is not None
    assert np.array_equal(
        thin.previous_day.judged.user_ids, thin.judged.user_ids[thin.previous_day.rows]
    )
    assert set(thin.previous_day.judged.user_ids) == set(thin.judged.user_ids) & set(
        whole.previous_day.judged.user_ids
    )
    assert whole.thinned(MIN_INACTIVE - 1).previous_day is None


def dense(scores):
    user, item = np.divmod(np.arange(np.prod(scores.shape)), scores.shape[1])
    return pair_scores(scores, user, item).reshape(scores.shape)


def overlap(recipe, tuning, k):
    """The plain reference: train twice, list twice, compare entry by entry."""
    kept = had = 0
    previous_day = tuning.previous_day
    now, then = recipe.train(tuning.history), recipe.train(previous_day.history)
    scores = [dense(now.score(tuning.judged)), dense(then.score(previous_day.judged))]
    for n, row in enumerate(previous_day.rows):
        lists = []
        for board, at, of in ((scores[0], row, tuning), (scores[1], n, previous_day)):
            line = board[at].copy()
            if of.exclude is not None:
                line[of.exclude[at].indices] = -np.inf
            best = np.argsort(-line, kind="stable")[:k]
            lists.append({of.history.item_ids[item] for item in best})
        had += len(lists[1])
        kept += len(lists[0] & lists[1])
    return kept / had


@pytest.mark.parametrize("policy", ["discovery", "repeat"])
@pytest.mark.parametrize("recipe", [ALS, TREND], ids=["als", "recency_boost"])
def test_stability_is_the_overlap_of_two_nights_in_a_pool_too(events, recipe, policy, monkeypatch):
    monkeypatch.setattr(blend_pool, "CANDIDATES", 10)  # parts propose no more than their lists
    tuning = window(with_a_new_item(events), policy)
    assert tuning.history.n_items == tuning.previous_day.history.n_items + 1
    trials = EarlierWindows([tuning], 10)
    wanted = overlap(recipe, tuning, 10)
    assert 0.05 < wanted < 1
    assert trials.stability(recipe) == pytest.approx(wanted, abs=1e-9)
    (pool,) = trials.pools({"one": recipe})
    kept = pool.stability.kept_share(
        pool.part_scores.scores["one"], pool.stability.part_scores.scores["one"]
    )
    assert kept == pytest.approx(wanted, abs=1e-9)


def test_new_items_are_not_in_lists_of_the_previous_day(events):
    tuning = window(with_a_new_item(events))
    (pool,) = EarlierWindows([tuning], 10).pools({"one": TREND})
    new = pool.stability.part_scores.item < 0
    assert new.any()
    first = np.where(new, 1, -np.arange(len(new)) / len(new)).astype(np.float32)
    offered = np.isin(tuning.previous_day.rows, pool.user[new]).sum()
    kept = pool.stability.kept_share(first, first)
    assert kept == pytest.approx(1 - offered / (10 * len(tuning.previous_day.rows)))


def test_stability_is_not_computed_where_no_window_has_a_previous_day(events):
    tuning = replace(window(events), previous_day=None)
    trials = EarlierWindows([tuning], 10)
    assert trials.stability(TREND) == 1.0
    assert trials.pools({"one": TREND})[0].stability is None


def test_of_two_that_find_as_much_the_calmer_one_is_better(events):
    trials = EarlierWindows([window(events)], 20)
    stable, restless = ALS, TREND
    trials._values |= {(stable.hash, 0): 0.2, (restless.hash, 0): 0.2}
    trials._stability |= {stable.hash: 0.95, restless.hash: 0.80}
    assert trials.better(stable, restless)
    assert not trials.better(restless, stable)
    needed = 0.2 * (0.95 / 0.80) ** STABILITY_WEIGHT
    trials._values[restless.hash, 0] = needed * (1 + ACCEPTANCE.min_gain / 2)
    assert not trials.better(restless, stable)
    trials._values[restless.hash, 0] = needed * (1 + 2 * ACCEPTANCE.min_gain)
    assert trials.better(restless, stable)


def test_lists_without_hits_score_nothing_however_stable():
    assert utility(0.0, 1.0) == 0.0
    assert utility(0.1, 1.0) == 0.1
    assert utility(0.1, 0.81) == pytest.approx(0.1 * 0.81**STABILITY_WEIGHT)


def test_a_trial_that_stable_lists_cannot_save_is_not_trained_twice(events):
    trials = EarlierWindows([window(events)], 20)
    assert not trials.better(TREND, ALS)
    assert TREND.hash not in trials._stability
    assert ALS.hash in trials._stability
