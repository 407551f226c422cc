"""A full or read-only disk, a file that may not grow, an unusual environment: no loss.

Each ends with one sentence, and the next pass completes.
"""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.workspace import Workspace
from tests.commands import outcome
from tests.ingesting import AT, land, orders, state, workspace

ROOT = Path(__file__).resolve().parents[2]
ROWS = 30_000


def prepare(home: Path) -> Workspace:
    """Make a workspace with one user; a small file and one of 1 MB have landed."""
    ws = workspace(home)
    land(ws, "orders-0.csv", orders("a0,anna,bread,1,2024-03-01"))
    feedback(ws, AT)
    land(ws, "orders-1.csv", orders("a1,anna,milk,1,2024-03-01", "a2,anna,milk,x,2024-03-01"))
    rows = (f"b{n},anna,item{n * 7919 % 9973},1,2024-03-0{1 + n % 9}" for n in range(ROWS))
    land(ws, "orders-2.csv", orders(*rows))
    return ws


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The workspace, and its state after an undisturbed pass."""
    home = prepare(tmp_path_factory.mktemp("prepared") / "ws").home
    shutil.copytree(home, home.parent / "calm")
    undisturbed = Workspace.open(home.parent / "calm")
    assert feedback(undisturbed, AT).accepted == 1 + ROWS
    return home, state(undisturbed)


@pytest.fixture(params=["size=4m"])
def small_disk(request, tmp_path):
    """A file system of 4 MB, or one that a test parametrises."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(
            "no file system can be mounted here: it takes root, and a container may forbid it"
        )
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _pass(home: Path, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """Make a pass as a command would, in a process whose files may grow to `largest` bytes."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "feedback", "--home", str(home), "--at",
         AT.isoformat()],
        cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False,
        preexec_fn=limit,
    )  # fmt: skip


def check_named(done: subprocess.CompletedProcess[str]) -> None:
    """Check that the pass ended with a store's exit code and one sentence."""
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr
    # Log lines are JSON; a library that panicked must not add lines of its own.
    sentences = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert [line[:10] for line in sentences] == ["nightjar: "], done.stderr
    assert "no space left on device; " in sentences[0] or "file too large; " in sentences[0]


@pytest.mark.root
@pytest.mark.parametrize("free_kb", [0, 40, 300, 500])
def test_a_full_disk_loses_nothing(prepared, small_disk, free_kb):
    source, expected = prepared
    home = small_disk / "ws"
    shutil.copytree(source, home)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(b"0" * (free - free_kb * 1024))
    check_named(_pass(home))
    assert not (home / "rejected").exists()
    ballast.unlink()
    done = _pass(home)
    assert done.returncode == 0, done.stderr
    assert state(Workspace.open(home)) == expected
    assert list((home / "landing" / "events").iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("small_disk", ["size=40m,nr_inodes=400"], indirect=True)
@pytest.mark.parametrize("free", [6, 15])
def test_exhausted_inodes_lose_nothing(prepared, small_disk, free):
    source, expected = prepared
    home = small_disk / "ws"
    shutil.copytree(source, home)
    ballast = small_disk / "ballast"
    ballast.mkdir()
    for number in range(os.statvfs(small_disk).f_ffree - free):
        (ballast / str(number)).touch()
    check_named(_pass(home))
    assert not (home / "rejected").exists()
    shutil.rmtree(ballast)
    done = _pass(home)
    assert done.returncode == 0, done.stderr
    assert state(Workspace.open(home)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("largest", [500, 5_000, 100_000])
def test_files_that_may_not_grow_lose_nothing(prepared, tmp_path, largest):
    source, expected = prepared
    home = tmp_path / "ws"
    shutil.copytree(source, home)
    check_named(_pass(home, largest))
    assert not (home / "rejected").exists()
    done = _pass(home)
    assert done.returncode == 0, done.stderr
    assert state(Workspace.open(home)) == expected


@pytest.mark.root
@pytest.mark.parametrize("small_disk", ["size=40m"], indirect=True)
@pytest.mark.parametrize("free_kb", [0, 24])
def test_maintenance_on_a_full_disk_loses_nothing(prepared, small_disk, free_kb):
    home = small_disk / "ws"
    shutil.copytree(prepared[0].parent / "calm", home)
    ws = Workspace.open(home)
    land(ws, "orders-3.csv", orders("c1,anna,milk,1,2024-03-01"))
    feedback(ws, AT)
    expected, ballast = state(ws), small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(b"0" * (free - free_kb * 1024))
    assert outcome(home, "gc", "--at", AT.isoformat()).code == 6
    ballast.unlink()
    assert outcome(home, "gc", "--at", AT.isoformat()).code == 0
    assert state(Workspace.open(home)) == expected


@pytest.mark.root
def test_a_read_only_workspace_answers_and_is_not_written(prepared, small_disk):
    home = small_disk / "ws"
    shutil.copytree(prepared[0], home)
    before = state(Workspace.open(home))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in ("feedback", "gc"):
        done = outcome(home, command, "--at", AT.isoformat())
        assert (done.code, done.id) == (6, "storage.cannot_write")
    assert outcome(home, "history").code == 0
    assert outcome(home, "policy", "--at", AT.isoformat()).code == 0
    assert state(Workspace.open(home)) == before


SURROUNDINGS = {
    "another zone, no HOME, no UTF-8": {
        "TZ": "Pacific/Apia", "HOME": None, "LC_ALL": "C", "PYTHONUTF8": "0",
    },
    "a HOME that cannot be written, no TMPDIR": {"HOME": "/proc/1", "TMPDIR": "/nowhere"},
}  # fmt: skip


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_the_surroundings_of_a_process_change_no_row(prepared, tmp_path, surroundings, monkeypatch):
    source, expected = prepared
    home = Path(shutil.copytree(source, tmp_path / "ws"))
    for name, value in SURROUNDINGS[surroundings].items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    done = _pass(home)
    assert done.returncode == 0, done.stderr
    monkeypatch.undo()
    assert state(Workspace.open(home)) == expected
