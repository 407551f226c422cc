"""The distance of a day: by hand, against chance, against days that differ anyway."""

import math

import numpy as np
import pytest

from pipeline.monitoring.distance import FLOOR, Histogram, divergence, scores

REFERENCE = np.arange(31) >= 3


def cells(days):
    """One array (users, cells) of shares a day, the latest first."""
    sums = np.array([day.sum(axis=0) for day in days])
    n_users = np.array([float(len(day)) for day in days])
    ref = sums[3:].sum(axis=0), n_users[3:].sum()
    expected, against = np.zeros_like(sums), np.zeros(len(days))
    for at in range(len(days)):
        own = (sums[at], n_users[at]) if at >= 3 else (0.0, 0.0)
        against[at] = ref[1] - own[1]
        expected[at] = (ref[0] - own[0]) / against[at]
    squares = np.array([(day**2).sum(axis=0) for day in days])
    return Histogram(sums, squares, n_users, expected, against)


def draw_users(rng, law, n, takes=5):
    return rng.multinomial(takes, law, n) / takes


LAW = 1.0 / np.arange(1, 41)
LAW /= LAW.sum()


def test_the_divergence_by_hand():
    half, one, other = np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert divergence(half, half) == 0.0
    assert divergence(one, other) == 1.0
    by_hand = (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25) + math.log2(1 / 0.75)) / 2
    assert divergence(half, one) == pytest.approx(by_hand)
    assert divergence(np.stack([half, one]), np.stack([one, one])) == pytest.approx([by_hand, 0])


@pytest.mark.parametrize("n", [15, 60, 240])
def test_days_of_few_users_do_not_alarm_for_being_small(n):
    """The reference has 60 users a day; no distribution changes, only the size of the latest."""
    rng = np.random.default_rng(n)
    results = []
    for _ in range(60):
        days = [draw_users(rng, LAW, n)] * 3 + [draw_users(rng, LAW, 60) for _ in range(28)]
        results.append(scores(cells(days), REFERENCE)[0])
    assert max(results) < 4
    assert -1.5 < np.median(results) < 1.0


def test_another_law_is_far_off():
    rng = np.random.default_rng(1)
    days = [draw_users(rng, LAW[::-1], 60)] + [draw_users(rng, LAW, 60) for _ in range(30)]
    z = scores(cells(days), REFERENCE)
    assert z[0] > 15
    assert max(z[1:]) < 4


def test_a_weekday_that_differs_every_week_is_no_drift():
    rng = np.random.default_rng(2)
    sunday = np.roll(LAW, 1)
    days = [draw_users(rng, sunday if at % 7 == 0 else LAW, 60) for at in range(31)]
    assert scores(cells(days), REFERENCE)[0] < 4
    # The same day among weeks without such days is one.
    plain = [days[0], *(draw_users(rng, LAW, 60) for _ in range(30))]
    assert scores(cells(plain), REFERENCE)[0] > 4


def test_a_negligible_distance_is_none_however_certain():
    rng = np.random.default_rng(3)
    moved = LAW.copy()
    moved[0], moved[20] = moved[0] - 0.01, moved[20] + 0.01
    days = [draw_users(rng, law, 20_000) for law in [moved, *[LAW] * 30]]
    counts = cells(days)
    excess = divergence(counts.sums[0] / 20_000, counts.expected[0])
    assert 0.0005 < excess < 4 * FLOOR
    assert scores(counts, REFERENCE)[0] < 2


def test_a_day_without_users_has_no_score():
    rng = np.random.default_rng(4)
    days = [np.zeros((0, 40))] + [draw_users(rng, LAW, 60) for _ in range(30)]
    z = scores(cells(days), REFERENCE)
    assert math.isnan(z[0]) and np.isfinite(z[1:]).all()


def test_a_reference_that_never_varies_has_a_floor():
    same = np.tile([1.0, 0.0], (50, 1))
    other = np.tile([0.0, 1.0], (50, 1))
    z = scores(cells([other, same, same, *[same] * 28]), REFERENCE)
    assert z[0] == pytest.approx(1 / FLOOR)
    assert (z[1:] == 0).all()
