from datetime import UTC, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.errors import ConcurrencyError
from pipeline.serving.publish import (
    lists_sum,
    live,
    next_row,
    of_users,
    publication_rows,
    trim,
    unavailable,
    with_raw_ids,
)

NIGHT = datetime(2017, 12, 1, 9, tzinfo=UTC)
LATER = datetime(2017, 12, 2, 9, tzinfo=UTC)


def lists(rows):
    return pl.DataFrame(
        [(u, p, i, 1.0 / p, "model", 1.0, "als") for u, p, i in rows],
        schema={
            name: c.RECOMMENDATIONS[name] for name in c.RECOMMENDATIONS if name != c.PUBLICATION_ID
        },
        orient="row",
    )


def facts(name):
    return {
        c.PUBLICATION_ID: name,
        c.MODEL_VERSION: "1",
        c.RUN_ID: "r",
        c.RECIPE: "als",
        c.CATALOGUE_VERSION: 0,
        c.RULES_HASH: "x",
        c.SUMS: "y",
    }


def test_what_sold_out_is_taken_out_and_the_gap_closed():
    got = trim(lists([("u", 1, "a"), ("u", 2, "b"), ("u", 3, "c"), ("v", 1, "b")]), ["b"], 2)
    assert got.select(c.USER_ID, c.POSITION, c.ITEM_ID).rows() == [("u", 1, "a"), ("u", 2, "c")]


def test_a_list_is_cut_to_its_length():
    got = trim(lists([("u", p, f"i{p}") for p in range(1, 8)]), [], 3)
    assert got[c.POSITION].to_list() == [1, 2, 3]


def test_an_item_that_says_nothing_of_its_stock_is_available():
    items = pl.DataFrame({c.ITEM_ID: ["b", "a", "c"], c.AVAILABLE: [False, None, True]})
    assert unavailable(items) == ["b"]


def test_rows_have_the_schema_of_the_table():
    rows = publication_rows(lists([("u", 1, "a")]), "p-1")
    assert rows.schema == c.RECOMMENDATIONS
    assert rows[c.PUBLICATION_ID].to_list() == ["p-1"]


def test_the_sum_sees_order_and_nothing_else():
    one = lists([("u", 1, "a"), ("u", 2, "b")])
    assert lists_sum(one) == lists_sum(one.reverse())
    assert lists_sum(one) != lists_sum(lists([("u", 1, "b"), ("u", 2, "a")]))


def test_generations_rise_and_a_retry_adds_none():
    empty = pl.DataFrame(schema=c.PUBLICATIONS)
    assert live(empty) is None
    first = next_row(empty, facts("p-1"), as_of=NIGHT, live_from=NIGHT)
    assert first is not None
    assert first[c.GENERATION].to_list() == [1]
    assert next_row(first, facts("p-1"), as_of=NIGHT, live_from=LATER) is None
    second = next_row(first, facts("p-2"), as_of=LATER, live_from=LATER)
    both = pl.concat([second, first])
    assert live(both)[c.PUBLICATION_ID] == "p-2"


@pytest.mark.parametrize("as_of", [NIGHT, datetime(2017, 11, 1, tzinfo=UTC)])
def test_an_older_night_never_overtakes_a_newer_one(as_of):
    empty = pl.DataFrame(schema=c.PUBLICATIONS)
    first = next_row(empty, facts("p-1"), as_of=NIGHT, live_from=NIGHT)
    with pytest.raises(ConcurrencyError, match="went live with as-of"):
        next_row(first, facts("p-2"), as_of=as_of, live_from=LATER)


def test_people_are_shown_their_own_list_or_anyones():
    rows = lists([("u1", 1, "a"), ("u1", 2, "b"), (c.ANYONE, 1, "z")])
    got = of_users(rows, {"raw9": None, "raw1": "u1", "gone": "u7"})
    assert got.select(c.USER_ID, c.ITEM_ID).rows() == [
        ("raw9", "z"),
        ("raw1", "a"),
        ("raw1", "b"),
        ("gone", "z"),
    ]
    assert with_raw_ids(rows, {"u1": "raw1"})[c.USER_ID].unique().sort().to_list() == ["*", "raw1"]
