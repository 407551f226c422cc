from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks import damage
from benchmarks import gate_selection as selection
from benchmarks import gate_simulation as simulation
from benchmarks.gate_figures import at_least, at_most, between, near, table, within_third
from benchmarks.gate_items import change, items
from benchmarks.gate_overlap import overlaps
from benchmarks.gate_shops import Habits, stationary
from benchmarks.gate_weeks import check_ratios, summary, weeks
from pipeline.evaluation.compare import difference

ROOT = Path(__file__).resolve().parents[2]


def test_many_e_processes_at_once_are_those_of_the_gate():
    random = np.random.default_rng(0)
    x = simulation.weeks(0.015, 0.02, 0.02, 0.3, 12, random)
    simulation.compare_with_own(x, simulation.variance(0.015), 2_000)


def test_bounds_of_a_refresh_are_those_of_the_gate():
    simulation.compare_verdicts(np.linspace(-2, 1, 12))


def test_a_refused_refresh_needs_more_the_next_night():
    x = np.array([[-0.07, -0.05, -0.01, -0.05], [-0.05, -0.07, 0.0, 0.0]])
    bad = simulation.refused_nights(x, 0.02)
    assert bad.tolist() == [[True, True, False, False], [False, True, False, False]]
    wide = simulation.refused_nights(x, 0.02, narrower=False)
    assert wide.tolist() == [[True, False, False, False], [False, True, False, False]]


@pytest.mark.parametrize("patient", [False, True])
def test_years_of_chosen_days_are_those_of_the_gate(patient):
    x = selection.lifts(0.015, 0.015, 6, np.random.default_rng(0))
    selection.compare_with_own(x, simulation.variance(0.015), patient=patient)


def test_the_rule_on_days_in_no_record_leads_to_no_further_switch():
    x = selection.lifts(0.0047, 0.015, 400, np.random.default_rng(1))
    v = simulation.variance(0.0047)
    free, under_rule = (selection.selected(x, v, rule=rule).switched for rule in (False, True))
    assert free.mean() > 0.3
    assert not (under_rule & ~free).any()
    # Before, an e-process that was emptied forgot its records.
    assert selection.selected(x, v, rule=True, forgets=True).switched.mean() > free.mean()


def test_days_in_no_record_empty_an_e_process():
    # The candidate leads on the tenth day and from the day 40 on.
    x = np.full((1, selection.YEAR + 1), -0.01)
    x[0, 10], x[0, 40:47] = 0.01, 0.01
    without = selection.selected(x, 1e-4, rule=False)
    assert (without.sums.count[0], without.opened[0], without.holes[0]) == (2, 0, 3 + 23)
    emptied = selection.selected(x, 1e-4, rule=True)
    assert (emptied.sums.count[0], emptied.opened[0]) == (0, 40)
    # A patient operator never has more than seven days in no record, or a tenth of all days.
    patient = selection.selected(x, 1e-4, rule=True, patient=True)
    assert patient.opened[0] == 0
    assert patient.holes[0] <= 0.1 * selection.YEAR


def test_recipes_of_a_stationary_shop_overlap_as_in_the_evaluation():
    shop = stationary("small", Habits(500, 160, 0.2, 0.5), 1)
    figures = overlaps([shop], ("discovery",), lambda _: None, 1)
    low, _, high = figures[-1].measured.split()
    assert 0.5 < float(low) <= float(high) < 1.5


def test_errors_of_items_are_those_of_totals_by_item():
    own = sparse.csr_matrix([[0.5, 0.0], [0.5, 1.0], [0.5, 0.0]])
    base = sparse.csr_matrix([[1.0, 0.0], [0.0, 0.5], [0.5, 0.0]])
    x, errors = change(own, base)
    assert x == pytest.approx(0.25)
    users = difference(own.sum(1).A1, base.sum(1).A1, tau_candidate=0, tau_champion=0)
    assert errors["users"] == pytest.approx(np.sqrt(users.v_ratio * 2 / 3))
    # Item totals of the candidate are 1.5 and 1.0, of the reference 1.5 and 0.5.
    by_item = np.array([1.5 - 1.25 * 1.5, 1.0 - 1.25 * 0.5]) / 2.0
    assert errors["items"] == pytest.approx(np.linalg.norm(by_item))
    assert errors["both"] >= errors["users"]


def test_popularity_of_a_stationary_shop_seldom_fails():
    shop = stationary("small", Habits(500, 160, 0.2, 0.0), 1)
    figures = {figure.what: figure.measured for figure in items([shop], lambda _: None)}
    assert len(figures) == 16
    assert all(int(text.split()[0]) <= 3 for text in figures.values())


def test_a_damage_that_goes_live_on_a_later_night_is_named():
    stopped = damage.Row("loss", -0.1, False, "block", (), None, None, "", ("block", "refresh"))
    assert stopped.live_later
    assert damage.text_of(stopped).endswith("| block, refresh |")
    kept = damage.Row("kept", -0.1, False, "block", (), None, None, "", ("block", "keep"))
    assert "of 2 stopped damages" in damage.goals([stopped, kept])[-1]
    assert damage.goals([stopped, kept])[-1].endswith("1 went live within the nights after: loss")


def test_the_first_switch_is_dated():
    x = np.zeros((2, simulation.WEEKS))
    x[1, :3] = 0.5
    days = simulation.first_switch(x, 1e-4, simulation.specified)
    assert days.tolist() == [np.inf, 14]  # one block never suffices
    assert simulation.first_switch(x, 1e-4, simulation.former).tolist() == [np.inf, 7]


def test_levels_are_compared_with_the_accepted_blocks_before_them():
    x = np.ones((1, simulation.NIGHTS + 40))
    x[0, -8:] = 0.3
    bad, used = simulation.low_levels(x, 0.6)
    assert bad[0].tolist() == [False] * (simulation.NIGHTS - 8) + [True] * 8
    assert used.tolist() == [[1.0] * 4]


def test_figures_are_compared_with_the_requested_ones():
    assert near("", 1.19, 1.0).ok
    assert not near("", 1.25, 1.0).ok
    assert within_third("", 1.3, 1.0).ok
    assert not within_third("", 1.4, 1.0).ok
    assert within_third("", 1.4, 1.0, noise=0.1).ok
    assert within_third("", 5, None).asked == "not specified"
    assert at_most("", 4, 4).ok
    assert not at_least("", -2, -1).ok
    assert between("", 8, 3, 7).ok
    assert not between("", 9, 3, 7).ok
    assert "OFF  figure" in table("title", [at_most("figure", 5, 4)])


def test_weeks_of_a_stationary_shop_are_decided_and_counted():
    shop = stationary("small", Habits(500, 160, 0.2, 0.5), 1)
    nights = weeks(shop, ("repeat",), lambda _: None, limit=2)["repeat"]
    assert [night.decision.kind for night in nights] == ["first", "refresh", "refresh"]
    assert nights[2].decision.recipe is not None
    assert nights[2].overlap is not None
    assert 0.5 < nights[2].overlap < 1
    assert nights[2].idle > 100
    lengths = weeks(shop, ("repeat",), lambda _: None, limit=1, grows=False)["repeat"]
    assert [night.as_of for night in lengths] == [night.as_of for night in nights[1:]]
    checked = {figure.what: figure.measured for figure in check_ratios([shop], lambda _: None, 1)}
    assert checked["small: failed checks in 2 weeks"] == "none"
    assert 0.8 < float(checked["small: lowest ratio of returning_users in 2 weeks"]) < 1.2
    figures = summary({"small": nights})
    assert figures[-1].measured == "0"
    assert figures[-1].ok


@pytest.mark.slow
def test_the_command_prints_the_simulated_figures():
    command = [sys.executable, "benchmarks/gate.py", "simulate", "--json", "--runs", "3000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert len(figures) == 206
    assert {"what", "measured", "asked", "ok"} == set(figures[0])
    assert [figure["what"] for figure in figures if not figure["ok"]] == []
