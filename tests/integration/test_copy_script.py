"""The script of `docs/RECOVERY.md` copies a workspace in one instant, while commands run.

What can go wrong: the copy begins while a command writes; a command writes while the copy is made.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, state, workspace
from tests.raising import raises

PAGE = Path(__file__).parents[2] / "docs" / "RECOVERY.md"


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    ws = workspace(tmp_path / "a workspace")
    land(ws, "orders-0.csv", orders("a0,anna,bread,1,2024-03-01"))
    feedback(ws, AT)
    return ws


def block() -> str:
    """Return the script of the page."""
    script = re.search(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert script is not None
    return script[1]


def copying(ws: Workspace, copy: Path, path: str) -> "subprocess.Popen[bytes]":
    """Start the script with another search path."""
    return subprocess.Popen(
        ["sh", "-eu", "-c", block()],
        env={**os.environ, "W": str(ws.home), "B": str(copy), "PATH": path},
    )


@pytest.mark.parametrize("lock", ["ingest", "publish", "night", "register", "gc"])
def test_the_copy_waits_for_a_command(ws, tmp_path, lock):
    copy = tmp_path / "copy"
    with ws.lake.lock(lock):
        script = copying(ws, copy, os.environ["PATH"])
        time.sleep(0.3)
        assert not copy.exists()
    assert script.wait(60) == 0
    assert state(Workspace.open(copy)) == state(ws)


def test_the_paths_may_be_relative(ws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Workspace.open(ws.home)
    script = subprocess.run(
        ["sh", "-eu", "-c", block()],
        env={**os.environ, "W": ws.home.name, "B": "copy"},
        check=False,
    )
    assert script.returncode == 0
    assert state(Workspace.open(tmp_path / "copy")) == state(relative)
    assert not (ws.home / "copy").exists()


def test_a_command_does_not_write_while_the_copy_is_made(ws, tmp_path):
    copy, tools = tmp_path / "copy", tmp_path / "tools"
    tools.mkdir()
    begun, go = tmp_path / "begun", tmp_path / "go"
    slow = tools / "cp"
    slow.write_text(
        f'#!/bin/sh\ntouch "{begun}"\nwhile [ ! -e "{go}" ]; do sleep 0.05; done\n'
        'exec /bin/cp "$@"\n'
    )
    slow.chmod(0o755)
    script = copying(ws, copy, f"{tools}:{os.environ['PATH']}")
    while not begun.exists():
        time.sleep(0.05)
    land(ws, "orders-1.csv", orders("a1,anna,milk,1,2024-03-01"))
    before = state(ws)
    with raises("lock.held"):
        feedback(ws, AT)
    go.touch()
    assert script.wait(60) == 0
    assert state(Workspace.open(copy)) == before
    assert feedback(ws, AT).accepted == 1
