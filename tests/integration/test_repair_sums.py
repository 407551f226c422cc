"""Lost checksums are accepted for a user and a reason, which the ledger keeps.

What can go wrong: checksums are accepted without an entry in the ledger, or with two; a sound lake
gets an entry; a command of the command line does not print one JSON object.
"""

import json
import shutil
from datetime import UTC, datetime

import pytest

from pipeline.base import as_of
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.maintenance.repair_lake import repair_checkpoints, repair_sums
from pipeline.stores.lake import Restoration
from pipeline.workspace.child_process import Child
from pipeline.workspace.ledger import RepairEntry, entries_of
from pipeline.workspace.workspace import Workspace
from tests.commands import outcome
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, state, workspace
from tests.raising import raises

NOW = as_of(datetime(2024, 6, 1, tzinfo=UTC))


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    ws = workspace(tmp_path / "ws")
    for number in range(3):
        land(ws, f"orders-{number}.csv", orders(f"a{number},anna,bread,1,2024-03-0{number + 1}"))
        feedback(ws, AT)
    return ws


def repairs(ws):
    return [entry for entry in entries_of(ws.damaged_ledger) if isinstance(entry, RepairEntry)]


def repair(ws):
    return repair_sums(ws, NOW, by="anna", reason="bad disk")


def test_each_table_gets_an_entry_with_user_and_reason(ws):
    before = state(ws)
    shutil.rmtree(ws.home / "lake" / "_sums")
    with raises("lake.sums_lost"):
        feedback(Workspace.open(ws.home), AT)
    result = repair(ws)
    assert list(result.repaired) == ["events", "batches"]
    assert [entry.store for entry in repairs(ws)] == ["events", "batches"]
    assert {(entry.by, entry.reason, entry.as_of) for entry in repairs(ws)} == {
        ("anna", "bad disk", NOW)
    }
    again = Workspace.open(ws.home)
    assert state(again) == before
    land(again, "orders-9.csv", orders("a9,anna,bread,1,2024-03-01"))
    assert feedback(again, AT).accepted == 1


def test_commits_whose_rows_were_altered_are_named(ws):
    [path] = (ws.home / "lake/events/event_day=2024-03-02").glob("*.parquet")
    path.write_bytes(path.read_bytes().replace(b"bread", b"breed"))
    (ws.home / "lake/_sums/events.jsonl").unlink()
    result = repair(ws)
    assert result.altered == {"events": (1,)}
    assert "version 1 " in repairs(ws)[0].sentence
    assert "version 1 " in result.text()
    assert repair(ws).altered == {}


def test_an_altered_file_of_the_last_version_is_accepted_by_a_user_only(ws):
    lake = ws.home / "lake"
    [path] = (lake / "events/event_day=2024-03-03").glob("*.parquet")
    path.write_bytes(path.read_bytes().replace(b"bread", b"breed"))
    sums = lake / "_sums" / "events.jsonl"
    sums.write_bytes(b"".join(sums.read_bytes().splitlines(keepends=True)[:-1]))
    with raises("lake.commit_altered"):
        feedback(Workspace.open(ws.home), AT)
    assert list(repair(ws).repaired) == ["events"]
    assert [(entry.store, entry.by) for entry in repairs(ws)] == [("events", "anna")]
    assert sorted(Workspace.open(ws.home).lake.read("events")["item_id"]) == [
        "bread",
        "bread",
        "breed",
    ]


def test_a_sound_lake_gets_no_entry(ws):
    assert repair(ws).repaired == {}
    assert repair_checkpoints(ws).repaired == {}
    assert repairs(ws) == []


def test_a_killed_repair_is_completed_under_the_same_entry(ws, monkeypatch):
    (ws.home / "lake" / "_sums" / "events.jsonl").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Restoration, "accept_sums", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            repair(ws)
    assert len(repairs(ws)) == 1
    assert list(repair(ws).repaired) == ["events"]
    assert len(repairs(ws)) == 1


def test_a_user_and_a_reason_are_needed(ws):
    with raises("override.empty"):
        repair_sums(ws, NOW, by="anna", reason=" ")


def test_an_ingest_in_progress_is_not_disturbed(ws):
    with ws.lake.lock("ingest"), raises("lock.held"):
        repair(ws)


@pytest.mark.parametrize(
    "command",
    [
        ("checkpoints",),
        ("batch",),
        ("sums", "--by", "anna", "--reason", "disk"),
        ("ledger", "--by", "anna", "--reason", "disk"),
    ],
)
def test_each_command_prints_one_json_object(ws, command):
    done = outcome(ws.home, "repair", *command, "--json")
    assert done.code == 0
    assert isinstance(json.loads(done.out), dict)
    text = outcome(ws.home, "repair", *command)
    assert text.out.startswith("nothing to repair")
