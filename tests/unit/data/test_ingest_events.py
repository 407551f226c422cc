import json
from datetime import UTC, date, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import (
    CONTENT,
    by_file,
    conflict_rows,
    conflicting,
    derive_ids,
    event_rows,
    on_days,
    split_duplicates,
    validate_events,
    with_origin,
    with_pseudonyms,
)
from pipeline.data.ingest.quarantine import quarantine_rows
from pipeline.data.sources.config import Source
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.sources.streams import Broken

AT = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = IngestConfig()
GOOD = {
    c.EVENT_ID: "e",
    c.USER_ID: "anna",
    c.ITEM_ID: "bread",
    c.KIND: "purchase",
    c.VALUE: "2",
    c.TIMESTAMP: "2024-03-01T10:00:00Z",
    c.PUBLICATION_ID: None,
    c.POSITION: None,
}


def text(*rows: dict[str, str | None]) -> pl.DataFrame:
    schema = {AT_LINE: pl.Int64} | dict.fromkeys(GOOD, pl.String)
    lined = [{AT_LINE: n, **GOOD, **row} for n, row in enumerate(rows, start=2)]
    return pl.DataFrame(lined, schema=schema)


def judge(*rows: dict[str, str | None], config: IngestConfig = CONFIG):
    return validate_events(text(*rows), Source(), config, at=AT)


def reasons(**row: str | None) -> list[str]:
    judged = judge(row)
    assert judged.good.height + judged.bad.height == 1
    return judged.bad[c.REASONS].to_list()[0] if judged.bad.height else []


def test_a_good_row_is_typed():
    judged = judge({c.POSITION: "3", c.PUBLICATION_ID: "p"})
    assert judged.bad.height == 0
    assert judged.good.drop(AT_LINE).rows() == [
        ("e", "anna", "bread", "purchase", 2.0, datetime(2024, 3, 1, 10, tzinfo=UTC), "p", 3)
    ]
    assert judged.good[c.POSITION].dtype == pl.Int32


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({c.USER_ID: None}, ["user_id_missing"]),
        ({c.ITEM_ID: None, c.KIND: None}, ["item_id_missing", "kind_missing"]),
        ({c.USER_ID: "é" * 129}, ["user_id_too_long"]),
        ({c.USER_ID: "é" * 128}, []),
        ({c.ITEM_ID: "  "}, ["item_id_missing"]),
        ({c.KIND: "stare"}, ["kind_unknown"]),
        ({c.VALUE: "two"}, ["value_unparsable"]),
        ({c.VALUE: "nan"}, ["value_unparsable"]),
        ({c.VALUE: "inf"}, ["value_too_large"]),
        ({c.VALUE: "1e999"}, ["value_too_large"]),
        ({c.VALUE: "1e300"}, ["value_too_large"]),
        ({c.VALUE: " 1.5 "}, []),
        ({c.KIND: "view", c.VALUE: "-1"}, ["value_negative"]),
        ({c.TIMESTAMP: None}, ["timestamp_missing"]),
        ({c.TIMESTAMP: "soon"}, ["timestamp_unparsable"]),
        ({c.TIMESTAMP: "2024-03-10T00:00:00Z"}, []),
        ({c.TIMESTAMP: "2024-03-10T00:00:01Z"}, ["timestamp_in_future"]),
        ({c.TIMESTAMP: "1970-01-01T00:00:00Z"}, ["timestamp_too_early"]),
        ({c.POSITION: "0"}, ["position_below_one"]),
        ({c.POSITION: "first"}, ["position_unparsable"]),
        ({c.EVENT_ID: None}, []),
        ({c.KIND: "rating", c.VALUE: None}, ["value_missing"]),
        ({c.USER_ID: None, c.VALUE: "x", c.TIMESTAMP: "y"},
         ["user_id_missing", "value_unparsable", "timestamp_unparsable"]),
    ],
)  # fmt: skip
def test_a_bad_row_names_its_reasons(row, expected):
    assert reasons(**row) == expected


@pytest.mark.parametrize(
    ("kind", "value", "typed"),
    [
        ("purchase", "-2", ("return", 2.0)),
        ("return", "-2", ("return", 2.0)),
        ("return", "2", ("return", 2.0)),
        ("purchase", None, ("purchase", 1.0)),
        ("view", None, ("view", 1.0)),
        ("purchase", "0", ("purchase", 0.0)),
        ("rating", "4.5", ("rating", 4.5)),
    ],
)
def test_a_negative_quantity_is_a_return(kind, value, typed):
    assert judge({c.KIND: kind, c.VALUE: value}).good.select(c.KIND, c.VALUE).rows() == [typed]


def test_kinds_are_configured():
    config = IngestConfig(kinds=("listen", "return"), quantity_kinds=("listen",))
    judged = judge({c.KIND: "listen", c.VALUE: "-1"}, {c.KIND: "purchase"}, config=config)
    assert judged.good[c.KIND].to_list() == ["return"]
    assert judged.bad[c.REASONS].to_list() == [["kind_unknown"]]


def test_ids_are_normalised():
    judged = judge({c.USER_ID: "jose\u0301", c.ITEM_ID: "cafe\u0301", c.EVENT_ID: "e\u0301"})
    assert judged.good.select(c.EVENT_ID, c.USER_ID, c.ITEM_ID).rows() == [("é", "josé", "café")]


def test_quarantine_shows_no_person():
    judged = judge({c.USER_ID: "anna-secret", c.EVENT_ID: "anna-7", c.VALUE: "x"})
    broken = [Broken(9, 12, "broken_json"), Broken(1, 3, "row_too_long")]
    rows = quarantine_rows(judged.bad, broken, at=AT, source="orders", batch_id="b")
    assert rows.schema == c.QUARANTINE
    assert rows[c.LINE].to_list() == [1, 2, 9]
    assert rows[c.REASONS].to_list() == [["row_too_long"], ["value_unparsable"], ["broken_json"]]
    kept = [json.loads(raw) for raw in rows[c.RAW]]
    assert kept == [{"length": 3}, {c.VALUE: "x"}, {"length": 12}]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({c.USER_ID: "anna" * 99}, {c.USER_ID: "***"}),
        ({c.USER_ID: None}, {c.USER_ID: None}),
        ({c.KIND: 'st"are', c.VALUE: "two"}, {c.KIND: 'st"are', c.VALUE: "two"}),
        ({c.KIND: "x" * 99}, {c.KIND: "x" * 32}),
        ({c.KIND: "x" * 40 + "anna@example.org"}, {c.KIND: "***"}),
        ({c.KIND: "call (0170) 555-0147"}, {c.KIND: "***"}),
        ({c.TIMESTAMP: "anna", c.KIND: "+491705550147"}, {c.TIMESTAMP: "anna", c.KIND: "***"}),
        ({c.TIMESTAMP: "2024-13-01T10:00:00Z"}, {c.TIMESTAMP: "2024-13-01T10:00:00Z"}),
        ({c.TIMESTAMP: "31.02.2024 10:00"}, {c.TIMESTAMP: "31.02.2024 10:00"}),
        ({c.ITEM_ID: "\x1b[31m"}, {c.ITEM_ID: "\x1b[31m"}),
    ],
)
def test_quarantine_keeps_bad_values_only(row, kept):
    assert [json.loads(raw) for raw in judge(row).bad[c.RAW]] == [kept]


def identified(*rows: dict[str, str | None]) -> pl.DataFrame:
    good = judge(*rows).good
    pseudonyms = {user: f"u{user}" for user in good[c.USER_ID]}
    return derive_ids(with_pseudonyms(good, pseudonyms))


def test_an_id_that_is_there_stays():
    result = identified({c.EVENT_ID: "mine"}, {c.EVENT_ID: None})
    assert result[c.EVENT_ID][0] == "mine"
    assert result[c.EVENT_ID][1].startswith("d")
    assert len(result[c.EVENT_ID][1]) == 33


def test_derived_ids_follow_content_and_not_order():
    rows = [{c.EVENT_ID: None, c.ITEM_ID: item} for item in ("a", "b", "a", "c")]
    ids = identified(*rows).select(c.ITEM_ID, c.EVENT_ID).rows()
    turned = identified(*reversed(rows)).select(c.ITEM_ID, c.EVENT_ID).rows()
    assert len(set(ids)) == 4
    assert set(ids) == set(turned)


@pytest.mark.parametrize(
    "other",
    [
        {c.USER_ID: "bert"},
        {c.ITEM_ID: "milk"},
        {c.KIND: "view"},
        {c.VALUE: "3"},
        {c.TIMESTAMP: "2024-03-01T10:00:00.000001Z"},
        {c.PUBLICATION_ID: "p"},
        {c.POSITION: "1"},
    ],
)
def test_every_part_of_an_event_counts(other):
    one, two = identified({c.EVENT_ID: None}, {c.EVENT_ID: None, **other})[c.EVENT_ID]
    assert one != two


def test_equal_content_gives_equal_ids_however_it_is_spelled():
    one = identified({c.EVENT_ID: None, c.VALUE: "0"})[c.EVENT_ID][0]
    two = identified({c.EVENT_ID: None, c.VALUE: "-0.0", c.TIMESTAMP: "2024-03-01 11:00+01:00"})
    assert two[c.EVENT_ID][0] == one


def test_parts_cannot_run_into_each_other():
    rows = ({c.USER_ID: "a", c.ITEM_ID: "b:1"}, {c.USER_ID: "ab", c.ITEM_ID: ":1"})
    one, two = identified(*({c.EVENT_ID: None, **row} for row in rows))[c.EVENT_ID]
    assert one != two


def test_duplicates_are_recognised_by_id_and_day():
    rows = identified(
        {c.EVENT_ID: "e1"},
        {c.EVENT_ID: "e1", c.VALUE: "9"},
        {c.EVENT_ID: "e1", c.TIMESTAMP: "2024-03-02T00:00:00Z"},
        {c.EVENT_ID: "e2"},
        {c.EVENT_ID: "e3"},
    )
    known = pl.DataFrame(
        {c.EVENT_ID: ["e2", "e3"], c.EVENT_DAY: [date(2024, 3, 1), date(2024, 3, 2)]}
    )
    fresh, repeats = split_duplicates(rows, known)
    assert repeats[c.EVENT_ID].to_list() == ["e2", "e1"]
    known = with_origin(fresh, source="orders", batch_id="b")
    assert list(by_file(known)) == ["b"]
    assert by_file(known.clear()) == {}
    made = event_rows(known, at=AT)
    assert made.schema == c.EVENTS
    assert made.select(c.SOURCE, c.BATCH_ID).unique().rows() == [("orders", "b")]
    assert made.select(c.EVENT_ID, c.EVENT_DAY, c.VALUE).rows() == [
        ("e1", date(2024, 3, 1), 2.0),
        ("e1", date(2024, 3, 2), 2.0),
        ("e3", date(2024, 3, 1), 2.0),
    ]
    days = pl.DataFrame({c.EVENT_DAY: [date(2024, 3, d) for d in (1, 2, 3)]})
    assert days.filter(on_days(rows)).height == 2


def test_a_repeat_with_other_content_is_no_duplicate():
    rows = identified(
        {c.EVENT_ID: "e1"},
        {c.EVENT_ID: "e1"},
        {c.EVENT_ID: "e1", c.VALUE: "9"},
        {c.EVENT_ID: "e1", c.TIMESTAMP: "2024-03-01T23:00:00Z"},
        {c.EVENT_ID: "e1", c.POSITION: "1"},
        {c.EVENT_ID: "e2"},
        {c.EVENT_ID: None},
        {c.EVENT_ID: None},
    )
    nothing = pl.DataFrame(schema={name: c.EVENTS[name] for name in CONTENT})
    stored, _ = split_duplicates(rows.filter(pl.col(c.EVENT_ID) == "e2"), nothing)
    stored = stored.with_columns(pl.lit("other").alias(c.ITEM_ID)).select(CONTENT)
    fresh, repeats = split_duplicates(rows, stored)
    assert (fresh.height, repeats.height) == (3, 5)
    result = conflict_rows(conflicting(repeats, pl.concat([stored, fresh.select(CONTENT)])))
    assert result[c.REASONS].to_list() == [["event_id_conflict"]] * 4
    assert [json.loads(raw) for raw in result[c.RAW]] == [{c.EVENT_ID: "***"}] * 4


@pytest.mark.parametrize(
    "hidden",
    ["\u200b", "\ufeff", "\xad", "\u202e", "\U000e0041", *"\ufe0f\u034f\u3164\u2028\u2800"],
)
def test_ids_that_look_like_others_are_bad(hidden):
    columns = (c.EVENT_ID, c.USER_ID, c.ITEM_ID)
    judged = judge(*({column: f"item{hidden}004"} for column in columns))
    assert judged.bad[c.REASONS].to_list() == [[f"{column}_unprintable"] for column in columns]
    assert judged.good.height == 0
    assert judge({c.PUBLICATION_ID: f"p{hidden}"}).bad.height == 1


def test_ids_with_control_characters_and_long_publications_are_bad():
    rows = [
        {c.USER_ID: "an\0na"},
        {c.EVENT_ID: "e\nf"},
        {c.ITEM_ID: "\x1b[31m"},
        {c.PUBLICATION_ID: "p" * 257},
        {c.PUBLICATION_ID: "p\0"},
        {c.PUBLICATION_ID: "p" * 256},
    ]
    judged = judge(*rows)
    assert judged.bad[c.REASONS].to_list() == [
        ["user_id_unprintable"],
        ["event_id_unprintable"],
        ["item_id_unprintable"],
        ["publication_id_unparsable"],
        ["publication_id_unparsable"],
    ]
    assert judged.good[c.PUBLICATION_ID].to_list() == ["p" * 256]
