"""An id means one thing: equal exactly for equal meanings, whatever the format and the type."""

import json
import re
import unicodedata
from datetime import UTC, datetime
from io import BytesIO

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import validate_events
from pipeline.data.sources.config import Limits, Source
from pipeline.data.sources.read import Summary, read

AT = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = IngestConfig()
FIXED = settings(max_examples=60, database=None, derandomize=True, deadline=None)
EDGE = 2**53
SPACES = st.text("\t \u00a0\u2007\u3000", max_size=2)


def is_name(text: str) -> bool:
    """Select names: neither numbers nor words for a missing id, without outer spaces."""
    absent = {word.casefold() for word in CONFIG.missing_ids} | {"", "*"}
    number = re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text)
    return text == text.strip() and text.casefold() not in absent and not number


INTEGERS = st.one_of(st.integers(-20, 20), st.integers(1 - EDGE, EDGE - 1)).map(str)
NAMES = st.one_of(
    st.sampled_from(["007", "00", "7a", "1.5", "07.0", "1e3", "12E5", "Zo\u00eb", "a b", "ab"]),
    st.text("aZ\u00e90. _-'\"", min_size=1, max_size=6).filter(is_name),
).map(lambda text: unicodedata.normalize("NFC", text))


@st.composite
def written(draw, meanings=st.one_of(INTEGERS, NAMES)):
    """A meaning, and one of its spellings."""
    meaning = draw(meanings)
    spelling = meaning
    if re.fullmatch(r"0|-?[1-9]\d*", meaning):
        spelling += draw(st.sampled_from(["", ".0", ".00"]))
    else:
        spelling = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), spelling)
        spelling = spelling.replace(" ", draw(st.sampled_from(" \u00a0\u202f")))
    return meaning, draw(SPACES) + spelling + draw(SPACES)


def read_back(data: bytes, name: str) -> list[str]:
    """Return the ids of the items, none of which is bad."""
    text = pl.concat(read(BytesIO(data), name, Source(), Limits(), Summary()))
    judged = validate_events(text, Source(), CONFIG, at=AT)
    assert judged.bad.is_empty()
    return judged.good[c.ITEM_ID].to_list()


def of_formats(ids: pl.Series) -> dict[str, list[str]]:
    """Return the ids of a column, by the format that it was written to."""
    fields = {c.USER_ID: "u", c.KIND: "view", c.TIMESTAMP: "2024-03-01T10:00:00Z"}
    frame = pl.select(ids.alias(c.ITEM_ID), **{k: pl.lit(v) for k, v in fields.items()})
    parquet = BytesIO()
    frame.write_parquet(parquet)
    lines = "".join(json.dumps(row) + "\n" for row in frame.rows(named=True))
    return {
        "csv": read_back(frame.write_csv(quote_style="non_numeric").encode(), "a.csv"),
        "jsonl": read_back(lines.encode(), "a.jsonl"),
        "parquet": read_back(parquet.getvalue(), "a.parquet"),
    }


@FIXED
@given(st.lists(written(), min_size=1, max_size=12))
def test_ids_are_equal_exactly_if_a_user_would_call_them_equal(rows):
    meanings = [meaning for meaning, _ in rows]
    for ids in of_formats(pl.Series([raw for _, raw in rows])).values():
        assert ids == meanings


@FIXED
@given(st.lists(INTEGERS.map(int), min_size=1, max_size=8))
def test_integers_have_the_ids_of_their_text_in_each_type(numbers):
    expected = [str(number) for number in numbers]
    types = [pl.Int64, pl.Float64, pl.Decimal(38, 2)]
    if all(abs(number) < 2**24 for number in numbers):
        types += [pl.Int32, pl.Float32]
    for dtype in types:
        column = pl.Series(numbers).cast(dtype)
        rows = of_formats(column if dtype != pl.Decimal(38, 2) else column.cast(pl.String))
        rows |= {"typed": of_parquet(column)}
        assert all(ids == expected for ids in rows.values()), dtype


def of_parquet(column: pl.Series) -> list[str]:
    frame = pl.select(
        column.alias(c.ITEM_ID),
        **{c.USER_ID: pl.lit("u"), c.KIND: pl.lit("view"), c.TIMESTAMP: pl.lit(AT)},
    )
    stream = BytesIO()
    frame.write_parquet(stream)
    return read_back(stream.getvalue(), "a.parquet")
