"""The error of a mean over events that belong to users."""

import math

import numpy as np
import polars as pl
import pytest
from scipy.special import stdtrit

from benchmarks.attribution import APART
from pipeline.data.cluster_robust import (
    effective_users,
    mean_ci,
    per_user_cap,
    proportion_ci,
    ratio_ci,
)


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


def test_the_effective_number_of_users_is_that_of_equally_active_ones():
    assert effective_users(np.full(12, 20.0)) == pytest.approx(12)
    assert effective_users(np.array([3.0, 1.0, 0.0])) == pytest.approx(16 / 10)
    assert effective_users(np.zeros(3)) == 0


def test_the_error_is_that_of_cr2_and_the_interval_that_of_hall():
    sums, counts = np.array([4.0, 0.0, 1.0, 2.0, 0.0]), np.array([10.0, 2.0, 5.0, 4.0, 9.0])
    n, mean = 30.0, 7 / 30
    # CR2 (Bell and McCaffrey 2002) with matrices: A = (I − H)^(-1/2) for each user.
    meat = 0.0
    for total, count in zip(sums, counts, strict=True):
        size = int(count)
        values = np.zeros(size)
        values[: int(total)] = 1.0
        eigen, vectors = np.linalg.eigh(np.eye(size) - np.ones((size, size)) / n)
        adjusted = vectors @ np.diag(eigen**-0.5) @ vectors.T @ (values - mean)
        meat += adjusted.sum() ** 2
    estimate = ratio_ci(sums, counts)
    assert estimate.se == pytest.approx(math.sqrt(meat) / n)
    # The transformed statistic is at its quantile at both ends (Hall 1992).
    residual = (sums - mean * counts) / np.sqrt(1 - counts / n)
    skew = (residual**3).sum() / (residual**2).sum() ** 1.5
    t = stdtrit(n**2 / (counts**2).sum() - 1, 0.975)

    def transformed(end):
        x = (mean - end) / estimate.se
        return x + skew * x**2 / 3 + skew**2 * x**3 / 27 + skew / 6

    assert transformed(estimate.hi) == pytest.approx(-t)
    assert ratio_ci(sums, counts, least=-9.0).lo < 0 == estimate.lo
    assert transformed(ratio_ci(sums, counts, least=-9.0).lo) == pytest.approx(t)


def test_a_mean_of_differences_may_be_negative():
    counts = np.full(60, 2.0)
    sums = np.where(np.arange(60) % 3, -1.0, 1.0)
    estimate = ratio_ci(sums, counts, least=-1.0)
    assert -1 < estimate.lo < estimate.mean < estimate.hi < 0
    none = ratio_ci(np.zeros(60), counts, least=-1.0)
    assert none.lo == -none.hi == pytest.approx(0.025 ** (1 / 60) - 1)


@pytest.mark.parametrize("shop", APART, ids=lambda shop: shop.name)
def test_intervals_hold_the_truth_where_users_differ_in_activity(shop):
    before, after = shop.coverage(1_000)
    assert before < 0.90 and after >= 0.93


def test_of_one_persons_day_a_tenth_of_a_usual_days_events_count():
    day = np.repeat(np.arange(28), 75)
    usual = np.full(len(day), 2)
    assert per_user_cap(day, usual) == 15
    flooded = np.arange(28)  # one user, every day, a thousand times
    assert per_user_cap(np.append(day, flooded), np.append(usual, [1_000] * 28)) <= 16
    assert per_user_cap(np.repeat([0, 1], 3), np.array([9, 9, 9, 1, 1, 1])) == 1
    assert per_user_cap(np.array([], np.int64), np.array([], np.int64)) == 1
