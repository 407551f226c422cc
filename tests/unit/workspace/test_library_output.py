"""Output of libraries past Python is hidden, and shown for a bug only; Python's own is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]
CLI = """
import os, sys
from unittest import mock
from pipeline.cli import app
from pipeline.errors import StorageError
import warnings

class PanicException(BaseException):
    pass

def failing(*_, **__):
    os.write(2, b"thread panicked\\n")
    print("log line", file=sys.stderr)
    {raised}

with mock.patch.object(app, "app", failing):
    app.main()
"""


def stderr_of(raised: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CLI.format(raised=raised)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("raised", "code", "last"),
    [
        ('raise StorageError("a.b", "it failed")', 6, ["nightjar: it failed"]),
        ("return 0", 0, []),
    ],
)
def test_an_expected_end_hides_what_a_library_printed(raised, code, last):
    assert stderr_of(raised) == (code, ["log line", *last])


@pytest.mark.parametrize(
    ("raised", "code", "begin"),
    [
        ('raise PermissionError(13, "x", "/w/f")', 6, "nightjar: cannot use /w/f: permission"),
        ('raise PanicException("No space left on device (os error 28)")', 6, "nightjar: cannot"),
        ('raise ValueError("x") from OSError(5, "x")', 6, "nightjar: cannot use the workspace"),
        ("raise MemoryError", 2, "nightjar: the memory"),
        ('raise SystemError("error return without exception set")', 2, "nightjar: the memory"),
        ('raise OSError(12, "Cannot allocate memory")', 2, "nightjar: the memory"),
    ],
)
def test_a_failure_of_the_machine_is_one_sentence(raised, code, begin):
    ended, lines = stderr_of(raised)
    assert (ended, len(lines)) == (code, 2)
    assert lines[1].startswith(begin)


@pytest.mark.parametrize("raised", ['raise KeyError("x")', 'raise PanicException("index")'])
def test_a_bug_shows_everything(raised):
    code, lines = stderr_of(raised)
    assert code == 1
    assert lines[:3] == ["log line", "thread panicked", "Traceback (most recent call last):"]


def test_output_is_restored():
    code = """
import os, sys
from pipeline.workspace.library_output import HiddenOutput
before = sys.stderr
output = HiddenOutput()
os.write(2, b"hidden ")
print("python", file=sys.stderr)
output.restore()
assert sys.stderr is before
os.write(2, b"shown")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "python\nshown"


NIGHTJAR = f"{sys.executable} -m pipeline.cli feedback --json --home"


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_pass_whose_messages_cannot_be_written_is_done(tmp_path, closed):
    home = Workspace.init(tmp_path / "ws").home
    done = subprocess.run(
        ["/bin/sh", "-c", f"{NIGHTJAR} {home} {closed}"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] == 0


def test_closed_descriptors_are_not_given_to_files(tmp_path):
    code = """
from pipeline.workspace.library_output import open_closed_descriptors
open_closed_descriptors()
print(open({path!r}, "w").fileno() > 2, file=open({path!r}, "w"))
"""
    path = str(tmp_path / "answer")
    words = [sys.executable, "-c", code.format(path=path)]
    subprocess.run(["/bin/sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words], cwd=ROOT, check=True)
    assert Path(path).read_text() == "True\n"
