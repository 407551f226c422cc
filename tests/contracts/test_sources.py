"""One contract for all formats: the same rows give the same events, a bad file one sentence."""

import gzip
import io
import json
from datetime import UTC, date, datetime
from functools import partial

import polars as pl
import pyarrow as pa
import pytest

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import validate_events
from pipeline.data.sources.config import Limits, Source
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.sources.read import Summary, read
from pipeline.errors import DataError, UnsafeInputError
from tests.raising import raises

AT = datetime(2024, 3, 10, tzinfo=UTC)
packed = partial(gzip.compress, mtime=0)
"""Tests are named by their data: processes that share them must read the same names."""
SOURCE = Source(
    columns={c.USER_ID: "customer", c.ITEM_ID: "sku", c.VALUE: "n", c.TIMESTAMP: "ordered"},
    constants={c.KIND: "purchase"},
    timezone="Europe/Berlin",
    skip_when={"customer": ("",), "n": ("0",)},
)
ROWS = [
    {"customer": "anna", "sku": 7, "n": 2, "ordered": "2024-03-01 10:00:00", "note": "x"},
    {"customer": "anna", "sku": 7, "n": 0, "ordered": "2024-03-01 10:00:00", "note": "x"},
    {"customer": None, "sku": 8, "n": 1, "ordered": "2024-03-01 11:00:00", "note": None},
    {
        "customer": 'Zoë, "the" cat',
        "sku": 9,
        "n": -3,
        "ordered": "2024-03-02T23:30:00.25",
        "note": "",
    },
    {"customer": "名前", "sku": 10, "n": None, "ordered": "2024-03-03", "note": "two\nlines"},
    {"customer": "bert", "sku": 11, "n": 1, "ordered": "never", "note": "x"},
    {"customer": "bert", "sku": 12, "n": 1, "ordered": "2031-01-01", "note": "x"},
]
FORMATS = {
    "orders.csv": lambda text: text["csv"],
    "orders.csv.gz": lambda text: gzip.compress(text["csv"]),
    "orders.csv.zst": lambda text: zst(text["csv"]),
    "quoted.csv": lambda text: text["quoted"],
    "crlf.csv": lambda text: text["crlf"],
    "bom.csv": lambda text: b"\xef\xbb\xbf" + text["csv"],
    "orders.jsonl": lambda text: text["jsonl"],
    "orders.ndjson": lambda text: text["jsonl"],
    "orders.jsonl.gz": lambda text: gzip.compress(text["jsonl"]),
    "orders.jsonl.zst": lambda text: zst(text["jsonl"]),
    "orders.parquet": lambda text: text["parquet"],
}


def zst(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data).to_pybytes()


def written() -> dict[str, bytes]:
    frame = pl.DataFrame(ROWS)
    parquet = io.BytesIO()
    frame.write_parquet(parquet)
    return {
        "csv": frame.write_csv().encode(),
        "quoted": frame.write_csv(quote_style="always").encode(),
        "crlf": frame.write_csv(line_terminator="\r\n").encode(),
        "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
        "parquet": parquet.getvalue(),
    }


def take(data: bytes, name: str, source: Source = SOURCE, **limits: int):
    summary = Summary()
    frames = list(read(io.BytesIO(data), name, source, Limits(**limits), summary))
    return pl.concat(frames), summary


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_events(name):
    text, summary = take(FORMATS[name](written()), name)
    judged = validate_events(text, SOURCE, IngestConfig(), at=AT)
    good = judged.good.drop(AT_LINE, c.EVENT_ID, c.PUBLICATION_ID, c.POSITION)
    assert good.sort(c.ITEM_ID).rows(named=True) == [
        {c.USER_ID: "名前", c.ITEM_ID: "10", c.KIND: "purchase", c.VALUE: 1.0,
         c.TIMESTAMP: datetime(2024, 3, 2, 23, tzinfo=UTC)},
        {c.USER_ID: "anna", c.ITEM_ID: "7", c.KIND: "purchase", c.VALUE: 2.0,
         c.TIMESTAMP: datetime(2024, 3, 1, 9, tzinfo=UTC)},
        {c.USER_ID: "Zoë, \"the\" cat", c.ITEM_ID: "9", c.KIND: "return", c.VALUE: 3.0,
         c.TIMESTAMP: datetime(2024, 3, 2, 22, 30, 0, 250_000, tzinfo=UTC)},
    ]  # fmt: skip
    assert sorted(judged.bad[c.REASONS].to_list()) == [
        ["timestamp_in_future"],
        ["timestamp_unparsable"],
    ]
    assert summary.rows == len(ROWS)
    assert summary.skipped == 2
    assert summary.broken == []
    assert summary.ignored_columns == ("note",)


@pytest.mark.parametrize("name", FORMATS)
def test_lines_are_those_of_the_file(name):
    text, _ = take(FORMATS[name](written()), name)
    lines = {
        "parquet": [1, 4, 5, 6, 7],
        "jsonl": [1, 4, 5, 6, 7],
        "csv": [2, 5, 6, 8, 9],  # one row covers two lines, and the header is a line
    }
    kind = next(kind for kind in lines if kind in name.replace("ndjson", "jsonl"))
    assert text[AT_LINE].to_list() == lines[kind]


CSV = b"user_id,item_id,kind,timestamp\nanna,7,view,2024-03-01T10:00:00Z\n"
PLAIN = Source()


def test_a_header_alone_is_no_rows():
    text, summary = take(CSV.splitlines(keepends=True)[0], "a.csv", PLAIN)
    assert text.height == 0
    assert summary.rows == 0
    assert set(text.columns) == {AT_LINE, *c.EVENTS.names()[:8]}


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.csv", b"", "a.csv: is empty"),
        ("a.jsonl", b"", "a.jsonl: is empty"),
        ("a.jsonl", b"\n \n", "a.jsonl: is empty"),
        ("a.parquet", b"", "a.parquet: is empty"),
        ("a.csv.gz", b"", "a.csv.gz: is empty"),
        ("a.csv.gz", packed(b""), "a.csv.gz: is empty"),
        ("a.csv.gz", packed(CSV * 99)[:-20], "gzip data are cut short"),
        ("a.csv.gz", packed(CSV * 99)[:-4], "gzip data are cut short"),
        ("a.csv.zst", zst(CSV * 99)[:-4], "zstd data are cut short"),
        ("a.csv.gz", CSV, "gzip data are damaged"),
        ("a.csv.zst", CSV, "zstd data are damaged"),
        ("a.csv", packed(CSV), "format of its suffix: it contains gzip"),
        ("a.csv", b"PAR1....PAR1", "format of its suffix: it contains Parquet"),
        ("a.csv.gz", packed(b"PK\x03\x04"), "it contains zip"),
        ("a.jsonl", CSV, "format of its suffix: no line can be read"),
        ("a.parquet", CSV, "is not a Parquet file"),
        ("a.parquet", written()["parquet"][:-20], "is not a Parquet file, or is cut"),
        ("a.csv", CSV + b"b\xffrt,7,view,2024\n", "is not UTF-8: invalid bytes at line 3"),
        ("a.jsonl", b'{"a": "\xff"}\n', "is not UTF-8: invalid bytes at line 1"),
        ("a.csv", CSV + b"b\0rt,7,view,2024\n", "a NUL byte at line 3"),
        ("a.csv", "user_id,item_id".encode("utf-16"), "it contains UTF-16 text instead of UTF-8"),
        ("a.csv", "user_id".encode("utf-16-be"), "is not UTF-8: a NUL byte at line 1"),
        ("a.csv", b"a,b,a\n1,2,3\n", "names column 'a' twice"),
        ("a.csv", b'a,"b\n1,2\n', "header's quotes are broken"),
        ("a.csv", b"\na,b\n", "first line is blank"),
        ("a.csv", b"a,b\r1,2\r", "must end with a line feed"),
        ("a.txt", CSV, "an unknown suffix"),
        ("a.parquet.gz", CSV, "an unknown suffix"),
        ("csv", CSV, "an unknown suffix"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(name, data, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        take(data, name, PLAIN)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_parquet_text_that_is_no_utf8_is_an_error():
    data = io.BytesIO()
    pl.DataFrame({"item_id": ["ABCDEFGH"]}).write_parquet(
        data, compression="uncompressed", statistics=False
    )
    assert data.getvalue().count(b"ABCDEFGH") == 1
    with raises("source.not_parquet"):
        take(
            data.getvalue().replace(b"ABCDEFGH", b"ABC\xffEFGH"),
            "a.parquet",
            Source(table="items"),
        )


def test_a_damaged_gzip_is_an_error():
    data = bytearray(gzip.compress(CSV * 999 + b"".join(b"%d" % n for n in range(999))))
    data[len(data) // 2] ^= 0xFF
    with raises("source.damaged_stream"):
        take(bytes(data), "a.csv.gz", PLAIN)


def deep(depth: int) -> bytes:
    return b'{"user_id": ' + b"[" * depth + b"]" * depth + b"}\n"


@pytest.mark.parametrize(
    ("name", "data", "limits", "sentence"),
    [
        ("a.csv.gz", packed(b"a\n" * (2 << 20)), {}, "more than 200-fold"),
        ("a.csv.zst", zst(b"a\n" * (2 << 20)), {}, "more than 200-fold"),
        ("a.csv", CSV * 99, {"max_text_bytes": 999}, "more than 999 bytes of text"),
        ("a.csv", b",".join(b"c%d" % n for n in range(257)) + b"\n", {}, "has 257 columns"),
        ("a.jsonl", b'{"a": 1, "b": 2}\n', {"max_columns": 1}, "more than 1 different keys"),
        ("a.parquet", written()["parquet"], {"max_columns": 4}, "has 5 columns"),
        ("a.parquet", written()["parquet"], {"max_text_bytes": 50}, "expands to"),
        ("a.csv", b"a" * (9 << 20), {}, "has more than 2,097,152 bytes"),
        ("a.csv", CSV + b"1\n" * 3, {"max_bad_rows": 2}, "more than 2 rows that cannot be read"),
        ("a.csv", CSV + b'1"\n"' * 3, {"max_bad_rows": 2}, "more than 2 rows that cannot"),
        ("a.jsonl", b'{"a": 1}\n' + b"x\n" * 3, {"max_bad_rows": 2}, "more than 2 rows that"),
        ("a.csv", CSV, {"max_table_bytes": 100}, "rows of more than 100 bytes; divide the file"),
    ],
)
def test_a_limit_is_kept(name, data, limits, sentence):
    with pytest.raises(UnsafeInputError, match=sentence):
        take(data, name, PLAIN, **limits)


@pytest.mark.parametrize(
    ("name", "rows", "broken"),
    [
        ("a.csv", b"anna,7,view\n", [(3, 11, "wrong_number_of_fields")]),
        ("a.csv", b"anna,7,view,2024,x\n", [(3, 18, "wrong_number_of_fields")]),
        ("a.csv", b'"anna,7,view,2024\n', [(3, 17, "broken_quotes")]),
        ("a.csv", b'"an"na,7,view,2024\n', [(3, 18, "broken_quotes")]),
        ("a.csv", b'x\n"y,\nz\n', [(3, 1, "wrong_number_of_fields"), (4, 3, "broken_quotes"),
                                   (5, 1, "wrong_number_of_fields")]),
        ("a.csv", b"a" * 99 + b",7,view,2024\n", [(3, 111, "row_too_long")]),
        ("a.csv", b'"' + b"a" * 99 + b'",7,view,2024\n', [(3, 113, "row_too_long")]),
        ("a.csv", b"\n\r\n", []),
        ("a.jsonl", b'{"user_id": \n', [(3, 12, "broken_json")]),
        ("a.jsonl", b"[1]\n7\n", [(3, 3, "no_json_object"), (4, 1, "no_json_object")]),
        ("a.jsonl", b'{"value": NaN}\n', [(3, 14, "broken_json")]),
        ("a.jsonl", b'{"value": 1e999}\n', [(3, 16, "broken_json")]),
        ("a.csv", CSV.splitlines(keepends=True)[0], [(3, 30, "header_repeated")]),
        ("a.jsonl", b'{"user_id": 1, "user_id": 2}\n', [(3, 28, "doubled_key")]),
        ("a.jsonl", b'{"user_id": 1, "user\\u005fid": 2}\n', [(3, 33, "doubled_key")]),
        ("a.jsonl", b'{"note": [{"a": 1, "a": 2}]}\n', [(3, 28, "doubled_key")]),
        ("a.jsonl", b'{"user_id": "\\ud83d"}\n', [(3, 21, "broken_json")]),
        ("a.jsonl", deep(33), [(3, 79, "nested_too_deep")]),
        ("a.jsonl", deep(40000), [(3, 80013, "row_too_long")]),
        ("a.jsonl", b"\n  \n", []),
    ],
)  # fmt: skip
def test_a_broken_row_leaves_the_others(name, rows, broken):
    good = {
        "a.csv": CSV,
        "a.jsonl": b'{"user_id": "anna", "item_id": 1, "kind": "view", "timestamp": "2024"}\n' * 2,
    }[name]
    last = good.splitlines(keepends=True)[1]
    text, summary = take(good + rows + last, name, PLAIN, max_row_bytes=100)
    assert [(one.line, one.length, one.reason) for one in summary.broken] == broken
    lines = good.count(b"\n") + rows.count(b"\n") + 1
    assert text[AT_LINE].to_list() == ([2] if name == "a.csv" else [1, 2]) + [lines]
    assert summary.rows == text.height + len(broken)


def test_a_few_broken_rows_are_allowed_and_no_more():
    for name, row in {"a.csv": b"1\n", "a.jsonl": b"x\n"}.items():
        good = CSV if name == "a.csv" else b'{"item_id": 1}\n'
        source = PLAIN if name == "a.csv" else Source(table="items")
        _, summary = take(good + row * 2, name, source, max_bad_rows=2)
        assert len(summary.broken) == 2
    with raises("source.wrong_format"):
        take(b"x\n" * 9, "a.jsonl", PLAIN, max_bad_rows=2)


def test_two_halves_of_a_character_are_one():
    rows = b'{"item_id": "\\ud83d\\ude00"}\n'
    text, summary = take(rows, "a.jsonl", Source(table="items"))
    assert (text[c.ITEM_ID].to_list(), summary.broken) == (["😀"], [])


def test_a_row_of_parquet_that_is_too_long_leaves_the_others():
    data = io.BytesIO()
    pl.DataFrame({"item_id": ["1", "2", "3"], "note": ["a", "b" * 101, None]}).write_parquet(data)
    items = Source(table="items")
    text, summary = take(data.getvalue(), "a.parquet", items, max_row_bytes=100)
    assert text[AT_LINE].to_list() == [1, 3]
    assert [(one.line, one.length, one.reason) for one in summary.broken] == [
        (2, 102, "row_too_long")
    ]


def test_a_missing_column_is_named_with_those_that_exist():
    with raises("mapping.no_column"):
        take(CSV, "a.csv", Source(columns={c.ITEM_ID: "sku"}))
    with raises("mapping.no_column"):
        take(CSV.replace(b"kind", b"sort"), "a.csv", PLAIN)
    with raises("mapping.no_column"):
        take(CSV, "a.csv", Source(skip_when={"n": ("0",)}))
    text, _ = take(CSV.replace(b"kind", b"sort"), "a.csv", Source(constants={c.KIND: "view"}))
    assert text[c.KIND].to_list() == ["view"]


def test_a_json_key_may_be_absent_from_rows_but_not_from_all():
    rows = b'{"user_id": 1, "item_id": 2, "kind": "view", "timestamp": "x"}\n{"user_id": 2}\n'
    text, _ = take(rows, "a.jsonl", PLAIN)
    assert text[c.ITEM_ID].to_list() == ["2", None]
    with raises("mapping.no_column"):
        take(rows.replace(b"timestamp", b"time"), "a.jsonl", PLAIN)


def test_whole_numbers_keep_their_digits_and_nested_values_stay_json():
    rows = b'{"item_id": 12345678901234567890, "categories": ["a", {"b": 1}], "available": true}\n'
    text, _ = take(rows, "a.jsonl", Source(table="items"))
    assert text[c.ITEM_ID].to_list() == ["12345678901234567890"]
    assert json.loads(text[c.CATEGORIES][0]) == ["a", {"b": 1}]
    assert text[c.AVAILABLE].to_list() == ["true"]


def test_parquet_types_become_text():
    frame = pl.DataFrame(
        {
            "item_id": [1],
            "price": [2.5],
            "available": [False],
            "categories": [["a", "b"]],
            "created_at": [datetime(2024, 3, 1, 10, tzinfo=UTC).replace(tzinfo=None)],
            "seen": [datetime(2024, 3, 1, 10, tzinfo=UTC)],
            "day": [date(2024, 3, 1)],
            "colour": pl.Series(["red"], dtype=pl.Categorical),
        }
    )
    data = io.BytesIO()
    frame.write_parquet(data)
    text, _ = take(data.getvalue(), "a.parquet", Source(table="items"))
    assert text.drop(AT_LINE).row(0, named=True) == {
        "item_id": "1",
        "price": "2.5",
        "available": "false",
        "categories": '["a", "b"]',
        "created_at": "2024-03-01T10:00:00.000000",
        "seen": "2024-03-01T10:00:00.000000Z",
        "day": "2024-03-01",
        "colour": "red",
    }


def test_further_columns_of_items_are_features_under_safe_names():
    data = b"item_id,List Price (EUR),brand,,#line\n7,3,acme,zz,q\n"
    text, summary = take(data, "a.csv", Source(table="items", columns={c.TITLE: "brand"}))
    assert text.columns == [AT_LINE, c.ITEM_ID, c.TITLE, "List_Price_EUR", "line"]
    assert summary.ignored_columns == ("#4",)
    for clash in (b"item_id,Title,title\n", b"item_id,a b,a_b\n"):
        with raises("mapping.ambiguous_column"):
            take(clash, "a.csv", Source(table="items"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"columns": {"colour": "x"}}, "events have no column colour"),
        ({"columns": {c.KIND: "x"}, "constants": {c.KIND: "y"}}, "both a column and a constant"),
        ({"timezone": "Berlin"}, "'Berlin' is not a time zone"),
        ({"timestamp_unit": "s", "timezone": "UTC"}, "excludes timestamp_format"),
        ({"timestamp_unit": "minutes"}, "'s', 'ms' or 'us'"),
        ({"table": "orders"}, "'events', 'items' or 'users'"),
        ({"separator": ";"}, "separator"),
    ],
)
def test_a_source_that_cannot_be_is_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        Source.model_validate(fields)


def test_a_source_survives_its_own_json():
    assert Source.model_validate_json(SOURCE.model_dump_json()) == SOURCE
