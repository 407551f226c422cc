from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipeline.models.families import recipe_from
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import CandidateEntry, Champion, DecisionEntry

DAY = timedelta(days=1)
NIGHT = datetime(2024, 3, 25, 9, tzinfo=UTC)
ALS = recipe_from({"family": "als"})
CHOSEN = {"als": ALS}


def candidate(alpha, as_of, study="s"):
    recipe = recipe_from({"family": "als", "alpha": alpha})
    return CandidateEntry(
        key=f"candidate:{study}:{recipe.hash}",
        as_of=as_of,
        name="als",
        recipe=recipe,
        study=study,
        sentence="better",
        start=0.1,
        value=0.2,
    )


def champion(recipe):
    return Champion(
        name="tuned",
        recipe=recipe,
        run_id="run",
        as_of=NIGHT - DAY,
        publication_id="publication",
        generation=1,
        model_version="1",
    )


def names(entries, chosen=CHOSEN, of=None):
    trained = LedgerHistory(tuple(entries)).with_candidate(chosen, NIGHT, of)
    return {name: recipe.alpha for name, recipe in trained.items() if name != "als"}


def test_a_night_without_a_candidate_stays_as_it_is():
    decision = DecisionEntry.model_construct(key="decision:run", as_of=NIGHT - DAY)
    for entries in ((), (decision,)):
        assert LedgerHistory(entries).with_candidate(CHOSEN, NIGHT, None) == CHOSEN


def test_only_nights_with_a_later_as_of_judge_it():
    assert names([candidate(2.0, NIGHT - DAY)]) == {"tuned": 2.0}
    assert names([candidate(2.0, NIGHT)]) == {}
    assert names([candidate(2.0, NIGHT + DAY)]) == {}


def test_the_newest_one_replaces_the_others():
    entries = [
        candidate(2.0, NIGHT - 2 * DAY),
        candidate(3.0, NIGHT - DAY),
        candidate(4.0, NIGHT - 9 * DAY),
    ]
    assert names(entries) == {"tuned": 3.0}
    assert names([*entries, candidate(5.0, NIGHT - DAY)]) == {"tuned": 5.0}  # its study has gone on


def test_what_is_champion_or_configured_competes_once():
    entry = candidate(2.0, NIGHT - DAY)
    assert names([entry], of=champion(entry.recipe)) == {}
    assert names([entry], {"als": ALS, "mine": entry.recipe}) == {"mine": 2.0}
    assert names([entry], of=champion(ALS)) == {"tuned": 2.0}


def test_a_configured_recipe_keeps_its_name():
    other = recipe_from({"family": "als", "alpha": 9.0})
    entry = candidate(2.0, NIGHT - DAY)
    short = entry.recipe.hash[:6]
    assert names([entry], {"als": ALS, "tuned": other}) == {"tuned": 9.0, f"tuned@{short}": 2.0}
