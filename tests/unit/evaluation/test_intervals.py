from __future__ import annotations

import numpy as np
import pytest

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


def test_bounds_are_those_of_a_bootstrap_with_replacement() -> None:
    random, plain = np.random.default_rng(1), values()
    drawn = [np.nanmean(plain[random.integers(0, 400, 400)], axis=0) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    width = high - low
    bounds = means(plain)
    np.testing.assert_array_less(np.abs(bounds.low - low) / width, 0.06)
    np.testing.assert_array_less(np.abs(bounds.high - high) / width, 0.06)


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
