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
from pipeline.evaluation.trials import EarlierWindows
from pipeline.evaluation.tuning_window import PreviousDay, Window
from pipeline.models.als import Als
from pipeline.models.contract import Span
from pipeline.models.families import recipe_from
from pipeline.models.selection import coordinate_search, select_hyperparameters
from tests import worlds
from tests.raising import raises

CUTOFF = worlds.START + timedelta(days=84)
GOOD = recipe_from(
    {"family": "als", "factors": 8, "regularization": 1.0, "alpha": 4.0, "device": "cpu"}
)
BAD = GOOD.model_copy(update={"alpha": 400.0, "regularization": 1000.0, "factors": 2})


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return worlds.events(users=250)


def window(events, end, policy="discovery", before=CUTOFF) -> Window:
    parts = split(events, end, SplitConfig(task=policy, min_users=50), first=False)
    past = events.filter(pl.col(c.TIMESTAMP) < parts.cutoff)
    return Window.of(build_history(weigh(past, FeaturesConfig()), parts.cutoff), parts, before)


@pytest.fixture(scope="module")
def windows(events) -> list[Window]:
    return [window(events, CUTOFF - timedelta(days=7 * n)) for n in range(3)]


def test_a_window_that_reaches_too_far_is_refused(events):
    window(events, CUTOFF)
    with raises("tuning.window_overlaps"):
        window(events, CUTOFF + timedelta(days=1))
    parts = split(events, CUTOFF, SplitConfig(task="discovery", min_users=50), first=False)
    whole = build_history(weigh(events, FeaturesConfig()), CUTOFF)
    with raises("tuning.window_overlaps"):
        Window.of(whole, parts, CUTOFF)


def test_the_better_recipe_is_better_and_never_the_other_way(windows):
    trials = EarlierWindows(windows, 20)
    assert trials.better(GOOD, BAD)
    assert not trials.better(BAD, GOOD)
    assert not trials.better(GOOD, GOOD)
    assert not EarlierWindows([], 20).better(GOOD, BAD)


def test_a_trial_far_behind_on_one_window_is_not_tried_on_the_next(windows):
    trials = EarlierWindows(windows, 20)
    trials.better(BAD, GOOD)
    tried = {at for recipe, at in trials._values if recipe == BAD.hash}
    assert tried == {0}


def test_only_the_better_one_is_kept_in_memory(windows):
    trials = EarlierWindows(windows, 20)
    trials.better(GOOD, BAD)
    assert {recipe for recipe, *_ in trials._scorers} == {GOOD.hash}


def test_only_the_factors_of_evaluated_users_are_computed(windows):
    trials = EarlierWindows(windows, 20)
    trials.value(GOOD, 0)
    (scorer,) = trials._scorers.values()
    assert not len(scorer.user_ids)
    whole = windows[0].lists(GOOD.train(windows[0].history), 20)
    assert np.array_equal(windows[0].lists(scorer, 20).score, whole.score)


def test_a_gain_that_is_too_small_on_the_newest_window_ends_a_trial(windows):
    trials = EarlierWindows(windows, 20)
    for at in range(3):
        trials._values |= {(GOOD.hash, at): 0.1, (BAD.hash, at): 0.1002 if at == 0 else 0.2}
    assert not trials.better(BAD, GOOD)
    trials._values[BAD.hash, 0] = 0.1004
    assert trials.better(BAD, GOOD)


def test_a_budget_leaves_out_trials_then_windows_and_a_rerun_leaves_out_the_same(windows):
    good, bad = (recipe.model_copy(update={"iterations": 5}) for recipe in (GOOD, BAD))

    def selected(budget):
        lines = []
        trials = EarlierWindows(windows, 20, lines.append, budget=budget)
        blend = recipe_from(
            {
                "family": "blend",
                "tune": ["weights"],
                "parts": {
                    "bad": bad.model_dump() | {"tune": ["alpha"]},
                    "good": good.model_dump(),
                },
            }
        )
        return select_hyperparameters(blend, trials), trials.spent, lines

    _, spent, lines = selected(1e9)
    assert not lines
    one = good.cpu_seconds(windows[0].history) + bad.cpu_seconds(windows[0].history)
    none, least, lines = selected(1e-9)  # the newest window is used whatever the budget
    assert least == pytest.approx(one)
    assert [part.alpha for part in none.parts.values()] == [
        {"good": GOOD, "bad": BAD}[name].alpha for name in none.parts
    ]
    assert ["train.search_budget" in line for line in lines] == [True] * len(lines)
    assert "2 of 3 windows" in lines[-1]
    most = selected(0.9 * spent)
    assert least < most[1] <= 0.9 * spent
    assert most[2] and most == selected(0.9 * spent)


def test_values_are_compared_by_rough_fits_and_the_recipe_keeps_its_size(windows):
    big = Als(factors=48, iterations=7, alpha=400.0, device="cpu", tune=("alpha",))
    tried = []

    class Trials(EarlierWindows):
        def better(self, recipe, than):
            tried.extend([recipe, than])
            return super().better(recipe, than)

    selected = select_hyperparameters(big, Trials(windows[:1], 20))
    assert {(recipe.factors, recipe.iterations) for recipe in tried} == {(48, 5)}
    assert (selected.factors, selected.iterations, selected.tune) == (48, 7, ())
    assert selected.alpha < 400


def test_the_selection_of_a_blend_trains_no_recipe_twice_on_a_window(windows, monkeypatch):
    trained = []
    train = Als.train_items

    def noted(recipe, history, **more):
        trained.append((recipe.factors, recipe.alpha, recipe.regularization, history.end))
        return train(recipe, history, **more)

    monkeypatch.setattr(Als, "train_items", noted)
    part = {"family": "als", "factors": 8, "iterations": 5, "device": "cpu", "tune": ["alpha"]}
    blend = recipe_from(
        {"family": "blend", "tune": ["weights"], "parts": {"a": part, "b": part | {"factors": 4}}}
    )
    select_hyperparameters(blend, EarlierWindows(windows, 20))
    assert len(trained) == len(set(trained)) > 4


def test_a_trial_far_behind_is_not_trained_for_stability(windows):
    day = windows[0].history
    rows = np.arange(40)
    previous = PreviousDay(day, windows[0].judged.take(rows), windows[0].exclude[rows], rows)
    trials = EarlierWindows([replace(windows[0], previous_day=previous)], 20)
    trials._stability[GOOD.hash] = 0.9
    trials._values = {(GOOD.hash, 0): 0.1, (BAD.hash, 0): 0.089}  # .089 · .95² < .1 · .9²
    assert not trials.better(BAD, GOOD)
    assert BAD.hash not in trials._stability
    trials._values[BAD.hash, 0] = 0.091
    trials.better(BAD, GOOD)
    assert BAD.hash in trials._stability


def test_a_recipe_that_cannot_be_trained_is_left_out(windows):
    messages: list[str] = []
    broken = recipe_from({"family": "als", "device": "cuda"})
    trials = EarlierWindows(windows, 20, messages.append)
    assert not trials.better(broken, GOOD)
    assert "no NVIDIA GPU was found" in messages[-1]


def test_a_pool_values_lists_as_the_holdout_does(windows):
    trials = EarlierWindows(windows, 20)
    pools = trials.pools({"good": GOOD, "bad": BAD})
    assert len(pools) == len(windows)
    for at, pool in enumerate(pools):
        for name, recipe in (("good", GOOD), ("bad", BAD)):
            ndcg, coverage = pool.value(pool.part_scores.scores[name])
            assert ndcg == pytest.approx(trials.value(recipe, at), abs=1e-9)
            assert 0 < coverage <= 1


def test_lists_that_may_repeat_are_pooled_with_earlier_items(events):
    repeating = window(events, CUTOFF, policy="repeat")
    trials = EarlierWindows([repeating], 20)
    assert not trials.discovery
    (pool,) = trials.pools({"good": GOOD})
    had = repeating.judged.seen[pool.user, pool.part_scores.item]
    assert np.asarray(had).sum() > 0
    assert pool.value(pool.part_scores.scores["good"])[0] == pytest.approx(
        trials.value(GOOD, 0), abs=1e-9
    )


def test_a_family_climbs_to_better_values(windows):
    start = BAD.model_copy(update={"regularization": 1.0, "factors": 8, "tune": ("alpha",)})
    messages: list[str] = []
    selected = select_hyperparameters(start, EarlierWindows(windows, 20), messages.append)
    assert (selected.tune, selected.regularization) == ((), 1.0)
    assert selected.alpha < 100
    assert messages[0] == "alpha 100"
    span = Span((1.0, 2.0, 4.0), 1.0, 4.0)
    assert coordinate_search(GOOD, "alpha", span, EarlierWindows([], 20), messages.append) == GOOD


def test_a_blend_selects_its_parts_and_drops_those_without_effect(windows):
    recipe = recipe_from(
        {
            "family": "blend",
            "tune": ["weights", "recency_boost"],
            "parts": {
                "good": GOOD.model_dump() | {"tune": ["regularization"]},
                "mad": BAD.model_dump(),
                "own": {"family": "personal_frequency"},
            },
        }
    )
    assert recipe.has_free_params
    selected = select_hyperparameters(recipe, EarlierWindows(windows, 20))
    assert not selected.has_free_params
    assert "good" in selected.parts
    assert "own" not in selected.parts  # lists leave out items that their user had
    assert set(selected.weights) == set(selected.parts)
    trials = EarlierWindows(windows, 20)
    parts = {name: GOOD if name == "good" else part for name, part in recipe.parts.items()}
    start = recipe.model_copy(update={"parts": parts, "tune": ()})
    assert sum(trials.value(selected, at) for at in range(3)) > 0.999 * sum(
        trials.value(start, at) for at in range(3)
    )


@pytest.mark.parametrize(
    "tune", [[], ["weights"], ["recency_boost"], ["weights", "recency_boost", "popularity_penalty"]]
)
def test_a_blend_with_all_weight_on_a_part_of_another_task_counts_the_others(windows, tune):
    recipe = recipe_from(
        {
            "family": "blend",
            "tune": tune,
            "weights": {"good": 0.0},
            "parts": {
                "good": GOOD.model_dump() | {"tune": ["regularization"]},
                "own": {"family": "personal_frequency"},
            },
        }
    )
    selected = select_hyperparameters(recipe, EarlierWindows(windows, 20))
    assert (selected.has_free_params, list(selected.parts), selected.weights) == (
        False,
        ["good"],
        {"good": 1.0},
    )


def test_a_blend_that_has_nothing_to_say_here_stays_as_it_is(windows):
    own = {
        "family": "blend",
        "tune": ["weights"],
        "parts": {"own": {"family": "personal_frequency"}},
    }
    recipe = recipe_from(own)
    selected = select_hyperparameters(recipe, EarlierWindows(windows, 20))
    assert selected == recipe.model_copy(update={"tune": ()})
    assert selected.capabilities.repeats_only


def test_scorers_of_dropped_parts_are_let_go_before_all_windows_are_asked(windows):
    trials = EarlierWindows(windows, 20)
    trials.pools({"good": GOOD, "bad": BAD}, 1)
    assert {recipe for recipe, *_ in trials._scorers} == {GOOD.hash, BAD.hash}
    trials.pools({"good": GOOD})
    assert trials._scorers == {}
