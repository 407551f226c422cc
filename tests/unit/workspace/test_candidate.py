from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipeline.base import format_instant
from pipeline.models.families import recipe_from
from pipeline.workspace.history import CANDIDATE, Candidate, Champion, with_candidate

DAY = timedelta(days=1)
NIGHT = datetime(2024, 3, 25, 9, tzinfo=UTC)
ALS = recipe_from({"family": "als"})
CHOSEN = {"als": ALS}


def found(alpha, as_of, study="s"):
    recipe = recipe_from({"family": "als", "alpha": alpha})
    line = Candidate(recipe, as_of, study, "better", 0.1, 0.2)
    return {"key": line.key, "type": CANDIDATE, **line.to_dict()}


def champion(recipe):
    return Champion("tuned", recipe, "run", NIGHT - DAY, "publication", 1, "1")


def names(entries, chosen=CHOSEN, as_of=NIGHT, of=None):
    trained = with_candidate(chosen, entries, as_of, of)
    return {name: recipe.alpha for name, recipe in trained.items() if name != "als"}


def test_a_night_without_a_candidate_stays_as_it_is():
    assert with_candidate(CHOSEN, [], NIGHT, None) == CHOSEN
    decision = {"type": "decision", "as_of": format_instant(NIGHT - DAY)}
    assert with_candidate(CHOSEN, [decision], NIGHT, None) == CHOSEN


def test_only_nights_with_a_later_as_of_judge_it():
    assert names([found(2.0, NIGHT - DAY)]) == {"tuned": 2.0}
    assert names([found(2.0, NIGHT)]) == {}
    assert names([found(2.0, NIGHT + DAY)]) == {}


def test_the_newest_one_replaces_the_others():
    lines = [found(2.0, NIGHT - 2 * DAY), found(3.0, NIGHT - DAY), found(4.0, NIGHT - 9 * DAY)]
    assert names(lines) == {"tuned": 3.0}
    assert names([*lines, found(5.0, NIGHT - DAY)]) == {"tuned": 5.0}  # its study has gone on


def test_what_is_champion_or_configured_competes_once():
    line = found(2.0, NIGHT - DAY)
    tuned = recipe_from(line["recipe"])
    assert names([line], of=champion(tuned)) == {}
    assert names([line], {"als": ALS, "mine": tuned}) == {"mine": 2.0}
    assert names([line], of=champion(ALS)) == {"tuned": 2.0}


def test_a_configured_recipe_keeps_its_name():
    other = recipe_from({"family": "als", "alpha": 9.0})
    line = found(2.0, NIGHT - DAY)
    short = recipe_from(line["recipe"]).hash[:6]
    assert names([line], {"als": ALS, "tuned": other}) == {"tuned": 9.0, f"tuned@{short}": 2.0}


def test_each_recipe_of_a_study_has_a_line_of_its_own():
    lines = [found(2.0, NIGHT), found(3.0, NIGHT), found(2.0, NIGHT, "other")]
    assert len({line["key"] for line in lines}) == 3
    assert found(2.0, NIGHT)["key"] == lines[0]["key"]
