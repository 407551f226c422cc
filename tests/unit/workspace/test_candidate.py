from pipeline.models.families import recipe_from
from tests.entries import ALS, NIGHT, candidate, decision, history, publication

CHOSEN = {"als": ALS}


def champion(recipe):
    return publication(1, recipe=recipe, name="tuned")


def names(entries, chosen=CHOSEN, of=None):
    trained = history(*entries).with_candidate(chosen, NIGHT, of)
    return {name: recipe.alpha for name, recipe in trained.items() if name != "als"}


def test_a_run_without_a_candidate_stays_as_it_is():
    assert history().with_candidate(CHOSEN, NIGHT, None) == CHOSEN
    assert history(decision(1)).with_candidate(CHOSEN, NIGHT, None) == CHOSEN


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
