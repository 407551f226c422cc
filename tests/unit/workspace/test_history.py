from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import StorageError
from pipeline.models.families import default_recipes
from pipeline.workspace.history import LedgerHistory, references
from pipeline.workspace.ledger import (
    CalibrationEntry,
    ComparisonKey,
    DecisionEntry,
    PublicationEntry,
    parse_entry,
)

NIGHT = datetime(2024, 6, 1, 9, tzinfo=UTC)


def publications(*ages):
    """Entries of nights that were published so many days ago, oldest first."""
    return tuple(
        PublicationEntry(
            key=f"publication:p-r{age}",
            name="als",
            recipe=default_recipes()["als"],
            run_id=f"r{age}",
            as_of=NIGHT - timedelta(days=age),
            live_from=NIGHT,
            publication_id=f"p-r{age}",
            generation=n,
            model_version=str(n),
        )
        for n, age in enumerate(ages, start=1)
    )


def accepted(*ages):
    return LedgerHistory(publications(*ages)).accepted(NIGHT)


def decision(age, run_id="run", **fields):
    """A decision so many days ago, with nothing but what a question reads."""
    as_of = NIGHT - timedelta(days=age)
    return DecisionEntry.model_construct(key=run_id, run_id=run_id, as_of=as_of, **fields)


def chosen(ages, fits=lambda night: True):
    runs = references(accepted(*ages), NIGHT, fits)
    return {label: night.run_id for label, night in runs.items()}


def test_last_is_the_newest_and_month_the_nearest_to_thirty_days():
    assert chosen([60, 45, 33, 21, 1]) == {"last": "r1", "month": "r33"}
    assert chosen([46, 20]) == {"last": "r20"}
    assert chosen([]) == {}


def test_a_scorer_that_knows_tonights_holdout_is_passed_over():
    older = NIGHT - timedelta(days=14)
    assert chosen([15, 3, 1], lambda night: night.as_of <= older) == {"last": "r15"}
    assert chosen([3, 1], lambda night: night.as_of <= older) == {}


def test_the_newest_that_fits_is_found_without_reading_all():
    asked = []

    def fits(night):
        asked.append(night.run_id)
        return True

    chosen(list(range(400, 45, -1)), fits)
    assert asked == ["r46"]


def test_a_champion_survives_its_entry_and_belongs_to_its_instant():
    lines = [entry.plain() for entry in publications(2, 1)]
    history = LedgerHistory(tuple(parse_entry(line) for line in lines))
    assert history.accepted(NIGHT) == accepted(2, 1)
    assert [champion.run_id for champion in history.accepted(NIGHT)] == ["r2", "r1"]
    assert history.champion(NIGHT - timedelta(days=1)) == accepted(2)[0]
    assert history.champion(NIGHT - timedelta(days=2)) is None
    assert history.live.run_id == "r1"
    assert history.versions() == {1: "r2", 2: "r1"}
    assert history.publication_of("r2") == history.version(1) == history.publications[0]


def test_the_first_night_says_nothing_of_how_long_a_holdout_must_be():
    nights = (
        decision(9, kind="first", block_days=28),
        decision(5, kind="keep", block_days=7),
        decision(3, kind="refresh", block_days=14),
    )
    assert LedgerHistory(nights[:1]).last_block_days(NIGHT) is None
    assert LedgerHistory(nights).last_block_days(NIGHT) == 14
    assert LedgerHistory(nights).last_block_days(NIGHT - timedelta(days=4)) == 7


def test_of_two_decisions_for_one_as_of_the_later_line_counts():
    history = LedgerHistory((decision(1, "b"), decision(2, "c"), decision(1, "a")))
    assert [entry.run_id for entry in history.decisions] == ["c", "a"]
    assert history.last_decision().run_id == "a"
    assert history.last_decision(NIGHT - timedelta(days=2)).run_id == "c"
    assert [entry.run_id for entry in history.decisions_before(NIGHT - timedelta(days=1))] == ["c"]


def test_figures_of_another_task_are_not_comparable():
    keys = [ComparisonKey(task="repeat", target_kinds=("purchase",), k=k) for k in (10, 20)]
    history = LedgerHistory((decision(1, "b", comparison_key=keys[0]),
                             decision(3, "a", comparison_key=keys[0]),
                             decision(2, "c", comparison_key=keys[1])))  # fmt: skip
    assert [entry.run_id for entry in history.comparable(NIGHT, keys[0])] == ["a", "b"]
    assert history.last_task(NIGHT) == "repeat"


def test_an_entry_whose_recipe_no_longer_loads_is_named():
    line = publications(1)[0].plain()
    recipes = {"'gone'": {"family": "gone"}, "factors": {**line["recipe"], "factors": 0}}
    for words, recipe in recipes.items():
        with pytest.raises(StorageError, match=f"'publication:p-r1' cannot be read: .*{words}"):
            parse_entry({**line, "recipe": recipe})


def test_a_seed_sd_counts_for_ninety_days_and_the_same_task():
    def entry(age, seed_sd, family="als", task="repeat", k=20):
        as_of = NIGHT - timedelta(days=age)
        fields = {"family": family, "task": task, "k": k, "seed_sd": seed_sd}
        return CalibrationEntry.model_construct(key=f"{age}", as_of=as_of, **fields)

    entries = (
        entry(10, 0.002),
        entry(90, 0.009),
        entry(1, 0.5, task="discovery"),
        entry(1, 0.6, k=10),
        entry(91, 0.1, family="svd"),
        entry(-1, 0.2, family="ease"),
        entry(90, 0.3, family="bpr"),
    )
    assert LedgerHistory(entries).seed_sds(NIGHT, "repeat", 20) == {"als": 0.002, "bpr": 0.3}
    assert LedgerHistory(()).seed_sds(NIGHT, None, 20) == {}
