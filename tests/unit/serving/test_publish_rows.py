from datetime import UTC, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.serving.publish import (
    Patch,
    chain,
    check_patch,
    lists_sum,
    live,
    newest,
    next_row,
    of_chain,
    of_users,
    publication_rows,
    trim,
    unavailable,
    unpatched,
    with_raw_ids,
)
from tests.raising import raises

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


def test_sold_out_items_are_removed_and_the_gap_closed():
    got = trim(lists([("u", 1, "a"), ("u", 2, "b"), ("u", 3, "c"), ("v", 1, "b")]), ["b"], 2)
    assert got.select(c.USER_ID, c.POSITION, c.ITEM_ID).rows() == [("u", 1, "a"), ("u", 2, "c")]


def test_a_list_is_cut_to_its_length():
    got = trim(lists([("u", p, f"i{p}") for p in range(1, 8)]), [], 3)
    assert got[c.POSITION].to_list() == [1, 2, 3]


def test_an_item_without_a_stock_is_available():
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
    with raises("publish.superseded"):
        next_row(first, facts("p-2"), as_of=as_of, live_from=LATER)


def test_users_are_shown_their_own_list_or_anyones():
    rows = lists([("u1", 1, "a"), ("u1", 2, "b"), (c.FALLBACK_USER, 1, "z")])
    got = of_users(rows, {"raw9": None, "raw1": "u1", "gone": "u7"})
    assert got.select(c.USER_ID, c.ITEM_ID).rows() == [
        ("raw9", "z"),
        ("raw1", "a"),
        ("raw1", "b"),
        ("gone", "z"),
    ]
    assert with_raw_ids(rows, {"u1": "raw1"})[c.USER_ID].unique().sort().to_list() == ["*", "raw1"]


def published(*names):
    """Two bases in a row, the second one live, then patches of the second one by name."""
    table = pl.DataFrame(schema=c.PUBLICATIONS)
    for name, night in (("p-1", NIGHT), ("p-2", LATER)):
        row = next_row(table, facts(name), as_of=night, live_from=night)
        table = pl.concat([table, row])
    for name in names:
        table = pl.concat([table, patch(table, "p-2", name)])
    return table


def patch(table, base, name):
    behind = chain(table, base).row(-1, named=True)
    rows = lists([("u", 1, name)])
    return Patch(name, LATER, 7, rows, 1, 0, ()).row(behind, live_from=LATER)


def test_a_patch_follows_its_base_and_moves_no_pointer():
    table = published("f1", "f2")
    assert live(table)[c.PUBLICATION_ID] == "p-2"
    mine = chain(table.reverse(), "p-2")
    assert mine.select(c.PUBLICATION_ID, c.GENERATION, c.BASE).rows() == [
        ("p-2", 2, None), ("f1", 3, "p-2"), ("f2", 4, "p-2"),
    ]  # fmt: skip
    assert chain(table, "p-1")[c.PUBLICATION_ID].to_list() == ["p-1"]
    row = mine.row(1, named=True)
    assert (row[c.MODEL_VERSION], row[c.CATALOGUE_VERSION]) == ("1", 7)
    assert row[c.SUMS] == lists_sum(lists([("u", 1, "f1")]))
    assert next_row(table, facts("p-2"), as_of=LATER, live_from=LATER) is None


def test_a_list_is_the_newest_of_the_chain_that_is_the_persons_own():
    table = published("f1", "f2")
    rows = pl.concat(
        publication_rows(lists([(user, 1, item), (user, 2, "z")]), name)
        for name, user, item in (
            ("p-1", "u", "of yesterday"), ("p-2", "u", "base"), ("p-2", "v", "base"),
            ("p-2", "*", "base"), ("f1", "u", "f1"), ("f1", "w", "f1"), ("f2", "u", "f2"),
        )
    )  # fmt: skip
    mine = rows.filter(of_chain(chain(table, "p-2")))
    assert mine.height == 12
    shown = newest(mine.reverse(), chain(table, "p-2")).sort(c.USER_ID, c.POSITION)
    assert shown.schema == c.RECOMMENDATIONS
    assert shown.select(c.USER_ID, c.ITEM_ID).rows() == [
        ("*", "base"), ("*", "z"), ("u", "f2"), ("u", "z"),
        ("v", "base"), ("v", "z"), ("w", "f1"), ("w", "z"),
    ]  # fmt: skip
    still = unpatched(mine, "p-2").sort(c.USER_ID, c.POSITION)
    assert still.select(c.USER_ID, c.ITEM_ID).rows() == [
        ("*", "base"), ("*", "z"), ("v", "base"), ("v", "z"),
    ]  # fmt: skip


def test_a_patch_for_a_replaced_base_is_refused():
    table = published()
    late = patch(table, "p-1", "f1").row(0, named=True)
    with raises("publish.base_replaced"):
        check_patch(table, late)
    with raises("publish.base_replaced"):
        check_patch(table.clear(), late)
    check_patch(table, patch(table, "p-2", "f1").row(0, named=True))


def test_of_two_patches_against_the_same_lists_one_is_refused():
    table = published()
    one, other = (patch(table, "p-2", name) for name in ("f1", "f2"))
    with raises("publish.overtaken"):
        check_patch(pl.concat([table, one]), other.row(0, named=True))
