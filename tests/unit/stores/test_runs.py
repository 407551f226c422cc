"""Faults of a run's files, and the required outcomes.

* killed while a step is written        -> the step is not there; its leftovers are swept
* a second attempt at a committed step  -> gets the first one's output, never a mix
* a file changed after the commit       -> refused by its sum
* a file missing, a manifest damaged    -> refused, and named
* a step that was never done            -> refused, and named
* two processes write the same step     -> the second is refused by name
* the disk is full                      -> the step is not there; the next attempt writes it
* an array of objects                   -> refused: it would need pickle
* a run id that leaves the folder       -> refused
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.errors import StorageError
from pipeline.stores import runs
from pipeline.stores.json_files import RootArtifact
from pipeline.stores.runs import Runs
from tests.raising import raises


class Facts(RootArtifact[Any]):
    FILE = "facts"


class Cost(RootArtifact[dict[str, float]]):
    FILE = "cost"
    VOLATILE = True


@pytest.fixture
def run(tmp_path):
    return Runs(tmp_path / "runs").open("20171201T090000Z-0badcafe")


def write(run, step="features"):
    with run.draft(step) as draft:
        draft.write(Facts({"b": 1, "a": [1.5, None]}))
        draft.frame("rows", pl.DataFrame({"x": [1, 2, 3]}))
        draft.arrays("arrays", {"ids": np.array(["é", "b"]), "n": np.arange(3)})
        draft.rows = 3
    return draft.ref


def visible(run):
    names = (path.name for path in run.folder.iterdir())
    return [name for name in names if not name.startswith(".lock-")]


def test_two_writers_of_one_step(run):
    with run.draft("features"):
        other = Runs(run.folder.parent).open(run.run_id)
        with raises("lock.held"), other.draft("features"):
            pass
        with other.draft("train/als") as draft:
            draft.rows = 1
    assert run.steps() == ("features", "train/als")


def test_reads_back_the_written_content(run):
    ref = write(run)
    assert (ref.step, ref.rows) == ("features", 3)
    assert run.committed("features") == ref
    assert run.read(Facts, "features").root == {"a": [1.5, None], "b": 1}
    assert run.frame("features", "rows")["x"].to_list() == [1, 2, 3]
    arrays = run.arrays("features", "arrays")
    assert arrays["ids"].tolist() == ["é", "b"]
    assert arrays["n"].tolist() == [0, 1, 2]


def test_the_same_content_has_the_same_sum(tmp_path):
    first = write(Runs(tmp_path / "a").open("r"))
    second = write(Runs(tmp_path / "b").open("r"))
    assert first == second


def test_an_error_while_writing_commits_nothing(run):
    with pytest.raises(ZeroDivisionError), run.draft("features") as draft:
        draft.bytes("facts.json", b"{}")
        raise ZeroDivisionError
    assert run.committed("features") is None
    assert visible(run) == []


@pytest.mark.parametrize("before", ["manifest", "rename"])
def test_killed_while_writing(tmp_path, before):
    code = f"""
import os, pathlib
from pipeline.stores import runs
def die(*a, **k): os._exit(9)
if {before!r} == "manifest":
    runs._manifest_bytes = die
else:
    pathlib.Path.rename = die
run = runs.Runs(pathlib.Path({str(tmp_path / "runs")!r})).open("r")
with run.draft("features") as draft:
    draft.bytes("facts.json", b"{{}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert done.returncode == 9
    run = Runs(tmp_path / "runs").open("r")
    left = visible(run)
    assert len(left) == 1
    assert left[0].startswith(".draft-features-")
    assert run.committed("features") is None
    assert run.steps() == ()
    write(run)
    assert visible(run) == ["features"]


def test_a_committed_step_is_not_written_again(run):
    ref = write(run)
    with raises("run.step_committed"), run.draft("features"):
        pass
    assert run.committed("features") == ref


def test_a_changed_file_is_refused(run):
    write(run)
    path = run.folder / "features" / "facts.json"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    with raises("run.checksum"):
        run.bytes("features", "facts.json")


def test_a_missing_file_is_named(run):
    write(run)
    (run.folder / "features" / "facts.json").unlink()
    with raises("storage.cannot_read"):
        run.bytes("features", "facts.json")
    with raises("run.no_file"):
        run.bytes("features", "other.json")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"rows": 1}'])
def test_a_damaged_manifest_is_named(run, damage):
    write(run)
    (run.folder / "features" / "manifest.json").write_bytes(damage)
    with raises("run.manifest_damaged"):
        run.bytes("features", "facts.json")


IRREGULAR = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "an empty file": Path.touch,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", IRREGULAR)
def test_an_irregular_file_is_named_and_blocks_nothing(run, kind):
    write(run)
    for name, ids in (
        ("facts.json", ("storage.cannot_read", "run.checksum")),
        ("manifest.json", ("run.manifest_damaged",)),
    ):
        path = run.folder / "features" / name
        path.unlink()
        IRREGULAR[kind](path)
        with pytest.raises(StorageError) as failed:
            run.bytes("features", "facts.json")
        assert failed.value.id in ids
        if name == "manifest.json":
            with raises("run.manifest_damaged"):
                run.committed("features")
            with raises("run.step_committed"), run.draft("features"):
                pass
        assert os.path.lexists(path)


def test_a_step_that_was_not_done_is_named(run):
    with raises("run.step_missing"):
        run.bytes("gate", "decision.json")


def test_objects_are_refused(run):
    with pytest.raises(ValueError, match="Object arrays"), run.draft("train/als") as draft:
        draft.arrays("scorer", {"bad": np.array([{}, None], dtype=object)})
    assert run.committed("train/als") is None


def test_not_a_number_is_no_json(run):
    with pytest.raises(ValueError, match="JSON"), run.draft("gate") as draft:
        draft.write(Facts({"x": float("nan")}))


@pytest.mark.parametrize("bad", ["", "../x", "a/b", ".hidden", "a" * 300, "a\0b"])
def test_a_run_id_stays_in_its_folder(tmp_path, bad):
    with raises("run.invalid_id"):
        Runs(tmp_path).open(bad)


def test_steps_and_runs_are_listed(tmp_path):
    runs = Runs(tmp_path)
    assert runs.starting_with("") == ()
    for name in ("20171215-b", "20171201-a"):
        write(runs.open(name), "train/als")
    write(runs.open("20171201-a"), "train/popularity")
    assert [run.run_id for run in runs.starting_with("20171201")] == ["20171201-a"]
    assert runs.open("20171201-a").steps("train") == ("train/als", "train/popularity")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into any folder")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write"), Runs(tmp_path).open("r").draft("x"):
        pass


def test_measurements_are_kept_and_checked_but_name_no_output(tmp_path):
    def written(name, seconds, facts=1):
        run = Runs(tmp_path / name).open("20171201T090000Z-0badcafe")
        with run.draft("train/als") as draft:
            draft.write(Facts(facts))
            draft.write(Cost({"seconds": seconds}))
        return run

    slow, fast, other = written("slow", 9.5), written("fast", 0.5), written("other", 9.5, facts=2)
    assert slow.ref("train/als") == fast.ref("train/als") != other.ref("train/als")
    assert slow.read(Cost, "train/als").root == {"seconds": 9.5}
    (slow.folder / "train/als/cost.json").write_text('{"seconds": 0.1}')
    with raises("run.checksum"):
        slow.read(Cost, "train/als")


def test_every_flipped_byte_of_a_manifest_is_an_error(tmp_path):
    """Rows, sizes and names of files have no other checksum."""
    run = Runs(tmp_path).open("r1")
    with run.draft("train/als") as draft:
        draft.bytes("a", b"1")
        draft.bytes("seconds", b"2", volatile=True)
        draft.rows = 7
    path = run.folder / "train" / "als" / "manifest.json"
    whole, manifest = path.read_bytes(), run.manifest("train/als")
    assert manifest["rows"] == 7
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            assert run.manifest("train/als") == manifest  # a space became another blank
        except StorageError as error:
            assert error.id == "run.manifest_damaged"
    path.write_bytes(b"[]")
    with raises("run.manifest_damaged"):
        run.ref("train/als")


@pytest.mark.parametrize("call", ["write_synced", "sync"])
def test_a_full_disk_leaves_no_part_of_a_step(run, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runs, call, full)
        with raises("storage.cannot_write") as failed, run.draft("features") as draft:
            draft.bytes("a", b"1")
    assert "no space left on device; free disk space" in failed.value.sentence
    assert run.committed("features") is None
    with run.draft("features") as draft:
        draft.bytes("a", b"1")
    assert run.bytes("features", "a") == b"1"
    assert [path.name for path in run.folder.iterdir() if path.is_dir()] == ["features"]
