from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gate_simulation as simulation
from benchmarks.gate_figures import at_least, at_most, between, days, near, rate, table
from pipeline.base import Interval
from pipeline.evaluation.gate.e_process import figures_of
from pipeline.evaluation.gate.records import BlockRecord
from tests.unit.evaluation.gate.test_gate import AS_OF

ROOT = Path(__file__).resolve().parents[2]


def test_many_accounts_at_once_are_accounts():
    random = np.random.default_rng(0)
    runs, v = 50, 4e-4
    many = simulation.Accounts(runs)
    single = [list[BlockRecord]() for _ in range(runs)]
    for week in range(30):
        block = Interval(AS_OF + timedelta(weeks=week), AS_OF + timedelta(weeks=week + 1))
        x = random.normal(0.005, 0.02, runs)
        many.add(x, v)
        for records, lift in zip(single, x, strict=True):
            records.append(BlockRecord(block, 1000, 0.0, float(lift), v * 1000 * 999, 0.0, 0.0))
        if week == 15:
            gone = x > 0.01
            many.close(gone)
            single = [[] if closed else kept for kept, closed in zip(single, gone, strict=True)]
    figures = [figures_of(records, 0.0) for records in single]
    np.testing.assert_allclose(many.log_points, [one.log_v for one in figures], atol=1e-9)
    lifts = [np.mean([record.x for record in records]) for records in single]
    np.testing.assert_allclose(many.lift, lifts)


def test_a_year_counts_switches_there_and_back():
    x = np.zeros((3, simulation.YEAR))
    x[1, 9] = 0.5  # seen once, then nothing: the other side stays
    x[2, [9, 19]] = 0.5, -0.5
    count, first = simulation.year(x, simulation.every_night(simulation.SHOPS["OR"], 0.0))
    assert count.tolist() == [0, 1, 2]
    assert first.tolist() == [np.inf, 10, 10]


def test_what_a_night_sees_has_the_spread_that_it_is_made_of():
    shop = simulation.SHOPS["OR"]
    seen = simulation.seen(shop, 0.02, 4000, np.random.default_rng(1))
    assert seen.mean() == pytest.approx(0.02, abs=1e-3)
    assert seen[:, 200].var() == pytest.approx(shop.v + shop.drift**2, rel=0.1)
    apart = np.corrcoef(seen[:, 100], seen[:, 114])[0, 1]  # no block in common: drift and luck
    assert 0.0 < apart < 0.1
    assert np.corrcoef(seen[:, 100], seen[:, 101])[0, 1] > 0.8


def test_figures_are_compared_with_the_requested_ones():
    assert near("", 1.19, 1.0).ok
    assert not near("", 1.25, 1.0).ok
    assert rate("", 0.014, 0.011).ok  # 22 switches in 2,000 years are 22 ± 5
    assert not rate("", 0.03, 0.011).ok
    assert days("", 22, 15, 7).ok
    assert not days("", 3, 1, 1).ok
    assert at_most("", 4, 4).ok
    assert not at_least("", -2, -1).ok
    assert between("", 8, 3, 7).ok
    assert not between("", 9, 3, 7).ok
    assert "OFF  figure" in table("title", [at_most("figure", 5, 4)])


@pytest.mark.slow
def test_the_command_prints_the_simulated_figures():
    command = [sys.executable, "benchmarks/gate.py", "simulate", "--json", "--runs", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)["simulate"]
    assert len(figures) == 29
    assert {"what", "measured", "asked", "ok"} == set(figures[0])
