"""Every row ends in exactly one place, and the content of an event does not depend on its file."""

import json
from collections import Counter
from datetime import UTC, datetime
from io import BytesIO

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.events import (
    CONTENT,
    IDENTITY,
    conflict_rows,
    conflicting,
    derive_ids,
    split_duplicates,
    validate_events,
    with_pseudonyms,
)
from pipeline.data.ingest.quarantine import quarantine_rows
from pipeline.data.sources.config import Limits, Source
from pipeline.data.sources.read import Summary, read

AT = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = IngestConfig()
SOURCE = Source(skip_when={c.ITEM_ID: ("skip",)})
NOTHING = pl.DataFrame(schema={name: c.EVENTS[name] for name in CONTENT})

FIELDS = {
    c.EVENT_ID: st.sampled_from(["", "", "e1", "e2"]),
    c.USER_ID: st.sampled_from(["anna", "bert", "", "x" * 300]),
    c.ITEM_ID: st.sampled_from(["bread", "milk", "skip", ""]),
    c.KIND: st.sampled_from(["purchase", "view", "return", "rating", "stare", ""]),
    c.VALUE: st.sampled_from(["", "1", "-2", "0", "nan", "inf", "two"]),
    c.TIMESTAMP: st.sampled_from(
        ["2024-03-01T10:00:00Z", "2024-03-02T10:00:00Z", "2031-01-01T00:00:00Z", "soon", ""]
    ),
}
GOOD = {
    c.EVENT_ID: st.just(""),
    c.USER_ID: st.sampled_from(["anna", "bert"]),
    c.ITEM_ID: st.sampled_from(["bread", "milk"]),
    c.KIND: st.just("purchase"),
    c.VALUE: st.sampled_from(["1", "2"]),
    c.TIMESTAMP: st.sampled_from(["2024-03-01T10:00:00Z", "2024-03-02T10:00:00Z"]),
}
FIXED = settings(max_examples=50, database=None, derandomize=True, deadline=None)

ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries(FIELDS).map(lambda row: line(row)),
        st.sampled_from(["a,b", '"open,1,2', "", "1,2,3,4,5,6,7"]),
    ),
    max_size=25,
)


class Taken:
    """Result of one file, given the events of the lake."""

    def __init__(self, data: bytes, known: pl.DataFrame = NOTHING, name: str = "a.csv") -> None:
        self.summary = Summary()
        text = pl.concat(read(BytesIO(data), name, SOURCE, Limits(), self.summary))
        judged = validate_events(text, SOURCE, CONFIG, at=AT)
        pseudonyms = {user: f"u{user}" for user in judged.good[c.USER_ID]}
        identified = derive_ids(with_pseudonyms(judged.good, pseudonyms))
        self.fresh, repeats = split_duplicates(identified, known.select(IDENTITY))
        firsts = pl.concat([known, self.fresh.select(CONTENT)])
        conflicts = conflicting(repeats, firsts)
        self.duplicates = repeats.height - conflicts.height
        self.quarantine = quarantine_rows(
            pl.concat([judged.bad, conflict_rows(conflicts)]),
            self.summary.broken,
            at=AT,
            source="s",
            batch_id="b",
        )

    @property
    def identities(self) -> pl.DataFrame:
        return self.fresh.select(CONTENT)


def line(row: dict[str, str]) -> str:
    return ",".join(row[name] for name in FIELDS)


def csv(rows: list[str]) -> bytes:
    return "\n".join([",".join(FIELDS), *rows, ""]).encode()


@FIXED
@given(ROWS)
def test_rows_reconcile_exactly(rows):
    taken = Taken(csv(rows))
    accepted, quarantined = taken.fresh.height, taken.quarantine.height
    ends = accepted + quarantined + taken.duplicates + taken.summary.skipped
    assert taken.summary.rows == ends == sum(1 for row in rows if row)
    assert all(taken.quarantine[c.REASONS].list.len() > 0)
    lines = taken.quarantine[c.LINE].to_list()
    assert len(lines) == len(set(lines))
    again = Taken(csv(rows), taken.identities)
    assert again.fresh.height == 0
    assert again.duplicates == accepted + taken.duplicates


@FIXED
@given(ROWS, st.integers(0, 25))
def test_a_file_in_two_parts_brings_the_same_events_with_ids(rows, cut):
    """Rows that carry ids: cutting a file changes nothing."""
    whole = Taken(csv(rows))
    first = Taken(csv(rows[:cut]))
    second = Taken(csv(rows[cut:]), first.identities)
    named = ~pl.col(c.EVENT_ID).str.starts_with("d")
    parts = pl.concat([first.fresh, second.fresh]).filter(named)
    assert sorted(parts[c.EVENT_ID]) == sorted(whole.fresh.filter(named)[c.EVENT_ID])


@FIXED
@given(st.lists(st.fixed_dictionaries(GOOD), max_size=20), st.randoms(use_true_random=False))
def test_a_reordered_copy_adds_nothing_and_equal_rows_all_live(rows, random):
    lines = [line(row) for row in rows]
    first = Taken(csv(lines))
    assert first.fresh.height == len(lines)
    assert first.duplicates == 0
    random.shuffle(lines)
    assert Taken(csv(lines), first.identities).fresh.height == 0
    # One more of an equal row is one more event, and only that.
    for extra in lines[:1]:
        assert Taken(csv([*lines, extra]), first.identities).fresh.height == 1
    counts = Counter(lines)
    content = first.fresh.group_by(c.USER_ID, c.ITEM_ID, c.VALUE, c.TIMESTAMP).len()
    assert sorted(content["len"]) == sorted(counts.values())


@FIXED
@given(st.lists(st.fixed_dictionaries(FIELDS), min_size=1, max_size=15))
def test_csv_and_json_lines_bring_the_same(rows):
    one = Taken(csv([line(row) for row in rows]))
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    two = Taken(lines, name="a.jsonl")
    shared = [name for name in one.fresh.columns if not name.startswith("#")]
    assert one.fresh.select(shared).equals(two.fresh.select(shared))
    assert one.quarantine[c.REASONS].to_list() == two.quarantine[c.REASONS].to_list()
    assert one.duplicates == two.duplicates


@FIXED
@given(
    st.lists(
        st.lists(st.text(alphabet='ab,"\n\r é', max_size=6), min_size=3, max_size=3), max_size=12
    )
)
def test_quick_and_careful_reading_agree(rows):
    """The rows of a CSV writer are read back, wherever quotes and line feeds are."""
    header = [c.ITEM_ID, "a", "b"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")
    # A lone carriage return inside a field is what no reader of lines can keep.
    frame = frame.with_columns(pl.all().str.replace_all("\r", ""))
    summary = Summary()
    source = Source(table="items")
    text = pl.concat(read(BytesIO(frame.write_csv().encode()), "a.csv", source, Limits(), summary))
    expected = frame.with_columns(pl.when(pl.all() != "").then(pl.all()).name.keep())
    assert not summary.broken
    assert text.select(header).rows() == expected.rows()
