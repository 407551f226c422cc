from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from pipeline import columns as c
from pipeline.evaluation import compare
from pipeline.evaluation.compare import difference, paired
from tests.raising import raises


def moments(n: int, mean: float, sd: float) -> np.ndarray:
    """n values that have exactly this mean and standard deviation."""
    half = np.resize([1.0, -1.0], n)
    return mean + sd * (half - half.mean()) / half.std(ddof=1)


def test_without_randomness_it_is_the_paired_t_test() -> None:
    random = np.random.default_rng(3)
    b = random.uniform(0.1, 0.5, 300)
    cand = b + random.normal(0.004, 0.03, 300)
    compared = difference(cand, b, tau_candidate=0.0, tau_champion=0.0)
    plain = stats.ttest_rel(cand, b, alternative="greater")
    assert compared.t == pytest.approx(plain.statistic)
    assert compared.p_better == pytest.approx(plain.pvalue)
    assert compared.x == pytest.approx(cand.mean() / b.mean() - 1)
    assert compared.smallest_effect == pytest.approx(3.17 * compared.v**0.5)
    assert compared.underpowered is None


def test_a_bootstrap_over_users_misses_the_noise_of_the_seed() -> None:
    # Gowalla: τ .31 %, mean .124, σ_d .043, 15,000 users: 10.3 % false switches at 1 %.
    d = moments(15_000, 0.0, 0.043)
    b = np.full(15_000, 0.124)
    users = difference(b + d, b, tau_candidate=0.0, tau_champion=0.0)
    seeds = difference(b + d, b, tau_candidate=0.0031, tau_champion=0.0031)
    rate = stats.norm.sf(stats.norm.ppf(0.99) * (users.v / seeds.v) ** 0.5)
    assert rate == pytest.approx(0.103, abs=0.0005)
    averaged = difference(b + d, b, tau_candidate=0.0031, tau_champion=0.0031, fits=3)
    assert averaged.v - users.v == pytest.approx((seeds.v - users.v) / 3)


@pytest.mark.parametrize(
    ("n", "level", "moved", "reason"),
    [
        (199, 0.1, 199, compare.TOO_FEW_USERS),
        (200, 0.0, 200, compare.NO_LEVEL),
        (200, 0.1, 29, compare.NO_DIFFERENCE),
        (200, 0.1, 30, None),
    ],
)
def test_a_comparison_that_is_not_possible_has_a_reason(
    n: int, level: float, moved: int, reason: str | None
) -> None:
    b = np.full(n, level)
    d = np.zeros(n)
    d[:moved] = 0.01
    assert difference(b + d, b).underpowered == reason


def test_no_users_and_no_spread_give_no_warning() -> None:
    empty = difference(np.zeros(0), np.zeros(0))
    assert (empty.n, empty.underpowered) == (0, compare.TOO_FEW_USERS)
    assert math.isnan(empty.x)
    same = difference(np.full(300, 0.2), np.full(300, 0.2), tau_candidate=0, tau_champion=0)
    assert (same.x, same.t, same.p_better) == (0.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("cand", "champ"), [([0.1], [0.1, 0.2]), ([math.nan], [0.1]), ([0.1], [math.inf])]
)
def test_values_that_do_not_fit_are_refused(cand: list[float], champ: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shapes differ|not finite"):
        difference(np.array(cand), np.array(champ))
    with pytest.raises(ValueError, match="fits"):
        difference(np.ones(2), np.ones(2), fits=0)


def frame(**values: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        {c.USER_ID: list(values), "ndcg": list(values.values())},
        schema={c.USER_ID: pl.String, "ndcg": pl.Float64},
    )


def test_users_are_lined_up_by_id_and_not_by_row() -> None:
    left, right = paired(frame(b=0.2, a=0.1, z=None), frame(a=0.3, b=0.4, y=None), "ndcg")
    assert (left.tolist(), right.tolist()) == ([0.1, 0.2], [0.3, 0.4])


def test_different_users_are_no_comparison() -> None:
    with raises("compare.other_users"):
        paired(frame(a=0.1, b=0.2), frame(a=0.1), "ndcg")
    with raises("compare.missing_values"):
        paired(frame(a=0.1), frame(a=0.1), "recall")
    twice = pl.concat([frame(a=0.1), frame(a=0.1)])
    with raises("compare.duplicate_user"):
        paired(twice, twice, "ndcg")


def test_a_ratio_has_an_error_of_its_own() -> None:
    # A candidate that is 20 % worse for every user has no error as a ratio, however users differ.
    b = np.random.default_rng(4).beta(1.2, 4.0, 500)
    worse = difference(0.8 * b, b, tau_candidate=0.0, tau_champion=0.0)
    assert worse.x == pytest.approx(-0.2)
    assert worse.v > 1e-6
    assert worse.v_ratio == pytest.approx(0.0, abs=1e-15)
    assert worse.p_harm == pytest.approx(0.0, abs=1e-12)
    # By the delta method, computed from covariances.
    noisy = 0.9 * b + np.random.default_rng(5).normal(0, 0.05, 500)
    compared = difference(noisy, b, tau_candidate=0.003, tau_champion=0.004, fits=2)
    ratio = noisy.mean() / b.mean()
    cov = np.cov(noisy, b)
    spread = (cov[0, 0] - 2 * ratio * cov[0, 1] + ratio**2 * cov[1, 1]) / (500 * b.mean() ** 2)
    assert compared.v_ratio == pytest.approx(spread + (0.003**2 + 0.004**2) / 2)
    assert compared.se == pytest.approx(compared.v_ratio**0.5)
    assert compared.p_harm == pytest.approx(stats.t.cdf(compared.x / compared.se, 499))
