"""What a page shows of earlier nights, from lines as the ledger holds them."""

from datetime import UTC, datetime, timedelta

from pipeline.base import format_instant
from pipeline.steps.earlier import account_rows

NIGHTS = [datetime(2024, 3, 1, tzinfo=UTC) + timedelta(days=at) for at in range(5)]


def account(recipe, log_points, champion="b", **fields):
    return {
        "recipe": recipe,
        "recipe_hash": f"hash of {recipe}",
        "champion_hash": champion,
        "points": 2.0,
        "log_points": log_points,
        "threshold": 500.0,
        "lift": 0.03,
        "se": 0.01,
        "smallest_effect": 0.05,
        "blocks": 2,
        "blocks_for_two_percent": 7,
        "waiting": None,
        **fields,
    }


def line(at, *accounts):
    return {"as_of": format_instant(NIGHTS[at]), "decision": {"accounts": list(accounts)}}


def paths(before, *tonight):
    rows = account_rows(before, NIGHTS[4], tonight)
    return {row.recipe: [(stand.as_of, stand.log_points) for stand in row.path] for row in rows}


def test_an_account_is_followed_night_by_night():
    before = [line(0, account("als", 0.5)), line(1), line(2, account("als", 0.7))]
    found = paths(before, account("als", 0.9), account("new", 0.0))
    steps = [(NIGHTS[0], 0.5), (NIGHTS[2], 0.7), (NIGHTS[4], 0.9)]
    assert found == {"als": steps, "new": [(NIGHTS[4], 0.0)]}


def test_another_champion_closes_what_was_open():
    before = [
        line(0, account("als", 3.0)),
        line(1, account("b", 0.1, champion="als")),
        line(2, account("als", 0.2)),
    ]
    found = paths(before, account("als", 0.4))
    assert found == {"als": [(NIGHTS[2], 0.2), (NIGHTS[4], 0.4)]}


def test_an_account_has_its_interval_and_none_before_the_first_block():
    (row,) = account_rows([], NIGHTS[4], [account("als", 0.1)])
    assert (row.lift, round(row.lo, 4), round(row.hi, 4)) == (0.03, 0.0104, 0.0496)
    assert (row.blocks, row.more_blocks, row.threshold) == (2, 7, 500.0)
    nothing = account("als", 0.0, lift=None, se=None, blocks=0, waiting="waiting, day 3 of 7")
    (row,) = account_rows([], NIGHTS[4], [nothing])
    assert (row.lift, row.lo, row.hi) == (None, None, None)
    assert row.waiting == "waiting, day 3 of 7"
