"""Raw ids of unexpected files: messages, results, logs and the lake do not contain them."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import columns as c
from pipeline.base import plain
from pipeline.cli import main
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest.results import FileStatus, IngestResult
from pipeline.workspace.workspace import Workspace
from tests.ingesting import AT, land, workspace
from tests.raising import raises

CONFIG = """
[sources.web]
table = "events"
path = "web*"
constants = { user_id = "web", item_id = "i", kind = "view", timestamp = "2024-03-01T10:00:00Z" }
"""
HEADER = "user_id,item_id,kind,timestamp\n"
TIME = "2024-03-01T10:00:00Z"
KEY = "PATIENTkeyPATIENTkeyPATIENTkeyPATIENTkeyabc="
FILES = {
    # A file without a header, with and without the doubled value of a column.
    "headerless.csv": f"PATIENT-alice@example.org,item1,purchase,{TIME}\n" * 2,
    "headerless-plain.csv": f"PATIENTalice,item1,purchase,{TIME}\n" * 2,
    "headerless-epoch.csv": "PATIENTalice,item1,bought,1709287200\n" * 2,
    "headerless-short.csv": "PATIENTalice,item1,purchase\n" * 2,
    "headerless-rating.csv": "PATIENT-alice,item1,rating,March 1 2026\n" * 2,
    "headerless-fraction.csv": "PATIENTalice,item1,.5,first of march\n" * 2,
    "headerless-month.csv": "PATIENTalice,item1,bought,first of march\n" * 2,
    "doubled.csv": f"PATIENTbob,PATIENTbob,purchase,{TIME}\n",
    "web-headerless.csv": f"PATIENTalice,item1,purchase,{TIME}\n" * 2,
    # JSON with ids as keys: one object per user, one object of all users, and a wanted column.
    "keyed.jsonl": "".join(
        json.dumps({f"PATIENT{n}": {"item_id": "i", "kind": "view"}}) + "\n" for n in range(200)
    ),
    "keyed-once.jsonl": json.dumps({f"PATIENT{n}": ["i"] for n in range(50)}) + "\n",
    "keyed-wide.jsonl": "".join(
        json.dumps(
            {"user_id": "x", "item_id": "i", "kind": "view", "timestamp": TIME, f"PATIENT{n}": 1}
        )
        + "\n"
        for n in range(150)
    ),
    # A short row, and rows whose columns are shifted.
    "short.csv": HEADER + f"471100,i1,purchase\nu,i1,purchase,{TIME}\n",
    "shifted.csv": HEADER
    + f"u,PATIENT-jane@example.org,gaze,{TIME}\n"
    + f"u,i1,badkind-PATIENT-john@example.org,{TIME}\n"
    + f"u,i1,+49 170 5550147,{TIME}\n"
    + f"u,i1,{'a' * 40}-PATIENT,{TIME}\n"
    + "u,i1,view,01.02.2026 tel 0170 5550147\n"
    + "u,i1,view,2026-03-01-5550147\n"
    + f"PATIENTuser,i1,view,{'PATIENTuser@example.org ' * 3}\n",
    # A column that no table has.
    "card.csv": f"{HEADER.strip()},card\nu,i1,purchase,{TIME},4111111111111111\n",
    # A secret of one line.
    "key.csv": KEY,
}


@dataclass(frozen=True)
class Echo:
    """All that a pass over `FILES` left."""

    ws: Workspace
    result: IngestResult
    texts: dict[str, str]


def command(*words: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["nightjar", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit),
    ):
        main()
    return out.getvalue(), err.getvalue()


def written(ws: Workspace) -> Iterator[tuple[str, str]]:
    """Yield the texts that are kept: reasons of rejected files, and rows of the lake."""
    for path in sorted((ws.home / "rejected").glob("*.txt")):
        yield path.name, path.read_text()
    for table in ("events", "quarantine", "batches"):
        yield table, json.dumps(ws.lake.read(table).rows(), default=str)


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    ws = workspace(tmp_path_factory.mktemp("echo") / "ws", CONFIG)
    for name, content in FILES.items():
        land(ws, name, content)
    table = pa.table({"PATIENTalice@example.org": ["PATIENTbob@example.org"], TIME: [TIME]})
    pq.write_table(table, ws.home / "landing" / "events" / "headerless.parquet")
    land(ws, "users.csv", f"PATIENTalice,adult,{TIME}\n", "users")
    land(ws, "items.csv", "item_id,a b,a_b\nPATIENTitem,1,2\n", "items")
    with redirect_stderr(io.StringIO()) as err, redirect_stdout(io.StringIO()) as out:
        result = feedback(ws, AT)
    texts = {"result": json.dumps(plain(result)), "text": result.text(), "log": err.getvalue()}
    texts |= {"stdout": out.getvalue(), **dict(written(ws))}
    # Files that wait are reported by each pass.
    for options in ((), ("--json",)):
        texts["".join(("command", *options))] = "".join(
            command("feedback", "--at", "2024-03-10T00:00:00Z", "--home", str(ws.home), *options)
        )
    return Echo(ws, result, texts)


def test_the_pass_reads_all_files_and_none_of_them_is_echoed(echo):
    assert {one.status for one in echo.result.outcomes} == {
        FileStatus.TAKEN,
        FileStatus.SET_ASIDE,
        FileStatus.WAITS,
    }
    assert len(echo.result.outcomes) >= len(FILES) + 2
    assert echo.ws.lake.read("quarantine").height > 0
    assert any(name.endswith("reason.txt") for name in echo.texts)
    for name, text in echo.texts.items():
        for word in ("PATIENT", "example.org", "471100", "5550147", "4111111111111111"):
            assert word not in text, (name, word, text[max(0, text.index(word) - 200) :][:400])


def test_no_hash_of_a_row_or_of_an_id_is_kept(echo):
    rows = [row for content in FILES.values() for row in content.splitlines()]
    words = [*rows, "471100", "PATIENTalice", "PATIENTuser"]
    kept = json.dumps(echo.ws.lake.read("quarantine").rows(), default=str)
    for word in words:
        for algorithm in ("sha256", "sha1", "md5"):
            assert hashlib.new(algorithm, word.encode()).hexdigest() not in kept


def test_quarantine_keeps_of_a_row_the_bad_values_only(echo):
    quarantine = echo.ws.lake.read("quarantine").sort(c.SOURCE, c.LINE)
    kept = [json.loads(raw) for raw in quarantine.sort(c.LINE)[c.RAW]]
    assert {"length": 18} in kept
    assert {c.KIND: "gaze"} in kept
    assert {c.KIND: "***"} in kept
    assert {c.KIND: "a" * 32} in kept
    assert {c.TIMESTAMP: "***"} in kept


def test_a_header_that_looks_like_data_is_counted_not_named(echo):
    sentences = {one.file: one.sentence for one in echo.result.outcomes}
    for name in FILES:
        if name.startswith("headerless"):
            assert "first line looks like data" in sentences[name], name
            assert f"{FILES[name].splitlines()[0].count(',') + 1} columns" in sentences[name]
    assert "first line looks like data" in sentences["doubled.csv"]
    assert "first line looks like data" in sentences["users.csv"]
    assert "'a b'" in sentences["items.csv"]
    assert isinstance(quarantine := echo.ws.lake.read("quarantine"), pl.DataFrame)
    assert quarantine.schema == c.QUARANTINE


ALICE = f"event_id,{HEADER}alice-2024-03-01,u,i,view,{TIME}\n,u,i,view,{TIME}\n"
DERIVED = "[privacy]\nderive_event_ids = true\n"


def test_derived_event_ids_are_not_the_delivered_ones_and_find_duplicates(tmp_path):
    ws = workspace(tmp_path / "ws", DERIVED)
    land(ws, "a.csv", ALICE)
    assert feedback(ws, AT).accepted == 2
    # Another file, so that its events are compared and not its bytes; the same id with other
    # content is a conflict.
    again = ALICE + f"alice-2024-03-01,u,j,view,{TIME}\n"
    land(ws, "b.csv", again)
    result = feedback(ws, AT)
    assert (result.accepted, result.duplicates, result.reasons) == (0, 2, {"event_id_conflict": 1})
    ids = sorted(ws.lake.read("events")[c.EVENT_ID])
    assert [one[0] for one in ids] == ["d", "e"]
    assert ids[1] == ws.vault.event_id("alice-2024-03-01")
    assert hashlib.sha256(b"alice-2024-03-01").hexdigest()[:32] not in ids[1]
    kept = (path for path in (ws.home / "lake").rglob("*") if path.is_file())
    for path in kept:
        assert b"alice" not in path.read_bytes()
        if path.suffix == ".parquet":
            assert "alice" not in json.dumps(pl.read_parquet(path).rows(), default=str)


@pytest.mark.parametrize("config", ["", DERIVED])
def test_the_form_of_event_ids_is_chosen_before_the_first_event(tmp_path, config):
    home, other = tmp_path / "ws", DERIVED if config == "" else ""
    # The choice may change until an event is ingested.
    assert feedback(workspace(home, other), AT).accepted == 0
    (home / "nightjar.toml").write_text(config)
    ws = Workspace.open(home)
    land(ws, "a.csv", ALICE)
    assert feedback(ws, AT).accepted == 2
    (home / "nightjar.toml").write_text(other)
    land(ws, "b.csv", ALICE + "\n")
    before = ws.lake.version("batches")
    with raises("privacy.changed"):
        feedback(Workspace.open(home), AT)
    assert Workspace.open(home).lake.version("batches") == before
    assert (home / "landing" / "events" / "b.csv").exists()
    (home / "nightjar.toml").write_text(config)
    assert feedback(Workspace.open(home), AT).duplicates == 2
