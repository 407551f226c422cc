from datetime import UTC, datetime, timedelta

import pytest

from pipeline.base import format_instant
from pipeline.errors import ConfigError
from pipeline.models.families import default_recipes
from pipeline.workspace.history import (
    CALIBRATION,
    PUBLICATION,
    Champion,
    accepted_before,
    last_block_days,
    references,
    seed_spreads,
)

NIGHT = datetime(2024, 6, 1, 9, tzinfo=UTC)


def accepted(*ages):
    """Nights that were published so many days ago, oldest first."""
    return tuple(
        Champion(
            name="als",
            recipe=default_recipes()["als"],
            run_id=f"r{age}",
            as_of=NIGHT - timedelta(days=age),
            publication_id=f"p-r{age}",
            generation=n,
            model_version=str(n),
        )
        for n, age in enumerate(ages, start=1)
    )


def chosen(ages, fits=lambda night: True):
    found = references(accepted(*ages), NIGHT, fits)
    return {label: night.run_id for label, night in found.items()}


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


def test_a_champion_survives_its_ledger_line_and_belongs_to_its_instant():
    lines = [{"type": "publication", **night.to_dict()} for night in accepted(2, 1)]
    assert accepted_before(lines, NIGHT) == accepted(2, 1)
    assert accepted_before(lines, NIGHT - timedelta(days=1)) == accepted(2)


def test_the_first_night_says_nothing_of_how_long_a_holdout_must_be():
    def line(kind, days, block):
        as_of = (NIGHT - timedelta(days=days)).isoformat()
        return {"type": "decision", "kind": kind, "as_of": as_of, "block_days": block}

    nights = [line("first", 9, 28), line("keep", 5, 7), line("refresh", 3, 14)]
    assert last_block_days(nights[:1], NIGHT) is None
    assert last_block_days(nights, NIGHT) == 14
    assert last_block_days(nights, NIGHT - timedelta(days=4)) == 7


def test_a_champion_whose_recipe_no_longer_loads_is_named():
    line = {**accepted(1)[0].to_dict(), "type": PUBLICATION}
    for recipe, words in (
        ({"family": "gone"}, "not a recipe: .*'gone'"),
        ({**line["recipe"], "factors": 0}, "not a recipe: als.factors"),
    ):
        with pytest.raises(ConfigError, match=words):
            accepted_before([{**line, "recipe": recipe}], NIGHT)


def test_a_seed_spread_counts_for_ninety_days_and_the_same_task():
    def line(age, tau, family="als", policy="repeat", k=20):
        at = format_instant(NIGHT - timedelta(days=age))
        told = {"family": family, "policy": policy, "k": k, "tau": tau}
        return {"type": CALIBRATION, "as_of": at, **told}

    lines = [line(10, 0.002), line(90, 0.009), line(1, 0.5, policy="discovery"), line(1, 0.6, k=10)]
    lines += [
        line(91, 0.1, family="svd"),
        line(-1, 0.2, family="ease"),
        line(90, 0.3, family="bpr"),
    ]
    assert seed_spreads(lines, NIGHT, "repeat", 20) == {"als": 0.002, "bpr": 0.3}
    assert seed_spreads([], NIGHT, None, 20) == {}
