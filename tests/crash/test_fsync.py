"""Every acknowledged write was forced to the disk before. A killed process cannot show that, so the
tests record the calls of fsync."""

import os
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.reporting.page_files import write_atomically
from pipeline.stores.disk import sync_tree
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Runs
from pipeline.workspace.child_process import Child
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, workspace


@pytest.fixture
def synced(monkeypatch):
    """The paths that were fsynced, in order; a new list begins where it is cleared."""
    paths: list[Path] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        paths.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def test_commits_their_folders_and_the_spool_are_forced_to_the_disk(tmp_path, monkeypatch, synced):
    monkeypatch.setattr(Child, "call", parsed_here)
    ws = workspace(tmp_path / "ws")
    land(ws, "orders-1.csv", orders("1,anna,bread,1,2024-03-01", "2,anna,milk,x,2024-03-01"))
    synced.clear()
    feedback(ws, AT)
    lake = ws.home / "lake"
    tables = ("events", "quarantine", "batches")
    written = {path for table in tables for path in (lake / table).rglob("*")}
    assert len([path for path in written if path.suffix == ".parquet"]) == 4
    assert len([path for path in written if path.suffix == ".json"]) == 4
    assert written <= set(synced)
    assert {lake, *(lake / table for table in tables)} <= set(synced)
    assert {lake / "_sums" / f"{table}.jsonl" for table in tables} <= set(synced)

    def first(path: Path) -> int:
        return synced.index(path)

    intent = first(lake / "batches" / "_delta_log" / f"{0:020}.json")
    draft = next(path.name for path in synced if path.parent == lake / "_spool")
    for name in (f"{draft}/events.parquet", f"{draft}/quarantine.parquet", draft, ""):
        assert first(lake / "_spool" / name) < intent
    moved = first(ws.home / "archive")
    for table in tables:
        log = sorted((lake / table / "_delta_log").glob("*.json"))
        assert first(log[0]) < first(lake / "_sums" / f"{table}.jsonl")
        assert max(map(first, log)) < moved
    assert ws.home / "landing" / "events" in synced[moved:]


def test_steps_and_ledger_lines_are_forced_to_the_disk(tmp_path, synced):
    run = Runs(tmp_path).open("r")
    with run.draft("step") as draft:
        draft.bytes("a", b"1")
        assert synced[-1].name == "a"
    names = [path.name for path in synced]
    assert names[1] == "manifest.json"
    assert names[2].startswith(".draft-step-")
    assert synced[3] == run.folder
    synced.clear()
    Ledger(tmp_path / "ledger.jsonl").append("k", "t", {})
    assert synced == [tmp_path / "ledger.jsonl", tmp_path / "ledger.head.new", tmp_path]


def test_a_page_is_forced_to_the_disk_before_and_after_its_renaming(tmp_path, synced):
    write_atomically(tmp_path / "page.html", b"<html>")
    assert [path.name for path in synced] == [f".page.html.{os.getpid()}", tmp_path.name]
    assert (tmp_path / "page.html").read_bytes() == b"<html>"


def test_a_folder_and_all_in_it_and_above_it_are_forced_to_the_disk(tmp_path, synced):
    folder = tmp_path / "top" / "a" / "b"
    (folder / "c").mkdir(parents=True)
    (folder / "c" / "file").write_bytes(b"1")
    sync_tree(folder, tmp_path / "top")
    names = ["c/file", "c", ".", "..", "../.."]
    assert set(synced) == {(folder / name).resolve() for name in names}
    synced.clear()
    sync_tree(tmp_path / "missing", tmp_path)
    assert synced == []
