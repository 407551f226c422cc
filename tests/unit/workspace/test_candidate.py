from datetime import timedelta

import pytest

from pipeline.models.families import recipe_from
from pipeline.workspace.ledger import DriftSummary
from tests.entries import ALS, NIGHT, candidate, decision, history, publication

CHOSEN = {"als": ALS}


def champion(recipe):
    return publication(1, recipe=recipe, name="tuned")


def names(entries, chosen=CHOSEN, of=None, again=None):
    trained = history(*entries).with_candidates(chosen, NIGHT, of, again or {})
    return {name: recipe.alpha for name, recipe in trained.items() if name != "als"}


def test_a_run_without_a_candidate_stays_as_it_is():
    assert history().with_candidates(CHOSEN, NIGHT, None, {}) == CHOSEN
    assert history(decision(1)).with_candidates(CHOSEN, NIGHT, None, {}) == CHOSEN


def test_only_runs_with_a_later_as_of_evaluate_it():
    assert names([candidate(2.0, 1)]) == {"tuned": 2.0}
    assert names([candidate(2.0, 0)]) == {}
    assert names([candidate(2.0, -1)]) == {}


def test_the_newest_one_replaces_the_others():
    lines = [candidate(2.0, 2), candidate(3.0, 1), candidate(4.0, 9)]
    assert names(lines) == {"tuned": 3.0}
    assert names([*lines, candidate(5.0, 1)]) == {"tuned": 5.0}  # its study has gone on


def test_a_recipe_that_is_champion_or_configured_competes_once():
    line = candidate(2.0, 1)
    assert names([line], of=champion(line.recipe)) == {}
    assert names([line], {"als": ALS, "mine": line.recipe}) == {"mine": 2.0}
    assert names([line], of=champion(ALS)) == {"tuned": 2.0}


def test_a_configured_recipe_keeps_its_name():
    other = recipe_from({"family": "als", "alpha": 9.0})
    line = candidate(2.0, 1)
    short = line.recipe.hash[:6]
    assert names([line], {"als": ALS, "tuned": other}) == {"tuned": 9.0, f"tuned@{short}": 2.0}


def test_recipes_selected_again_compete_beside_the_tuned_one():
    line, second = candidate(2.0, 1), recipe_from({"family": "als", "alpha": 7.0})
    again = {"als@again": second, "x@again": line.recipe}
    assert names([line], again=again) == {"tuned": 2.0, "als@again": 7.0}
    assert names([], of=champion(second), again={"als@again": second}) == {}


OPEN = recipe_from({"family": "als", "tune": ["alpha"]})
FIRST, SECOND = (recipe_from({"family": "als", "alpha": alpha}) for alpha in (2.0, 3.0))


def selected(age, **fields):
    return decision(age, selected_recipes={OPEN.hash: FIRST}, **fields)


def again(*entries, days=90):
    return history(*entries).selected_again({"als": OPEN, "x": ALS}, NIGHT, timedelta(days=days))


def test_open_settings_are_selected_again_after_so_many_days():
    assert again() == {}  # this run selects them
    assert again(selected(89)) == {}
    assert again(selected(90)) == {"als@again": OPEN}
    assert again(selected(90), decision(1, selected_again={OPEN.hash: None})) == {}
    second = decision(89, selected_again={OPEN.hash: SECOND})
    assert again(selected(200), second) == {"als@again": SECOND}
    assert again(selected(200), second, days=89) == {"als@again": OPEN}


@pytest.mark.parametrize(
    ("signal", "due"), [("taste.items", True), ("data.volume", False), ("quality.ndcg", False)]
)
def test_a_drift_of_taste_selects_them_again_once(signal, due):
    drift = DriftSummary(status="drift", sentence="", since={signal: NIGHT - timedelta(days=6)})
    drifted = [selected(20), decision(5, drift=drift)]
    assert bool(again(*drifted)) is due
    assert again(*drifted, decision(4, selected_again={OPEN.hash: None})) == {}
    assert again(decision(30, drift=drift), selected(20)) == {}


def test_only_open_settings_are_selected_again():
    assert again(decision(200, selected_recipes={ALS.hash: ALS})) == {}
