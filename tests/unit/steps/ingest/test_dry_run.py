"""A dry run counts and shows bad rows; it stores and moves nothing."""

from __future__ import annotations

import pytest

from pipeline.steps.ingest.ingest import ingest
from pipeline.steps.ingest.results import FileStatus
from pipeline.workspace.child_process import Child
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, workspace

GOOD = "1,anna,bread,1,2024-03-01"
BAD = [f"{n},anna-secret,bread,much,2024-03-01" for n in range(2, 9)]


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return workspace(tmp_path / "ws")


def names(ws):
    files = (path for path in ws.home.rglob("*") if path.is_file())
    return sorted(path for path in files if ".locks" not in path.parts)


def test_a_dry_run_counts_and_shows_the_first_bad_rows(ws):
    path = land(ws, "orders.csv", orders(GOOD, *BAD, ",,x,0,2024-03-01"))
    before = names(ws)
    [file] = ingest(ws, [path], at=AT, dry_run=True).outcomes
    assert (file.status, file.exit_code) == (FileStatus.CHECKED, 0)
    counts = (file.rows, file.accepted, file.quarantined, file.skipped)
    assert counts == (9, 1, 7, 1)
    assert file.reasons == {"value_unparsable": 7}
    assert file.sentence.count('{"value":"much"}') == 5
    assert "anna" not in file.text()
    assert names(ws) == before
    [stored] = ingest(ws, [path], at=AT).outcomes
    assert (stored.status, stored.accepted) == (FileStatus.TAKEN, 1)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"\xff\xfe\x00\x01", FileStatus.SET_ASIDE),
        (orders(GOOD).replace("sku", "item").encode(), FileStatus.WAITS),
    ],
)
def test_a_dry_run_moves_no_file(ws, text, status):
    path = land(ws, "orders.csv", text)
    before = names(ws)
    [file] = ingest(ws, [path], at=AT, dry_run=True).outcomes
    assert (file.status, file.exit_code) == (status, 3)
    # The word for its status would otherwise be false.
    assert ("dry run" in file.text()) == (status is FileStatus.SET_ASIDE)
    assert names(ws) == before
