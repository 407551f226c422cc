"""Files that wait, or cannot be moved, stop neither the other files nor the fold-in."""

from __future__ import annotations

import errno
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest import read_file
from pipeline.steps.ingest.ingest import ingest, ingest_landed
from pipeline.steps.ingest.results import FileStatus
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, workspace
from tests.raising import raises

GOOD = "1,anna,bread,1,2024-03-01"
TOMORROW = f"2,anna,bread,1,{AT + timedelta(days=1):%Y-%m-%d}"
HOUR = timedelta(hours=1)


@pytest.fixture
def ws(tmp_path):
    return workspace(tmp_path / "ws")


@pytest.fixture
def here(monkeypatch):
    """Files are read in this process, which is faster."""
    monkeypatch.setattr(Child, "call", parsed_here)


def landed(ws):
    return sorted(path.name for path in (ws.home / "landing" / "events").iterdir())


def run_cli(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["nightjar", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


# Killed readers


@pytest.fixture
def killed(monkeypatch):
    """A reader whose file has `dies-2` in its name is killed twice."""
    monkeypatch.setattr(read_file, "_PARSE", "tests.unit.workspace.child_cases:parse_or_die")


def test_a_file_whose_reader_was_killed_once_is_read_again(ws, killed):
    land(ws, "orders-dies-1.csv", orders(GOOD))
    result = feedback(ws, AT)
    assert (result.accepted, result.exit_code, landed(ws)) == (1, 0, [])


def test_a_file_whose_reader_is_killed_waits_and_the_others_go_on(ws, killed):
    land(ws, "orders-dies-3.csv", orders(GOOD))
    land(ws, "orders-good.csv", orders("2,bert,milk,1,2024-03-01"))
    result = feedback(ws, AT)
    assert (result.accepted, result.exit_code, result.foldin.users_refreshed) == (1, 2, 0)
    [waiting] = [file for file in result.outcomes if file.exit_code]
    assert (waiting.status, waiting.error_id) == (FileStatus.WAITS, "resource.child_killed")
    assert landed(ws) == ["orders-dies-3.csv"]
    assert not (ws.home / "rejected").exists()
    again = feedback(ws, AT)  # the third reader is killed as well, the fourth is not
    assert (again.accepted, again.exit_code, landed(ws)) == (1, 0, [])


# The clock


def test_a_clock_before_the_last_ingest_is_refused(ws, here, monkeypatch):
    land(ws, "orders-1.csv", orders(GOOD))
    ingest_landed(ws, AT, by_hand=False)
    path = land(ws, "orders-2.csv", orders("2,anna,milk,1,2024-03-02"))
    with raises("ingest.clock_behind"):
        feedback(ws, AT - HOUR, by_hand=False)
    with raises("ingest.clock_behind"):
        ingest(ws, [path], at=AT - HOUR, by_hand=False)
    assert landed(ws) == ["orders-2.csv"]
    assert feedback(ws, AT - HOUR).accepted == 1  # named by hand


def test_only_an_instant_of_the_clock_is_compared(ws, here, monkeypatch):
    land(ws, "orders-1.csv", orders(GOOD))
    ingest_landed(ws, AT + timedelta(days=365_000))
    path = ws.home / "landing" / "events" / "orders-2.csv"
    path.write_text(orders("2,anna,milk,1,2024-03-02"))
    for command in (["feedback"], ["ingest", path]):
        assert run_cli(monkeypatch, *command, "--home", ws.home) == 2
    for command in (["feedback"], ["ingest", path]):
        assert run_cli(monkeypatch, *command, "--home", ws.home, "--at", AT.isoformat()) == 0


def test_a_file_of_the_future_waits_until_its_time(ws, here):
    land(ws, "orders-1.csv", orders(TOMORROW, f"{TOMORROW[:-1]}x"))
    land(ws, "orders-2.csv", orders(TOMORROW))
    land(ws, "orders-3.csv", orders(TOMORROW, GOOD))
    result = feedback(ws, AT)
    statuses = {file.file: (file.status, file.error_id) for file in result.outcomes}
    assert statuses == {
        "orders-1.csv": (FileStatus.TAKEN, ""),  # a row that is bad, whenever it is read
        "orders-2.csv": (FileStatus.WAITS, "ingest.future_rows"),
        "orders-3.csv": (FileStatus.TAKEN, ""),
    }
    assert (result.exit_code, landed(ws)) == (3, ["orders-2.csv"])
    assert feedback(ws, AT + timedelta(days=2)).accepted == 1
    assert landed(ws) == []


# Another config


def test_a_file_that_waits_for_another_config_is_a_problem_once_and_then_a_warning(ws, here):
    land(ws, "orders-1.csv", orders(GOOD).replace("customer", "client"))
    assert (feedback(ws, AT).exit_code, landed(ws)) == (3, ["orders-1.csv"])
    for later, age in ((timedelta(minutes=5), "5 minutes"), (3 * HOUR, "3 hours")):
        again = feedback(Workspace.open(ws.home), AT + later)
        assert (again.failed, again.exit_code, again.files) == (False, 0, 1)
        [warning] = again.warnings
        assert warning.startswith(f"orders-1.csv: waits for {age}: has no column 'customer'")
        assert warning in again.text()
    assert landed(ws) == ["orders-1.csv"]
    (ws.home / "nightjar.toml").write_text(CONFIG.replace('"customer"', '"buyer"'))
    changed = Workspace.open(ws.home)  # a config that does not fit either is reported at once
    assert [feedback(changed, AT + 4 * HOUR).failed for _ in range(2)] == [True, False]
    (ws.home / "nightjar.toml").write_text(CONFIG.replace("customer", "client"))
    corrected = feedback(Workspace.open(ws.home), AT + 5 * HOUR)
    assert (corrected.accepted, corrected.warnings, landed(ws)) == (1, (), [])


def test_a_file_of_the_future_is_a_problem_once(ws, here):
    land(ws, "orders-1.csv", orders(TOMORROW))
    assert [feedback(ws, AT + n * HOUR / 60).failed for n in range(2)] == [True, False]


# Moves


@pytest.fixture
def apart(monkeypatch):
    """Folders on other file systems: no file can be renamed from one to the other."""
    rename = os.rename

    def renamed(name, new, *, src_dir_fd=None, dst_dir_fd=None):
        if src_dir_fd != dst_dir_fd:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(name, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", renamed)


def kept(ws):
    """Content of the archive, and of the rejected files."""
    return [
        sorted(path.read_bytes() for path in (ws.home / name).iterdir())
        for name in ("archive", "rejected")
    ]


def check_landing_apart(ws):
    good, bad = orders(GOOD).encode(), b"\xff\xfe\x00\x01" * 30
    written = land(ws, "orders-1.csv", good).stat().st_mtime_ns
    land(ws, "orders-2.csv", bad)
    result = feedback(ws, AT)
    assert (result.accepted, result.exit_code, landed(ws)) == (1, 3, [])
    [archived], [reason, rejected] = kept(ws)
    assert (archived, rejected) == (good, bad)
    assert reason.startswith(b"orders-2.csv: ")
    [path] = (ws.home / "archive").iterdir()
    assert path.stat().st_mtime_ns == written


def test_a_landing_folder_on_another_file_system(ws, here, apart):
    check_landing_apart(ws)


@pytest.mark.root
def test_a_mounted_landing_folder(ws, here):
    folder = ws.home / "landing" / "events"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        check_landing_apart(ws)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_that_was_copied_but_not_removed_is_removed_by_the_next_pass(ws, here):
    """A pass was killed in between; its name is hidden, so it would stay there."""
    content = orders(GOOD)
    land(ws, "orders-1.csv", content)
    feedback(ws, AT)
    folder = land(ws, ".moved-orders-1.csv", content).parent
    land(ws, ".moved-2", orders("2,anna,milk,1,2024-03-01"))  # no copy of it is kept
    (folder / ".moved-3").symlink_to(next((ws.home / "archive").iterdir()))
    assert feedback(ws, AT).exit_code == 0
    assert landed(ws) == [".moved-2", ".moved-3"]
    assert len(list((ws.home / "archive").iterdir())) == 1


@pytest.mark.timeout(60)
def test_no_hidden_file_of_a_sender_is_read_without_a_copy_of_its_size(ws, here):
    """Only the bytes of a file that may have been copied are read: 4 TiB would take hours."""
    land(ws, "orders-1.csv", orders(GOOD))
    bad = land(ws, "orders-2.csv", b"\xff\xfe\x00\x01" * 30)
    folder = bad.parent
    feedback(ws, AT)
    (rejected,) = (ws.home / "rejected").glob("*.csv")
    os.truncate(rejected, 4 << 40)  # one that was too large to be read
    land(ws, ".moved-1", "")
    os.truncate(folder / ".moved-1", 4 << 40)
    assert feedback(ws, AT).exit_code == 0
    assert landed(ws) == [".moved-1"]


def test_a_hidden_file_that_differs_from_the_copy_of_its_size_is_read_by_one_pass_only(ws, here):
    """Otherwise each pass would read it again; it becomes a delivered file like any other."""
    land(ws, "orders-1.csv", orders(GOOD))
    feedback(ws, AT)
    other = land(ws, ".moved-orders-2.csv", orders(GOOD.replace("1,anna", "2,bert")))
    feedback(ws, AT)
    [name] = landed(ws) or [""]
    assert name.startswith("orders-2-") and name.endswith(".csv")
    assert not other.exists()
    assert feedback(ws, AT).accepted == 1
    assert landed(ws) == []


def test_what_replaces_a_file_while_it_is_copied_comes_back(ws, here, apart, monkeypatch):
    path = land(ws, "orders-1.csv", orders(GOOD))
    ws.create_vault()  # which sets the time of its file, too
    utime = os.utime

    def replaced(*args, **named):
        monkeypatch.setattr(os, "utime", utime)
        path.unlink()
        path.write_text(orders("2,anna,milk,1,2024-03-02"))
        utime(path, (2_000_000, 2_000_000))
        utime(*args, **named)

    monkeypatch.setattr(os, "utime", replaced)
    assert feedback(ws, AT).accepted == 1
    [back] = landed(ws)
    assert back.startswith("orders-1-")
    assert feedback(ws, AT).accepted == 1
    assert landed(ws) == []
    assert len(kept_names(ws)) == 2


def kept_names(ws):
    return sorted(path.name for path in (ws.home / "archive").iterdir())


def test_a_copy_that_fails_leaves_nothing_behind(ws, here, apart, monkeypatch):
    land(ws, "orders-1.csv", orders(GOOD))

    ws.create_vault()  # which sets the time of its file, too

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", full)
        result = feedback(ws, AT)
    assert (result.accepted, result.exit_code) == (1, 6)
    assert (landed(ws), kept_names(ws)) == (["orders-1.csv"], [])
    assert feedback(ws, AT).exit_code == 0
    assert landed(ws) == []


def test_a_file_that_is_too_large_to_be_read_is_not_copied(ws, here, apart):
    (ws.home / "nightjar.toml").write_text("[ingest.limits]\nmax_file_bytes = 4\n" + CONFIG)
    land(ws, "orders-1.csv", orders(GOOD))
    result = feedback(Workspace.open(ws.home), AT)
    [file] = result.outcomes
    assert (file.status, file.error_id) == (FileStatus.WAITS, "storage.cannot_move")
    assert landed(ws) == ["orders-1.csv"]
    assert list((ws.home / "rejected").glob("*.csv")) == []


def test_a_file_that_cannot_be_moved_stops_nothing(ws, here, monkeypatch):
    names = [f"orders-{n}.csv" for n in range(3)]
    for n, name in enumerate(names):
        land(ws, name, orders(f"{n},anna,bread,1,2024-03-01") if n else b"\xff\xfe\x00\x01")
    rename = os.rename

    def stuck(name, new, **folders):
        if name in names[:2]:
            raise OSError(errno.EIO, "Input/output error")
        rename(name, new, **folders)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stuck)
        result = feedback(ws, AT)
        again = feedback(ws, AT)
    assert [file.status for file in result.outcomes] == ["waits", "taken", "taken"]
    assert [file.status for file in again.outcomes] == ["waits", "seen before"]
    for of in (result, again):
        assert of.exit_code == 6
        assert [file.error_id for file in of.outcomes[:2]] == ["storage.cannot_move"] * 2
        assert len(of.problems) == 2
    assert (result.accepted, landed(ws)) == (2, names[:2])
    assert feedback(ws, AT).exit_code == 3
    assert landed(ws) == []


def test_files_that_cannot_be_moved_hold_up_no_others(tmp_path, here, monkeypatch):
    limited = "[ingest]\nfiles_per_pass = 1\n"
    ws = workspace(tmp_path / "limited", limited + CONFIG)
    land(ws, "orders-1.csv", orders(GOOD))
    rename = os.rename

    def stuck(name, new, **folders):
        if name == "orders-1.csv":
            raise OSError(errno.EIO, "Input/output error")
        rename(name, new, **folders)

    monkeypatch.setattr(os, "rename", stuck)
    feedback(ws, AT)
    land(ws, "orders-2.csv", orders("2,anna,milk,1,2024-03-02"))
    assert feedback(ws, AT).accepted == 1


def test_the_bytes_of_a_file_are_on_the_disk_before_it_is_archived(ws, here, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.rename

    def synced(handle):
        steps.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def renamed(name, new, **folders):
        steps.append(name)
        rename(name, new, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    path = land(ws, "orders-1.csv", orders(GOOD))
    feedback(ws, AT)
    assert steps.index(str(path)) < steps.index(path.name)
