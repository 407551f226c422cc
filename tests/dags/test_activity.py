"""Lines about the activity in progress, in a file and at a terminal, and after an interrupt."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from dags.local import demo, runner
from dags.local.activity import ActivityDisplay
from pipeline.cli.app import GROUPS
from pipeline.steps import demo as steps
from tests.dags.conftest import ROOT


def _until(stream: io.StringIO, text: str) -> list[str]:
    end = time.monotonic() + 20
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.01)
    return stream.getvalue().splitlines()


def test_an_activity_is_shown_when_it_begins_while_it_lasts_and_when_it_ends() -> None:
    stream = io.StringIO()
    display = ActivityDisplay(stream, silence=0.02)
    display.usual = {"train als": 40}

    display.begin("train als")
    display.note("iteration 3 of 8")
    _until(stream, "iteration 3 of 8")
    display.end("done")
    first, *others, last = stream.getvalue().splitlines()
    time.sleep(0.1)

    assert first.split() == ["train", "als", "begins,", "usually", "40", "s"]
    assert all("usually 40 s" in line for line in others)
    assert last.split()[:3] == ["train", "als", "done"]
    assert stream.getvalue().splitlines()[-1] == last  # an activity that has ended is not shown


def test_a_name_is_not_repeated_as_progress_and_an_unknown_time_is_not_shown() -> None:
    stream = io.StringIO()
    display = ActivityDisplay(stream, silence=0.02)

    display.begin("evaluate")
    display.note("evaluate")
    line = _until(stream, "0 s")[1]
    display.note("evaluate: als")
    last = _until(stream, "als")[-1]

    assert line.split() == ["evaluate", "0", "s"]
    assert last.split() == ["evaluate", "0", "s", "als"]


def test_at_a_terminal_an_activity_is_one_line_that_fits() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", buffering=1) as stream:
        display = ActivityDisplay(stream, silence=0.02)
        display.begin("train als")
        display.note("a long text " * 20)
        shown = ""
        while shown.count("long") < 4:
            shown += os.read(leader, 1 << 16).decode()
        display.end("done")
        while "\n" not in shown:
            shown += os.read(leader, 1 << 16).decode()
    os.close(leader)
    lines = shown.split("\n")

    assert [line for line in lines if line] == [lines[0]]
    *replaced, last = lines[0].rstrip("\r").split("\r\x1b[K")[1:]
    assert "long" in replaced[-1]
    assert all(len(text) < 80 for text in replaced)
    assert last.split()[:3] == ["train", "als", "done"]


def test_progress_is_the_text_that_a_task_logs(tmp_path: Path) -> None:
    noted: list[str] = []
    logs = runner._Logs(tmp_path / "runner.log", noted.append)

    def log(logger: str, event: str) -> None:
        logs.write(json.dumps({"event": event, "logger": logger}, separators=(",", ":")).encode())

    log("airflow.task", "outside of a task")
    logs.begin(tmp_path / "attempt=1.log")
    log("nightjar", "task_started")
    log("airflow.task", "reading a.csv\nand more")

    logs.end()
    logs._own.close()

    assert noted == ["reading a.csv"]


def test_the_usual_times_are_those_of_activities_that_exist() -> None:
    # A task has the name of its command, but for `foldin`.
    names = {name.replace("-", "_") for group in GROUPS.values() for name in group}
    names |= {"foldin", "starting Airflow", "landing files", "summary"}
    recipes = [*tomllib.loads(steps.TEMPLATE)["recipes"], "lightfm"]
    names |= {f"train {recipe}" for recipe in recipes}

    assert {*demo._FIRST_NIGHT, *demo._LATER_NIGHT} <= names
    assert len(steps.NIGHTS) == demo.NIGHTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_prints_how_to_continue(number: signal.Signals) -> None:
    program = (
        "import os, sys, time\n"
        "from dags.local import runner\n"
        "from dags.local.activity import ActivityDisplay\n"
        "display = ActivityDisplay(os.fdopen(os.dup(2), 'w'))\n"
        "with runner._redirected(os.open(os.devnull, os.O_WRONLY)):\n"
        "    runner.stop_at_signals(display)\n"
        "    display.begin('features')\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().split()[0] == "features"
        process.send_signal(number)
        rest = process.stderr.read()

    assert process.returncode == 128 + number
    assert "`make run` continues" in rest
