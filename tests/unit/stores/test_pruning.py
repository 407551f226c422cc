"""Removals are whole; files that a process writes stay; a killed removal is completed."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.stores.pruning import (
    Removed,
    drop_files,
    last_activity,
    remove,
    remove_older,
    remove_orphans,
    touch,
)
from pipeline.stores.runs import Runs
from tests.raising import raises

ROOT = Path(__file__).resolve().parents[3]
NOW = datetime.now(UTC)


@pytest.fixture
def run(tmp_path):
    run = Runs(tmp_path / "runs").open("r-1")
    with run.draft("train/als") as draft:
        draft.bytes("scorer.npz", b"12345")
        draft.bytes("recipe.json", b"{}")
    return run


def test_a_file_is_forgotten_and_the_rest_of_its_step_stays(run):
    assert drop_files(run, "train/als", ["scorer.npz"]) == Removed(1, 5)
    assert drop_files(run, "train/als", ["scorer.npz"]) == Removed()
    assert run.bytes("train/als", "recipe.json") == b"{}"
    assert run.committed("train/als") is not None
    with raises("storage.cannot_read"):
        run.bytes("train/als", "scorer.npz")


def test_a_run_goes_with_all_it_has(run):
    assert remove(run).files == 4  # the manifest and the lock, too
    assert not run.folder.exists()
    assert list(run.folder.parent.iterdir()) == []


def test_a_removal_that_was_killed_is_ended_and_its_run_is_gone_at_once(run, monkeypatch):
    monkeypatch.setattr("pipeline.stores.pruning.failpoint", stop)
    with pytest.raises(InterruptedError):
        remove(run)
    monkeypatch.undo()
    runs = Runs(run.folder.parent)
    assert runs.starting_with("") == ()
    assert not run.folder.exists()
    assert remove_orphans(runs).files == 4
    assert list(runs.root.iterdir()) == []


def stop(name: str) -> None:
    raise InterruptedError(name)


def test_the_draft_of_an_ended_process_goes_and_that_of_a_running_one_stays(run):
    left = run.folder / "train" / ".draft-mad-7-99999"
    left.mkdir()
    (left / "scorer.npz").write_bytes(b"123")
    runs = Runs(run.folder.parent)
    with run.draft("features") as draft, run.writing("train/mad-7"):
        draft.bytes("x", b"1")
        assert remove_orphans(runs) == Removed()
    assert remove_orphans(runs) == Removed(1, 3)
    assert not left.exists()
    assert run.committed("features") is not None
    assert remove_orphans(runs) == Removed()


def test_a_draft_of_a_killed_process_is_detected(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from pipeline.stores.runs import Runs\n"
        "with Runs(Path(sys.argv[1])).open('r').draft('train/als') as d:\n"
        "    d.bytes('x', b'1234'); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert remove_orphans(Runs(tmp_path)) == Removed(1, 4)
    assert Runs(tmp_path).open("r").steps() == ()


def test_no_runs_leave_nothing(tmp_path):
    assert remove_orphans(Runs(tmp_path / "calibrations")) == Removed()


def test_age_is_since_a_file_was_put_where_it_is(tmp_path):
    old, young, folder = tmp_path / "old", tmp_path / "young", tmp_path / "folder"
    for path in (old, young):
        path.write_bytes(b"12")
    folder.mkdir()
    os.utime(old, (1_000_000_000, 1_000_000_000))  # written long ago, put here today
    os.utime(young, (4_000_000_000, 4_000_000_000))  # a sender can set this time to any other
    link = tmp_path / "link"
    link.symlink_to(folder)
    paths = [old, young, folder, link, tmp_path / "gone"]
    assert remove_older(paths[:4], NOW - timedelta(minutes=1)) == Removed()
    taken = remove_older(paths[:4], NOW + timedelta(days=1))
    assert (taken.files, old.exists(), young.exists(), link.is_symlink()) == (
        3,
        False,
        False,
        False,
    )
    assert folder.is_dir()


def test_a_run_that_is_worked_on_is_refused(run):
    manifest = run.folder / "train" / "als" / "manifest.json"
    os.utime(manifest, (1_000_000_000, 1_000_000_000))
    assert last_activity(run, "train/als").year == 2001
    touch(run, "train/als")
    assert last_activity(run, "train/als") > NOW - timedelta(minutes=1)
    with raises("storage.cannot_write"):
        touch(run, "features")
