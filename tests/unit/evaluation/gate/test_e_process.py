"""E-processes: the figures of the specification, the blocks that count, and holes between them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from random import Random

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from pipeline.base import Interval, plain
from pipeline.evaluation.gate.e_process import (
    EFFECTS,
    MIXTURE_WEIGHTS,
    EProcess,
    EProcessKey,
    figures_of,
    later_weight,
    opening_weight,
    threshold_of,
)
from pipeline.evaluation.gate.e_process_status import (
    EProcessStatus,
    blocks_expected,
    e_value_text,
    status_of,
)
from pipeline.evaluation.gate.records import BlockRecord
from tests.unit.evaluation.gate.test_gate import BLOCK, DAY, block

KEY = EProcessKey("champion", "candidate")
SEEDS = 2 * 0.005**2
"""t² with τ .5 % of both recipes and one fit."""
OPENED = block(60).start


def record(at: Interval, n: int, x: float, variance: float, t2: float = SEEDS) -> BlockRecord:
    """A record with S_dd = variance·(n − 1)."""
    return BlockRecord(at, n, t2, x, variance * (n - 1), 0.0, 0.0)


def records(*figures: tuple[int, float, float], t2: float = SEEDS) -> list[BlockRecord]:
    return [record(block(len(figures) - at), *row, t2) for at, row in enumerate(figures)]


def process(rows: list[BlockRecord]) -> EProcess:
    grown = EProcess(KEY, OPENED, opening_weight(4))
    for row in rows:
        grown = grown.add(row)
    return grown


def status(process: EProcess, **changes: object) -> EProcessStatus:
    fields = {"threshold": 500.0, "period_sd": 0.005, "use": "recorded", **changes}
    return status_of("new", process, **fields)  # type: ignore[arg-type]


THREE = ((1000, 0.03, 0.81), (1200, 0.045, 0.90), (900, 0.02, 0.70))


@pytest.mark.parametrize(
    ("rows", "e_value", "null", "rest", "lift", "se", "q"),
    [
        (THREE, 3.5477, 3.7164, 1.4812, 0.03279, 0.01696, 0.3856),
        ((*THREE, (1100, 0.085, 0.85)), 41.481, 47.836, 3.494, 0.04642, 0.01466, 2.9013),
    ],
)
def test_the_figures_of_the_specification(
    rows: tuple[tuple[int, float, float], ...],
    e_value: float,
    null: float,
    rest: float,
    lift: float,
    se: float,
    q: float,
) -> None:
    got = figures_of(records(*rows), 0.005)
    assert math.exp(got.log_e) == pytest.approx(e_value, rel=2e-5)
    assert math.exp(got.log_v) == pytest.approx(null, rel=2e-5)
    assert math.exp(got.log_rest) == pytest.approx(rest, rel=2e-4)
    assert (got.lift, got.se, got.q) == pytest.approx((lift, se, q), rel=4e-4)


def test_one_record_and_the_thresholds_of_the_specification() -> None:
    alone = figures_of(records((2000, 0.10, 0.45)), 0.005)
    assert math.exp(alone.log_e) == pytest.approx(121_769, rel=1e-5)
    assert alone.log_rest == -math.inf
    first = [threshold_of(0.01, opening_weight(k)) for k in range(1, 6)]
    assert first == pytest.approx([133.3, 266.7, 400, 533.3, 666.7], abs=0.05)
    later = [threshold_of(0.01, later_weight(j)) for j in (1, 2, 3)]
    assert later == pytest.approx([800, 2400, 4800])
    assert 4 * opening_weight(4) + sum(map(later_weight, range(1, 5000))) <= 1.0
    assert blocks_expected(0.000925, 1600 / 3) == 36


def plain_e_value(rows: list[BlockRecord], variances: list[float]) -> float:
    """The mixture of the likelihood ratios of all blocks, without logarithms."""
    total = 0.0
    for effect, weight in zip(EFFECTS, MIXTURE_WEIGHTS, strict=True):
        ratio = 1.0
        for row, v in zip(rows, variances, strict=True):
            ratio *= math.exp(-((row.x - effect) ** 2) / (2 * v)) / math.exp(-(row.x**2) / (2 * v))
        total += ratio * weight
    return total


def test_the_e_value_is_the_smaller_of_two_mixtures_in_any_order() -> None:
    random = Random(1)
    rows = records(*((300 + 50 * k, random.gauss(0.01, 0.03), 0.5) for k in range(6)))
    # A record of another length of a block has a variance of its own.
    rows.append(record(Interval(BLOCK.start, BLOCK.end + 7 * DAY), 800, 0.02, 0.9))
    got = figures_of(rows, 0.01)
    pooled = sum(r.s_dd for r in rows[:-1]) / sum(r.n - 1 for r in rows[:-1])
    v = [pooled / r.n + SEEDS for r in rows[:-1]] + [0.9 / 800 + SEEDS]
    w = np.array([1 / value for value in v])
    x = np.array([r.x for r in rows])
    q = float((w * (x - (w * x).sum() / w.sum()) ** 2).sum())
    between = max(0.01**2, (q - 6) / (w.sum() - (w**2).sum() / w.sum()))
    u = [value + between for value in v]
    assert got.q == pytest.approx(q)
    assert got.q_chance == pytest.approx(stats.chi2.sf(q, 6))
    assert math.exp(got.log_v) == pytest.approx(plain_e_value(rows, v), rel=1e-9)
    assert math.exp(got.log_u) == pytest.approx(plain_e_value(rows, u), rel=1e-9)
    assert got.log_e == min(got.log_v, got.log_u)
    assert figures_of(rows[::-1], 0.01) == got


def test_lifts_that_differ_between_blocks_count_less() -> None:
    steady = records(*[(5000, 0.03, 0.5)] * 8, t2=0.0)
    uneven = records(*((5000, x, 0.5) for x in (0.09, -0.03) * 4), t2=0.0)
    assert figures_of(steady, 0.005).period_sd == 0.0
    got = figures_of(uneven, 0.005)
    assert got.period_sd == pytest.approx(0.063, abs=0.004)
    assert got.log_u < 5 < figures_of(steady, 0.005).log_u
    # With three records nothing is estimated, only ω0 is assumed.
    assert figures_of(uneven[:3], 0.005).period_sd == 0.0


def test_a_sure_winner_does_not_overflow() -> None:
    sure = records(*[(10_000, 0.5, 0.001)] * 3, t2=0.0)
    got = figures_of(sure, 0.0)
    assert got.log_v > 1e5
    shown = status(process(sure), period_sd=0.0)
    assert shown.e_value == 1e6
    assert e_value_text(shown.e_value) == "over 1,000,000"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "under 0.1"),
        (0.07, "under 0.1"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (12.4, "12"),
        (499.7, "499"),  # rounded down: 500 is not reached
        (512.4, "512"),
        (1e6, "over 1,000,000"),
    ],
)
def test_an_e_value_reads_alike_everywhere(value: float, text: str) -> None:
    assert e_value_text(value) == text


def test_values_that_are_not_evidence_are_refused() -> None:
    opened = EProcess(KEY, OPENED, 0.1)
    for x, variance, t2 in ((0.1, 0.0, 0.0), (math.nan, 1.0, 0.0), (0.1, math.inf, 0.0)):
        with pytest.raises(ValueError, match="must be finite"):
            opened.add(record(BLOCK, 500, x, variance, t2))


def test_days_are_recorded_once_and_only_after_the_opening() -> None:
    opened = EProcess(KEY, BLOCK.start + DAY, 0.1)
    with pytest.raises(ValueError, match="starts before"):
        opened.add(record(BLOCK, 500, 0.01, 0.5))
    grown = EProcess(KEY, BLOCK.start, 0.1).add(record(BLOCK, 500, 0.01, 0.5))
    for days in (0, 1, 6):
        later = Interval(BLOCK.start + days * DAY, BLOCK.end + days * DAY)
        with pytest.raises(ValueError, match="starts before"):
            grown.add(record(later, 500, 0.01, 0.5))
    assert len(grown.add(record(block(-1), 500, 0.01, 0.5)).records) == 2


def test_holes_are_days_in_no_block() -> None:
    opened = EProcess(KEY, block(10).start, 0.1)
    assert opened.hole_days(opened.opened) == 0.0
    assert opened.hole_days(opened.opened - DAY) == 0.0
    grown = opened.add(record(block(9), 500, 0.01, 0.5)).add(record(block(7), 500, 0.01, 0.5))
    # Weeks 10 and 8 are in no record.
    assert grown.hole_days(block(6).start) == 14.0
    assert grown.hole_days(block(6).start, [block(8)]) == 7.0
    overlapping = Interval(block(8).start - 3 * DAY, block(8).start + 3 * DAY)
    assert grown.hole_days(block(6).start, [overlapping]) == pytest.approx(14.0 - 3.0)
    assert replace(grown, excused=(block(10),)).hole_days(block(6).start) == 7.0


def test_more_holes_than_a_week_or_a_tenth_empty_the_process() -> None:
    opened = EProcess(KEY, block(40).start, 0.1, excused=(block(40),))
    for week in range(39, 9, -1):
        opened = opened.add(record(block(week), 500, 0.01, 0.5))
    kept = opened.reopened(block(8))
    assert kept == opened  # 7 of 224 days
    # Nine days of holes are a tenth of ninety, and more than a tenth of fewer.
    emptied = EProcess(KEY, block(5).start, 0.1).add(record(block(5), 500, 0.1, 0.5))
    night = Interval(block(4).start + 8 * DAY, block(4).end + 8 * DAY)
    reopened = EProcess(KEY, night.end, 0.1, dropped=emptied.records)
    assert emptied.reopened(night) == reopened
    assert emptied.reopened(night, [block(4)]) == emptied
    seven = Interval(block(3).start, block(3).end)
    assert emptied.reopened(seven) == emptied
    # The records stay, and that of the night is added, unless it shares days with one of them.
    late = record(night, 500, 0.02, 0.5)
    assert emptied.reopened(night, record=late).all_records == (*emptied.records, late)
    holes = replace(emptied, opened=block(9).start)
    overlapping = Interval(block(5).start + 3 * DAY, block(5).end + 3 * DAY)
    shared = holes.reopened(overlapping, record=record(overlapping, 500, 0.02, 0.5))
    assert (shared.opened, shared.all_records) == (overlapping.end, emptied.records)


def test_a_year_of_looking_passes_a_hundred_in_less_than_one_case_in_a_hundred() -> None:
    # 2,000 equal candidates of 52 blocks; .5 % is far below the promise and far above none.
    random = np.random.default_rng(7)
    v = 0.013**2
    x = random.normal(0, math.sqrt(v), (2000, 52))
    bets, shares = np.array(EFFECTS)[:, None, None], np.array(MIXTURE_WEIGHTS)[:, None, None]
    values = (shares * np.exp(np.cumsum(bets * x / v - bets**2 / (2 * v), axis=2))).sum(axis=0)
    reached = (values >= 100).any(axis=1).mean()
    assert 0.0 < reached < 0.01
    rows = records(*((1000, float(value), v * 1000) for value in x[0]), t2=0.0)
    assert math.exp(figures_of(rows, 0.0).log_v) == pytest.approx(values[0, -1])


def test_a_status_is_written_as_json_and_read_back_equal() -> None:
    for grown in (EProcess(KEY, OPENED, 0.1), process(records(*THREE))):
        shown = status(grown, holes=3.0, smallest_effect=0.03, waiting="waiting, day 2 of 7")
        text = json.dumps(plain(shown), allow_nan=False)
        assert TypeAdapter(EProcessStatus).validate_json(text) == shown
        assert json.loads(text)["e_value"] == pytest.approx(shown.e_value)
        assert shown.sentence.startswith("new: e-value ")
        assert shown.sentence.endswith("; waiting, day 2 of 7")
        assert "; 3 days in no block" in shown.sentence
    assert shown.record == grown.records[-1]
    assert status(grown, use="waiting").record is None
    assert timedelta(days=7) == BLOCK.length


def test_the_spread_behind_the_expected_number_of_blocks_is_stated() -> None:
    shown, got = status(process(records(*THREE))), figures_of(records(*THREE), 0.005)
    assert shown.newest_sd == pytest.approx(math.sqrt(got.u)) == plain(shown)["newest_sd"]
    assert f"has an SD of {100 * math.sqrt(got.u):.1f} %" in shown.sentence
    assert status(EProcess(KEY, OPENED, 0.1)).newest_sd is None
    # The spread between blocks is estimated from four blocks on, and can be 0.
    assert ", SD " not in shown.sentence
    assert ", SD 0 %" in status(process(records(*THREE, (1100, 0.03, 0.85)))).sentence


def test_the_interval_of_a_lift_is_that_of_a_ratio() -> None:
    rows = [
        BlockRecord(block(k), 1000, SEEDS, 0.2, 0.81 * 999, 0.5 * 999, 0.9 * 999) for k in (2, 1)
    ]
    shown, got = status(process(rows)), figures_of(rows, 0.005)
    assert shown.lift is not None
    assert shown.lift_lo is not None
    one = (0.81 - 2 * got.lift * 0.5 + got.lift**2 * 0.9) / 1000 + SEEDS + 0.005**2
    assert shown.lift - shown.lift_lo == pytest.approx(1.96 * (one / 2) ** 0.5, rel=1e-3)
    assert shown.se == pytest.approx(((0.81 / 1000 + SEEDS + 0.005**2) / 2) ** 0.5)
