"""The error of a mean over events that belong to users."""

import math

import numpy as np
import polars as pl
import pytest

from pipeline.data.cluster_robust import mean_ci, per_user_cap, proportion_ci, ratio_ci


def test_one_value_a_person_is_the_textbook_error():
    values = np.random.default_rng(0).random(50)
    estimate = mean_ci(values, pl.Series([f"u{n}" for n in range(50)]))
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_saying_a_thing_twice_proves_no_more():
    values = np.random.default_rng(1).random(40)
    users = pl.Series([f"u{n}" for n in range(40)])
    once = mean_ci(values, users)
    twice = mean_ci(np.tile(values, 2), pl.concat([users, users]))
    assert twice.mean == pytest.approx(once.mean)
    assert twice.se == pytest.approx(once.se)


def test_its_interval_holds_the_truth_as_often_as_its_level():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        level = rng.beta(2, 2, 30)  # users differ, and each has three to nine values
        counts = rng.integers(3, 10, 30)
        values = (rng.random(counts.sum()) < np.repeat(level, counts)).astype(float)
        estimate = mean_ci(values, pl.Series(np.repeat(np.arange(30), counts)))
        held += estimate.lo <= 0.5 <= estimate.hi
    assert 0.92 < held / 400 < 0.98


def test_one_person_has_a_mean_and_no_error():
    estimate = mean_ci(np.array([0.0, 1.0]), pl.Series(["u", "u"]))
    assert (estimate.mean, estimate.se, estimate.lo, estimate.hi) == (0.5, None, None, None)


def test_no_successes_are_no_proof_of_never_and_only_successes_none_of_always():
    counts = np.array([40.0, 2.0, 0.0, 1.0])
    none = ratio_ci(np.zeros(4), counts)
    assert (none.mean, none.lo) == (0.0, 0.0)
    assert none.hi == pytest.approx(1 - 0.025 ** (1 / 3))  # three users could have had any
    every = ratio_ci(counts, counts)
    assert (every.mean, every.hi) == (1.0, 1.0)
    assert every.lo == pytest.approx(0.025 ** (1 / 3))
    assert ratio_ci(np.zeros(4), counts, most=math.inf).hi is None


def test_users_who_are_all_alike_are_no_certainty():
    shown = np.full(12, 20.0)
    alike = proportion_ci(np.ones(12), shown)  # each of them answered one entry of twenty
    assert alike.se == pytest.approx(0.0, abs=1e-12)
    assert alike.lo < 0.03 and alike.hi > 0.09


def test_a_share_of_rare_answers_is_held_as_often_as_its_level():
    rng = np.random.default_rng(4)
    held = plain = 0
    for _ in range(600):
        level = rng.beta(0.5, 24.5, 60)  # two in a hundred, and users differ
        sums = rng.binomial(20, level).astype(float)
        estimate, other = (of(sums, np.full(60, 20.0)) for of in (proportion_ci, ratio_ci))
        assert 0 <= estimate.lo <= estimate.mean <= estimate.hi <= 1
        held += estimate.lo <= 0.02 <= estimate.hi
        plain += other.lo <= 0.02 <= other.hi
    assert held / 600 >= 0.93 > plain / 600


def test_of_one_persons_day_a_tenth_of_a_usual_days_events_count():
    day = np.repeat(np.arange(28), 75)
    usual = np.full(len(day), 2)
    assert per_user_cap(day, usual) == 15
    flooded = np.arange(28)  # one user, every day, a thousand times
    assert per_user_cap(np.append(day, flooded), np.append(usual, [1_000] * 28)) <= 16
    assert per_user_cap(np.repeat([0, 1], 3), np.array([9, 9, 9, 1, 1, 1])) == 1
    assert per_user_cap(np.array([], np.int64), np.array([], np.int64)) == 1
