"""Calibration: its rate is not too low, τ is not chance, a planted change has the reported size,
and figures depend on neither pseudonyms nor order."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter
from scipy import stats

from pipeline import columns as c
from pipeline.base import Interval, plain
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.data.split import SplitConfig, split
from pipeline.evaluation import calibrate as calibration_of
from pipeline.evaluation.calibrate import (
    CUTOFFS,
    PLANTED,
    REPLICATES,
    Needed,
    calibrate,
    clopper_pearson_upper,
    false_rate,
    replay,
)
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.compare import difference
from pipeline.evaluation.evaluate import NDCG, evaluate
from pipeline.evaluation.gate import GateConfig
from pipeline.evaluation.gate.e_process import figures_of
from pipeline.evaluation.gate.records import BlockRecord
from pipeline.evaluation.seed_variance import (
    ReplicateBlock,
    list_values,
    replicate_variance,
    reversed_lists,
    seed_spread,
)
from pipeline.models.als import Als
from pipeline.models.topk import Lists
from tests.raising import raises
from tests.unit.evaluation.gate.test_gate import AS_OF
from tests.windows import END

DAY = timedelta(days=1)
CONFIG = GateConfig()
BOUND = 0.002
MARGIN = 0.01


def whens(count: int) -> list[Interval]:
    return [Interval(AS_OF - 28 * (n + 1) * DAY, AS_OF - 28 * n * DAY) for n in range(count)]


def values(rng, n: int, tau: float, replicates: int = REPLICATES, noise: float = 0.05):
    """Users of one taste; each fit adds a random error per user, and one of all users (τ)."""
    taste = rng.uniform(0.1, 0.5, n)
    luck = tau * 0.3 * rng.standard_normal((replicates, 1))
    return taste + luck + noise * rng.standard_normal((replicates, n))


def shop(seed=0, n=1000, tau=0.002, cutoffs=CUTOFFS, better=0.6) -> list[ReplicateBlock]:
    rng = np.random.default_rng(seed)
    blocks = [(when, values(rng, n, tau)) for when in whens(cutoffs)]
    return [ReplicateBlock(when, upright, better * upright) for when, upright in blocks]


# τ and the rate -----------------------------------------------------------------------------------


def test_tau_is_the_seeds_spread_and_not_the_users_luck():
    rng = np.random.default_rng(0)
    assert seed_spread([values(rng, 400, 0.02) for _ in range(40)]) == pytest.approx(0.02, rel=0.15)
    # The users' luck alone moves a mean of 400 by 0.05/√400/0.3 = 0.8 %.
    assert seed_spread([values(rng, 400, 0.0) for _ in range(40)]) < 0.004


def test_the_analysis_of_variance_is_the_textbook_one():
    sample = values(np.random.default_rng(1), 50, 0.05)
    total, users = replicate_variance(sample)
    replicates, n = sample.shape
    fit = sample.mean(1, keepdims=True) + sample.mean(0) - sample.mean()
    ms_replicate = n * ((sample.mean(1) - sample.mean()) ** 2).sum() / (replicates - 1)
    ms_rest = ((sample - fit) ** 2).sum() / ((replicates - 1) * (n - 1))
    assert total == pytest.approx(ms_replicate / n / sample.mean() ** 2)
    assert users == pytest.approx(ms_rest / n / sample.mean() ** 2)
    pairs = [(a, b) for a in range(replicates) for b in range(a)]
    apart = [np.var(sample[a] - sample[b], ddof=1) / n for a, b in pairs]
    assert 2 * users == pytest.approx(np.mean(apart) / sample.mean() ** 2)


def test_the_limit_is_the_one_of_28_degrees_of_freedom():
    rng = np.random.default_rng(2)
    false_rates = false_rate([values(rng, 500, 0.05) for _ in range(CUTOFFS)], BOUND, 0.0)
    assert false_rates["df"] == 28
    assert false_rates["v_hat"] == pytest.approx(1.0)
    assert false_rates["rate"] == pytest.approx(0.002)
    assert false_rates["rate_upper"] == pytest.approx(
        0.013, abs=0.0005
    )  # the procedure's own figure


@pytest.mark.parametrize("tau", [0.0, 0.004, 0.02])
def test_the_limit_covers_the_true_rate(tau):
    rng = np.random.default_rng(3)
    n, noise, covered, tries = 200, 0.05, 0, 400
    truth = 2 * (noise**2 / n / 0.3**2 + tau**2)
    for _ in range(tries):
        blocks = [
            0.3 * (1 + tau * rng.standard_normal((REPLICATES, 1)))
            + noise * rng.standard_normal((REPLICATES, n))
            for _ in range(CUTOFFS)
        ]
        false_rates = false_rate(blocks, BOUND, 0.0)
        true = stats.norm.sf(false_rates["z"] * false_rates["se"] / math.sqrt(truth))
        covered += false_rates["rate_upper"] >= true
    assert 0.92 <= covered / tries <= 0.98


def test_a_margin_above_the_test_bounds_the_rate_where_blocks_are_large():
    rng = np.random.default_rng(4)
    blocks = [values(rng, 4000, 0.0001) for _ in range(CUTOFFS)]
    false_rates = false_rate(blocks, BOUND, 0.03)
    assert false_rates["rate"] < false_rate(blocks, BOUND, 0.0)["rate"] / 10


def test_clopper_and_pearson():
    assert clopper_pearson_upper(0, 149) == pytest.approx(0.0199, abs=1e-4)
    assert clopper_pearson_upper(0, 16) == pytest.approx(1 - 0.05 ** (1 / 16))
    assert clopper_pearson_upper(16, 16) == 1.0


# Replays ------------------------------------------------------------------------------------------


def calibrated(blocks: list[ReplicateBlock], config: GateConfig = CONFIG) -> Calibration:
    return calibrate(blocks, config, candidates=4, task="repeat")


def test_a_replay_is_an_e_process_that_switches_with_evidence_and_lift():
    blocks = [
        BlockRecord(when, 1000, 0.0, 0.03, 1e-4 * 1000 * 999, 0.0, 0.0)
        for when in reversed(whens(6))
    ]
    needed = Needed(500.0, MARGIN, 10.0, 0.0)
    replayed = replay(blocks, needed)
    assert replayed.switched is not None
    for number in range(1, len(blocks) + 1):
        figures = figures_of(blocks[:number], 0.0)
        assert replayed.log_e[number - 1] == figures.log_e
        reached = figures.log_e >= math.log(500) and figures.log_rest >= math.log(10)
        assert reached == (number >= replayed.switched)
    assert replay(blocks, replace(needed, lift=0.031)).switched is None
    assert replay(blocks, replace(needed, without_best=1e9)).switched is None
    assert replay([None, *blocks], needed).switched == replayed.switched + 1


def test_equal_fits_do_not_switch_and_a_planted_change_is_detected():
    calibration = calibrated(shop())
    assert (calibration.pairs, calibration.disjoint_pairs, calibration.df) == (224, 16, 28)
    assert (len(calibration.equal), len(calibration.better)) == (56, 56)
    assert (calibration.passed, calibration.disjoint_passed, calibration.switched) == (0, 0, 0)
    assert calibration.sd_z == pytest.approx(1.0, abs=0.25)
    assert calibration.threshold == pytest.approx(1600 / 3)
    assert calibration.power == 1.0
    assert calibration.seed_noise


def test_a_planted_change_has_about_the_requested_size_and_is_measured():
    for size in (0.5, 0.8, 0.9):
        blocks = shop(better=size)
        calibration = calibrated(blocks)
        assert calibration.planted == pytest.approx(PLANTED, rel=0.25)
        assert calibration.planted == pytest.approx((1 - size) / calibration.every, rel=0.1)
    assert calibrated(shop(better=0.99)).every == 1


def test_lifts_of_other_recipes_are_compared_between_blocks():
    # One recipe is 5 % better in each block, the other by 0, 20, 0 and 20 %.
    lifts = {"even": (0.05,) * 4, "uneven": (0.0, 0.2, 0.0, 0.2)}
    blocks = [
        replace(block, others={
            name: block.ndcg[1] * (1 + at[number]) for name, at in lifts.items()
        })
        for number, block in enumerate(shop())
    ]  # fmt: skip
    even, uneven = calibrated(blocks).recipe_pairs
    assert (even.recipe, uneven.recipe, even.blocks) == ("even", "uneven", 4)
    assert (even.lift, uneven.lift) == pytest.approx((0.05, 0.1), abs=0.01)
    assert even.q < 10 < 50 < uneven.q
    assert uneven.q_chance < 0.001 < even.q_chance
    assert uneven.period_sd == pytest.approx(0.115, abs=0.02)
    assert even.period_sd < 0.01
    # Three blocks have no estimate of the SD; a recipe that was not fitted has no pair.
    short = calibrated([*blocks[:3], replace(blocks[3], others={})]).recipe_pairs
    assert [(pair.blocks, pair.period_sd) for pair in short] == [(3, None), (3, None)]
    assert calibrated(shop()).recipe_pairs == ()


def test_a_smaller_block_finds_less():
    assert calibrated(shop(n=200)).power < calibrated(shop(n=1000)).power


def test_more_seed_luck_is_seen_and_does_not_switch():
    steady, wild = calibrated(shop()), calibrated(shop(tau=0.02))
    assert wild.seed_sd == pytest.approx(0.02, rel=0.4)
    assert wild.power < steady.power
    assert wild.switched == 0
    assert wild.rate_upper < 0.02


def test_a_cutoff_is_tested_with_the_seeds_of_the_others():
    wild = values(np.random.default_rng(8), 1000, 0.05)
    blocks = shop(tau=0.0)
    odd = [*blocks[:3], replace(blocks[3], ndcg=wild, ndcg_reversed=0.6 * wild)]
    assert calibrated(odd).sd_z > 2  # with its own seeds it would be 1


# Bad and odd input --------------------------------------------------------------------------------


def test_a_recipe_without_randomness_has_no_rate_and_still_a_power():
    same = [
        replace(block, ndcg=np.tile(block.ndcg[0], (REPLICATES, 1)),
                ndcg_reversed=np.tile(block.ndcg_reversed[0], (REPLICATES, 1)))
        for block in shop()
    ]  # fmt: skip
    calibration = calibrated(same)
    assert (calibration.seed_sd, calibration.v_hat, calibration.rate, calibration.rate_upper) == (
        0.0,
        0.0,
        0.0,
        0.0,
    )
    assert (calibration.passed, calibration.switched, calibration.seed_noise) == (0, 0, False)
    assert calibration.power == 1.0
    assert len({replay.log_e for replay in calibration.better}) == 56  # other lists in each
    assert 0 < calibration.tossed_upper < 0.006


def test_a_coin_errs_as_often_as_the_level_of_the_test():
    blocks = shop(tau=0.0, better=0.2)
    loose = GateConfig(alpha=0.05 / 0.1875, min_lift=0.0)
    calibration = calibrated(blocks, loose)
    assert calibration.tosses == 4000
    assert calibration.tossed_passed / calibration.tosses == pytest.approx(0.05, abs=0.015)
    strict = calibrated(blocks)
    assert strict.tossed_passed <= 20
    assert strict.tossed_upper == clopper_pearson_upper(strict.tossed_passed, 4000)


def test_a_test_that_errs_on_users_is_seen(monkeypatch):
    def sure(*sides, **options):
        compared = difference(*sides, **options)
        t = 2 * compared.t  # half of the standard error
        return replace(compared, v=compared.v / 4, t=t, p_better=stats.t.sf(t, compared.n - 1))

    monkeypatch.setattr(calibration_of, "difference", sure)
    assert calibrated(shop(tau=0.0, better=0.2)).tossed_upper > 0.05


def test_neither_the_order_of_blocks_nor_that_of_users_counts():
    blocks = [replace(block, others={"x": 1.1 * block.ndcg[1]}) for block in shop(n=300)]
    order = np.random.default_rng(5).permutation(300)
    mixed = [
        ReplicateBlock(
            block.holdout,
            block.ndcg[:, order],
            block.ndcg_reversed[:, order],
            {name: other[order] for name, other in block.others.items()},
        )
        for block in reversed(blocks)
    ]
    ordered, shuffled = plain(calibrated(blocks)), plain(calibrated(mixed))
    for one, other in zip(ordered.pop("equal"), shuffled.pop("equal"), strict=True):
        np.testing.assert_allclose(one["log_e"], other["log_e"], rtol=1e-6, atol=1e-9)
    for one, other in zip(ordered.pop("better"), shuffled.pop("better"), strict=True):
        np.testing.assert_allclose(one["log_e"], other["log_e"], rtol=1e-6, atol=1e-9)
    assert ordered.pop("users") == shuffled.pop("users")
    assert ordered.pop("recipe_pairs")[0] == pytest.approx(shuffled.pop("recipe_pairs")[0])
    assert ordered == pytest.approx(shuffled)


def test_too_few_users_or_hits_are_refused_in_words():
    with raises("calibration.too_few_cutoffs"):
        calibrated(shop(n=150))
    blocks = shop()
    dead = [replace(b, ndcg=0 * b.ndcg, ndcg_reversed=0 * b.ndcg_reversed) for b in blocks[:3]]
    with raises("calibration.too_few_cutoffs"):
        calibrated([*dead, blocks[3]])
    assert calibrated([*dead[:2], *blocks[2:]]).users == (1000, 1000)


def test_it_is_written_and_read_back():
    calibration = calibrated(shop(n=250))
    assert TypeAdapter(Calibration).validate_json(json.dumps(plain(calibration))) == calibration


# Values of lists ----------------------------------------------------------------------------------


def test_lists_stand_upside_down():
    lists = Lists(
        np.array([0, 3, 3, 5]),
        np.array([4, 2, 7, 1, 0], np.int32),
        np.array([3, 2, 1, 2, 1], np.float32),
    )
    turned = reversed_lists(lists)
    assert [turned.of(row).tolist() for row in range(3)] == [[7, 2, 4], [], [0, 1]]


@pytest.mark.parametrize("seen", ["repeat", "discovery"])
def test_values_are_those_of_an_evaluation(seen):
    rng = np.random.default_rng(6)
    n = 6000
    events = pl.DataFrame(
        {
            c.USER_ID: [f"u{x:03}" for x in rng.integers(0, 200, n)],
            c.ITEM_ID: [f"i{x:03}" for x in rng.geometric(0.05, n) % 60],
            c.KIND: ["purchase"] * n,
            c.VALUE: np.ones(n),
            c.TIMESTAMP: [END - timedelta(days=float(d)) for d in rng.uniform(0.1, 60, n)],
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )
    parts = split(events, END, SplitConfig(task=seen, min_users=20), first=False)
    past = events.filter(pl.col(c.TIMESTAMP) < parts.cutoff)
    weighed = past.with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))
    history = build_history(weighed, parts.cutoff)
    scorer = Als(factors=4, iterations=2).train(history, replicate=3)
    upright, upside_down = list_values(scorer, history, parts, 10)
    expected = evaluate(scorer, history, parts, k=10).users
    assert upright.tolist() == expected.sort(c.USER_ID)[NDCG].to_list()
    assert 0 < upside_down.mean() < upright.mean()
    late = replace(parts, holdout=Interval(parts.cutoff - DAY, parts.holdout.end))
    with raises("evaluate.leak"):
        list_values(scorer, history, late, 10)
