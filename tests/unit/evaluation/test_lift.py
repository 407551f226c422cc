import math

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.evaluation.compare import difference
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.lift import (
    Lift,
    chained,
    over_best_baseline,
    over_stored,
    verdict,
)

CONFIG = GateConfig()


def values(name, figures, *, rank=None):
    users = pl.DataFrame({c.USER_ID: [f"u{n}" for n in range(len(figures))], NDCG: figures})
    return EvaluatedRecipe(name, name, rank, users, coverage=None, k=20, seed_sd=0.0)


def test_a_lift_has_the_interval_of_a_ratio_of_means():
    rng = np.random.default_rng(1)
    before = rng.random(400)
    after = before * 1.1 + rng.normal(0, 0.1, 400)
    result = difference(after, before, tau_candidate=0.02, tau_champion=0.02)
    frames = values("als", after).users, values("als", before).users
    lift = over_stored(*frames, "2", seed_sds=(0.02, 0.02))
    assert (lift.against, lift.users, lift.lift) == ("2", 400, pytest.approx(result.x))
    assert lift.interval == pytest.approx(
        (result.x, result.x - 1.96 * result.se, result.x + 1.96 * result.se)
    )


@pytest.mark.parametrize(
    ("lo", "hi", "word"),
    [
        (0.001, 0.2, "better"),
        (-0.2, -0.001, "worse"),
        (0.0, 0.2, "about as good"),
        (-0.02, 0.3, "about as good"),
        (-0.021, 0.0, "unclear"),
        (-0.5, 0.5, "unclear"),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_margin(lo, hi, word):
    assert verdict(lo, hi, 0.02) == word


@pytest.mark.parametrize("users", [0, 1, 300])
def test_a_lift_over_a_mean_of_0_does_not_exist(users):
    frames = values("als", [1.0] * users).users, values("als", [0.0] * users).users
    assert "version 2" in over_stored(*frames, "2", seed_sds=(0, 0))


def test_values_of_different_users_have_a_reason_in_place_of_a_lift():
    left, right = values("als", [0.5, 0.2]), values("popularity", [0.5], rank=0)
    assert isinstance(over_stored(left.users, right.users, "2", seed_sds=(0, 0)), str)
    assert isinstance(over_best_baseline(left, [left, right], CONFIG), str)
    left = values("als", [0.5]).users
    assert isinstance(over_stored(left.drop(NDCG), left, "2", seed_sds=(0, 0)), str)


def test_the_reference_is_the_best_baseline_also_of_another_baseline():
    best, other = values("popularity", [0.4, 0.2], rank=0), values("own", [0.2, 0.1], rank=1)
    judged = [other, best, values("als", [0.9, 0.8])]
    assert over_best_baseline(other, judged, CONFIG).against == "popularity"
    assert over_best_baseline(other, judged, CONFIG).lift == pytest.approx(-0.5)
    assert "popularity" in over_best_baseline(best, judged, CONFIG)
    assert "no baseline" in over_best_baseline(judged[-1], judged[-1:], CONFIG)


def test_a_chain_multiplies_ratios_and_adds_the_variances_of_their_logs():
    links = (Lift("1", 900, 0.2, 0.06), Lift("2", 800, -0.1, 0.09))
    lift, low, high = chained(links)
    sd = math.sqrt((0.06 / 1.2) ** 2 + (0.09 / 0.9) ** 2)
    assert lift == pytest.approx(1.2 * 0.9 - 1)
    assert low == pytest.approx(1.08 * math.exp(-1.96 * sd) - 1)
    assert high == pytest.approx(1.08 * math.exp(1.96 * sd) - 1)


def test_the_bounds_of_a_chain_contain_the_true_product_in_19_of_20_cases():
    rng = np.random.default_rng(2)
    true, se = np.array([0.15, 0.05, -0.04]), np.array([0.05, 0.04, 0.06])
    product, inside = float(np.prod(1 + true)) - 1, 0
    for _ in range(2000):
        links = [Lift("1", 900, x, s) for x, s in zip(rng.normal(true, se), se, strict=True)]
        _, low, high = chained(links)
        inside += low <= product <= high
    assert 0.935 < inside / 2000 < 0.965


def test_a_ratio_of_0_has_no_chain():
    assert chained((Lift("1", 900, 0.2, 0.06), Lift("2", 800, -1.0, 0.0))) is None


def test_one_link_keeps_its_own_interval():
    link = Lift("1", 900, 0.2, 0.06)
    assert chained((link,)) == link.interval
