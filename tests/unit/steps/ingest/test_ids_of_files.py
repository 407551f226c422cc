"""Ids of files of each type: those of events and of the catalogue are the same ones."""

from __future__ import annotations

import json
import uuid

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import columns as c
from pipeline.steps.ingest.ingest import ingest
from pipeline.steps.ingest.results import FileStatus
from pipeline.workspace.child_process import Child
from tests.dying import parsed_here
from tests.ingesting import AT, land, workspace

TIME = "2024-03-01T10:00:00Z"


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return workspace(tmp_path / "ws", "")


def write(ws, name, table="events", **columns):
    path = land(ws, name, b"", table)
    rows = len(next(iter(columns.values())))
    if table == "events":
        one = {c.USER_ID: "u", c.ITEM_ID: "i", c.KIND: "view", c.TIMESTAMP: TIME}
        columns = {name: [value] * rows for name, value in one.items()} | columns
    pq.write_table(pa.table(columns), path)
    return path


def take(ws, path, table="events"):
    return ingest(ws, [path], table=table, at=AT).outcomes[0]


def test_floats_of_events_items_and_users_are_the_ids_of_their_integers(ws):
    floats = pa.array([99001.0, None, 2.0**53, float("nan")])
    result = take(ws, write(ws, "e.parquet", item_id=floats, user_id=[7.0, 7.0, 7.0, 7.0]))
    assert (result.accepted, result.quarantined) == (1, 3)
    assert result.reasons == {"item_id_lost_digits": 1, "item_id_missing": 2}
    assert result.changed == {"item_id_float": 1, "user_id_float": 4}
    assert take(ws, write(ws, "i.parquet", "items", item_id=floats), "items").accepted == 1
    assert take(ws, write(ws, "u.parquet", "users", user_id=[7.0]), "users").accepted == 1
    for table in ("events", "items"):
        assert ws.lake.read(table)[c.ITEM_ID].to_list() == ["99001"]
    users = {*ws.lake.read("users")[c.USER_ID], *ws.lake.read("events")[c.USER_ID]}
    assert set(ws.vault.reveal(list(users)).values()) == {"7"}
    assert len(users) == 1


@pytest.mark.parametrize(("dtype", "first"), [(pa.float32(), 2.0**24), (pa.float16(), 2.0**11)])
def test_floats_of_few_bits_lose_digits_earlier(ws, dtype, first):
    path = write(ws, "e.parquet", item_id=pa.array([first - 1, first, None], dtype))
    assert take(ws, path).reasons == {"item_id_lost_digits": 1, "item_id_missing": 1}
    assert ws.lake.read("events")[c.ITEM_ID].to_list() == [str(int(first) - 1)]


def test_a_uuid_of_parquet_is_the_one_of_text(ws):
    one = uuid.UUID("3F2504E0-4F89-11D3-9A0C-0305E82C3301")
    take(ws, write(ws, "e.parquet", item_id=pa.array([one.bytes, None], pa.uuid())))
    assert ws.lake.read("events")[c.ITEM_ID].to_list() == [str(one)]


def test_large_floats_of_json_lose_digits_and_large_integers_do_not(ws):
    other = f'"user_id": "u", "kind": "view", "timestamp": "{TIME}", "note": [1e30, "é"]'
    ids = ["9007199254740993.0", "1e22", "-1E+20", "9007199254740993", '"1e22"', "5.0", "1e3"]
    path = land(ws, "e.jsonl", "".join(f'{{"item_id": {one}, {other}}}\n' for one in ids))
    assert take(ws, path).reasons == {"item_id_lost_digits": 3}
    stored = ws.lake.read("events")[c.ITEM_ID].to_list()
    assert set(stored) == {"9007199254740993", "1e22", "5", "1000"}


@pytest.mark.parametrize(
    "values", [[["a", "b"], ["c"]], [{"id": "a"}, {"id": "b"}], [[("a", 1)], [("b", 2)]]]
)
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_file_with_lists_or_objects_as_ids_waits(ws, values, form):
    if form == "parquet":
        pairs = isinstance(values[0], list) and isinstance(values[0][0], tuple)
        dtype = pa.map_(pa.string(), pa.int64()) if pairs else None
        path = write(ws, "e.parquet", item_id=pa.array(values, dtype))
    else:
        one = {c.USER_ID: "u", c.KIND: "view", c.TIMESTAMP: TIME}
        path = land(ws, "e.jsonl", "".join(json.dumps(one | {c.ITEM_ID: v}) + "\n" for v in values))
    result = take(ws, path)
    assert (result.status, result.error_id) == (FileStatus.WAITS, "ingest.wrong_setting")
    assert "column item_id holds lists" in result.sentence
    assert path.exists()
    assert ws.lake.version("events") is None


def test_a_result_names_ids_that_may_mean_that_there_is_none(ws):
    ids = ["0"] * 2 + ["-1"] + [f"i{n}" for n in range(97)]
    result = take(ws, write(ws, "e.parquet", item_id=ids, user_id=[f"u{n}" for n in range(100)]))
    assert (result.accepted, result.doubtful) == (100, {"item_id 0": 2})
    assert "2 item_id 0" in result.text()


def test_an_event_without_a_usable_event_id_gets_one(ws):
    path = write(ws, "e.parquet", event_id=["nan", "nan", None], item_id=["a", "b", "c"])
    assert take(ws, path).accepted == 3
    assert ws.lake.read("events").select(pl.col(c.EVENT_ID).str.starts_with("d").all()).item()
