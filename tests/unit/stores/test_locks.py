"""A wait for a lock is reported and ends; a lock names its holder and needs no disk space."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from threading import Timer

import pytest
import structlog

from pipeline.stores import locks
from pipeline.stores.ledger import Ledger
from pipeline.stores.locks import locked
from pipeline.workspace.workspace import Workspace
from tests.raising import raises


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.lock"


def test_a_held_lock_names_its_holder_at_once(path):
    with locked(path, "the lock x"):
        start = time.monotonic()
        with raises("lock.held") as caught, locked(path, "the lock x"):
            pass
        assert time.monotonic() - start < 1
    assert f"is held by process {os.getpid()};" in caught.value.sentence


def test_a_wait_names_the_holder_and_ends(path, monkeypatch):
    monkeypatch.setattr(locks, "_LOGGED_AFTER", 0.1)
    with locked(path, "the lock x"), structlog.testing.capture_logs() as logs:
        structlog.configure()
        with raises("lock.held") as caught, locked(path, "the lock x", wait_seconds=0.3):
            pass
    structlog.reset_defaults()
    [line] = logs
    assert (line["event"], line["holder"]) == ("waiting_for_lock", str(os.getpid()))
    assert caught.value.exit_code == 6


def test_a_lock_that_becomes_free_is_taken(path):
    held = locked(path, "the lock x")
    held.__enter__()
    Timer(0.2, lambda: held.__exit__(None, None, None)).start()
    with locked(path, "the lock x", wait_seconds=30):
        assert path.read_text() == f"{os.getpid()}\n"


def test_the_setting_bounds_every_wait(tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "ws", "[locks]\nwait_seconds = 1\n")
    for name, lock in (("publish", ws.lake.lock), ("pins", ws.lake.lock)):
        with ws.lake.lock(name), raises("lock.held"), lock(name, wait=True):
            pass
    with locked(ws.home / "ledger.lock", "the ledger"), raises("lock.held"):
        ws.ledger.append("k", "t", {})
    assert Ledger(ws.home / "ledger.jsonl").entries() == ()


def test_a_full_disk_is_no_obstacle(path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    full = lambda path, mode, buffering, opener: Full(path, "a+", opener=opener)  # noqa: E731
    monkeypatch.setattr(locks, "open", full, raising=False)
    with locked(path, "the lock x"):
        assert path.exists()


def test_members_of_a_group_cannot_hold_a_lock(tmp_path):
    os.umask(0o027)
    path = tmp_path / "locks" / "ingest.lock"
    for _ in range(2):
        with locked(path, "the lock ingest"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
