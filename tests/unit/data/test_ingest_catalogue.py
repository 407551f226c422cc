from datetime import UTC, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.ingest.catalogue import upsert, validate_catalogue
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import ValidatedRows
from pipeline.data.sources.config import Source
from pipeline.data.sources.mapping import AT_LINE

ITEMS = Source(table="items", timezone="UTC")
MISSING = IngestConfig().missing_ids
EMPTY = pl.DataFrame(schema=c.ITEMS)


def text(*rows: dict[str, str | None]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))
    return frame.with_row_index(AT_LINE, 2).with_columns(pl.col(AT_LINE).cast(pl.Int64))


def judge(*rows: dict[str, str | None], source: Source = ITEMS):
    return validate_catalogue(text(*rows), source, MISSING)


def merged(current: pl.DataFrame, *rows: dict[str, str | None], replace: bool = False):
    return upsert("items", current, judge(*rows).good, replace=replace)


def test_an_item_is_typed():
    row = {
        c.ITEM_ID: "cafe\u0301",
        c.CATEGORIES: '["a", 1, null]',
        c.PRICE: " 2.50 ",
        c.AVAILABLE: "No",
        c.CREATED_AT: "2024-03-01",
        "brand": "x",
    }
    good = judge(row).good.drop(AT_LINE)
    assert good.row(0, named=True) == {
        c.ITEM_ID: "café",
        c.CATEGORIES: ["a", "1"],
        c.PRICE: 2.5,
        c.AVAILABLE: False,
        c.CREATED_AT: datetime(2024, 3, 1, tzinfo=UTC),
        "brand": "x",
    }


@pytest.mark.parametrize(
    ("value", "lists"), [("x", ["x"]), ("a|b", ["a|b"]), ("[1", ["[1"]), ("[]", []), (None, None)]
)
def test_categories_are_a_list_or_one_text(value, lists):
    good = judge({c.ITEM_ID: "i", c.CATEGORIES: value}).good
    assert good[c.CATEGORIES].to_list() == [lists]


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ({c.ITEM_ID: None}, ["item_id_missing"]),
        ({c.ITEM_ID: " "}, ["item_id_missing"]),
        ({c.ITEM_ID: "i" * 257}, ["item_id_too_long"]),
        ({c.ITEM_ID: "a\x1b[31m"}, ["item_id_unprintable"]),
        ({c.ITEM_ID: "item\u200b004"}, ["item_id_unprintable"]),
    ],
)
def test_a_bad_item_names_its_reasons(row, reasons):
    judged = judge(row, {**dict.fromkeys(row), c.ITEM_ID: "good"})
    assert judged.bad[c.REASONS].to_list() == [reasons]
    assert judged.bad[AT_LINE].to_list() == [2]
    assert judged.good[c.ITEM_ID].to_list() == ["good"]


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ({c.ITEM_ID: "i", c.PRICE: "cheap"}, ["price_unparsable"]),
        ({c.ITEM_ID: "i", c.PRICE: "nan"}, ["price_unparsable"]),
        ({c.ITEM_ID: "i", c.PRICE: "-1"}, ["price_negative"]),
        ({c.ITEM_ID: "i", c.PRICE: "inf"}, ["price_too_large"]),
        ({c.ITEM_ID: "i", c.PRICE: "1e13"}, ["price_too_large"]),
        ({c.ITEM_ID: "i", c.AVAILABLE: "maybe"}, ["available_unparsable"]),
        ({c.ITEM_ID: "i", c.CREATED_AT: "once"}, ["created_at_unparsable"]),
    ],
)
def test_an_invalid_optional_field_counts_as_missing_and_its_row_stays(row, reasons):
    judged = judge({**row, "brand": "x"}, {**dict.fromkeys(row), c.ITEM_ID: "good"})
    assert judged.bad.height == 0
    assert judged.emptied.select(AT_LINE, c.REASONS).rows() == [(2, reasons)]
    [lost] = set(row) - {c.ITEM_ID}
    assert judged.good[lost].to_list() == [None, None]
    assert judged.good["brand"].to_list() == ["x", None]


def test_an_availability_that_cannot_be_read_keeps_the_earlier_one():
    first, _ = merged(EMPTY, {c.ITEM_ID: "a", c.AVAILABLE: "no"}, {c.ITEM_ID: "b"})
    row = {c.AVAILABLE: "sometimes", c.PRICE: "cheap"}
    second, _ = merged(first, *({c.ITEM_ID: item, **row} for item in "abc"))
    assert second[c.AVAILABLE].to_list() == [False, True, True]


def test_a_title_with_control_characters_counts_as_missing_and_its_row_stays():
    hostile = "\x1b[31mRED\x1b]0;pwn\x07\nnightjar: FAKE"
    titles = (hostile, "milk", None, "a\x9bb", "\U0001f469\u200d\U0001f33e")
    rows = [{c.ITEM_ID: str(n), c.TITLE: title} for n, title in enumerate(titles)]
    judged = judge(*rows)
    assert judged.good[c.TITLE].to_list() == [None, "milk", None, None, titles[-1]]
    assert judged.bad.height == 0
    assert judged.emptied[c.REASONS].to_list() == [["title_unprintable"]] * 2
    parts = (judge(*rows[:2]), judge(*rows[2:]))
    joined = ValidatedRows.joined(parts, name="a", broken=0, most=0)
    assert joined.emptied[c.REASONS].to_list() == judged.emptied[c.REASONS].to_list()


def test_a_naive_time_of_an_item_counts_as_missing():
    judged = judge({c.ITEM_ID: "i", c.CREATED_AT: "2024-03-01"}, source=Source(table="items"))
    assert judged.emptied[c.REASONS].to_list() == [["created_at_without_zone"]]


def test_a_bad_user_shows_no_person():
    judged = validate_catalogue(
        text({c.USER_ID: "anna" * 99, "age": "30"}), Source(table="users"), MISSING
    )
    assert judged.bad[c.REASONS].to_list() == [["user_id_too_long"]]
    assert "anna" not in judged.bad[c.RAW][0]


def test_new_items_are_available_and_the_last_of_equal_ids_counts():
    rows = [{c.ITEM_ID: "b", c.TITLE: "old"}, {c.ITEM_ID: "a", c.TITLE: "x"}]
    table, duplicates = merged(EMPTY, *rows, {c.ITEM_ID: "b", c.TITLE: "new"})
    assert duplicates == 1
    assert table.schema == c.ITEMS
    assert table.select(c.ITEM_ID, c.TITLE, c.AVAILABLE).rows() == [
        ("a", "x", True),
        ("b", "new", True),
    ]


def test_a_column_that_the_file_lacks_keeps_its_value():
    first, _ = merged(EMPTY, {c.ITEM_ID: "a", c.TITLE: "x", c.PRICE: "1", "brand": "q"})
    second, _ = merged(
        first,
        {c.ITEM_ID: "a", c.PRICE: None, c.AVAILABLE: "0"},
        {c.ITEM_ID: "b", c.PRICE: "3", c.AVAILABLE: None},
    )
    assert second.select(c.ITEM_ID, c.TITLE, c.PRICE, c.AVAILABLE, "brand").rows() == [
        ("a", "x", None, False, "q"),
        ("b", None, 3.0, True, None),
    ]


def test_the_same_file_again_changes_nothing():
    rows = [
        {c.ITEM_ID: "a", c.TITLE: "x", "brand": "q"},
        {c.ITEM_ID: "b", c.TITLE: None, "brand": None},
    ]
    first, _ = merged(EMPTY, *rows)
    again, _ = merged(first, *rows)
    assert again.equals(first)
    full, _ = merged(first, *rows, replace=True)
    assert full.equals(first)


def test_a_full_catalogue_makes_the_missing_unavailable_and_the_returning_available():
    first, _ = merged(EMPTY, {c.ITEM_ID: "a"}, {c.ITEM_ID: "b"})
    second, _ = merged(first, {c.ITEM_ID: "b"}, {c.ITEM_ID: "c"}, replace=True)
    assert second.select(c.ITEM_ID, c.AVAILABLE).rows() == [("a", False), ("b", True), ("c", True)]
    third, _ = merged(second, {c.ITEM_ID: "a"}, replace=True)
    assert third.select(c.ITEM_ID, c.AVAILABLE).rows() == [("a", True), ("b", False), ("c", False)]


def test_users_keep_their_features():
    source = Source(table="users")
    good = validate_catalogue(
        text({c.USER_ID: "u1", c.SEGMENT: "s", "age": "30"}), source, MISSING
    ).good
    table, _ = upsert("users", pl.DataFrame(schema=c.USERS), good, replace=False)
    assert table.rows() == [("u1", "s", "30")]
