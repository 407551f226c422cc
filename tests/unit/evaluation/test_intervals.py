from __future__ import annotations

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import means


def values(n: int = 400) -> np.ndarray:
    random = np.random.default_rng(7)
    drawn = np.column_stack([random.random(n), random.random(n) < 0.1, random.normal(3, 1, n)])
    drawn[random.random(n) < 0.5, 2] = np.nan
    return drawn


def test_means_count_users_with_a_value() -> None:
    bounds = means(values())
    np.testing.assert_allclose(bounds.mean, np.nanmean(values(), axis=0))
    assert bounds.count.tolist() == (~np.isnan(values())).sum(axis=0).tolist()


def alike(n: int = 400) -> np.ndarray:
    """Few different rows: groups of equal users."""
    random = np.random.default_rng(8)
    return np.where(random.random((n, 3)) < 0.2, random.integers(0, 4, (n, 3)) / 4, 0.0)


def halves(n: int = 400) -> np.ndarray:
    """Two groups, so large that each is drawn at once."""
    return np.repeat([[0.0], [1.0]], n // 2, axis=0)


@pytest.mark.parametrize("plain", [values(), alike(), halves()])
def test_bounds_are_those_of_a_bootstrap_with_replacement(plain: np.ndarray) -> None:
    random = np.random.default_rng(1)
    drawn = [np.nanmean(plain[random.integers(0, 400, 400)], axis=0) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    width = high - low
    bounds = means(plain)
    np.testing.assert_array_less(np.abs(bounds.low - low) / width, 0.06)
    np.testing.assert_array_less(np.abs(bounds.high - high) / width, 0.06)


def test_intervals_contain_the_mean_of_the_population_as_often_as_they_should() -> None:
    # 4,000 intervals, of which those of a sample are independent: 1.4 % is four standard errors.
    random = np.random.default_rng(4)
    inside = []
    for _ in range(1000):
        share = random.random((300, 1)) < 0.3  # many equal users
        bounds = means(np.hstack([share, random.random((300, 3))]))
        inside.append((bounds.low <= [0.3, 0.5, 0.5, 0.5]) & (bounds.high >= [0.3, 0.5, 0.5, 0.5]))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.014)


def test_counts_of_a_user_are_poisson_and_independent() -> None:
    counts = np.empty((500, intervals.DRAWS))
    intervals._drawing()(np.arange(500), np.ones(500, np.int64), counts)
    shares = np.bincount(counts.astype(int).ravel(), minlength=9) / counts.size
    expected = np.exp(-1.0) / np.array([math.factorial(n) for n in range(9)])
    # Five standard errors.
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / counts.size)
    for rows in (counts, counts.T):
        between = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
        assert between.std() == pytest.approx(rows.shape[1] ** -0.5, rel=0.03)
    # A group has the counts of its users, whatever other groups are drawn with it.
    group = np.empty((1, intervals.DRAWS))
    intervals._drawing()(np.array([7]), np.array([100]), group)
    np.testing.assert_array_equal(group[0], counts[7:107].sum(axis=0))


def test_the_number_of_threads_does_not_change_a_bound() -> None:
    plain = np.vstack([values(2000), alike(2000)])
    bounds = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            bounds.append(means(plain))
    for name in ("mean", "low", "high", "count"):
        np.testing.assert_array_equal(getattr(bounds[0], name), getattr(bounds[1], name))


def test_neither_the_order_of_users_nor_the_block_they_fall_in_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = values()
    bounds = means(plain)
    shuffled = means(plain[np.random.default_rng(2).permutation(len(plain))])
    for name in ("mean", "low", "high", "count"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(bounds, name))
    monkeypatch.setattr(intervals, "_AT_ONCE", 1000)
    np.testing.assert_allclose(means(plain).low, bounds.low)


def test_no_users_have_no_mean() -> None:
    for plain in (np.zeros((0, 2)), np.full((3, 2), np.nan)):
        bounds = means(plain)
        assert np.isnan([bounds.mean, bounds.low, bounds.high]).all()
        assert bounds.count.tolist() == [0, 0]


def test_one_user_is_the_whole_interval() -> None:
    bounds = means(np.array([[0.25]]))
    assert (bounds.low, bounds.mean, bounds.high) == (0.25, 0.25, 0.25)
