import math

import numpy as np
import pytest

from pipeline.evaluation.compare import difference
from pipeline.evaluation.lift import Lift, chained


def test_a_lift_has_the_interval_of_a_ratio_of_means():
    rng = np.random.default_rng(1)
    before = rng.random(400)
    result = difference(before * 1.1 + rng.normal(0, 0.1, 400), before)
    lift = Lift.of(result, "2")
    assert (lift.against, lift.users, lift.lift) == ("2", 400, result.x)
    assert lift.interval == pytest.approx(
        (result.x, result.x - 1.96 * result.se, result.x + 1.96 * result.se)
    )


@pytest.mark.parametrize("users", [0, 1, 300])
def test_a_lift_over_a_mean_of_0_does_not_exist(users):
    assert Lift.of(difference(np.ones(users), np.zeros(users)), "2") is None


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
