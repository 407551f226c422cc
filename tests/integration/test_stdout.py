"""A stdout that cannot be written: a sentence and exit code 6 for every command, no traceback."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.base import format_instant
from pipeline.cli import main
from tests.worlds import NIGHTS, copy_of

RUN, LAST = "RUN", format_instant(NIGHTS[1])
STEPS = ("validate", "features", "evaluate", "gate", "refit", "cold-check", "recommend")
COMMANDS = (
    *("--help", "doctor", "config show --origin", "init", "lists --all", "lists u1 --json"),
    *("history", "history --json", "history --quality", "policy", "drift", "attribution", "gc"),
    *(f"snapshot --as-of {LAST}", f"nightly --as-of {LAST}", f"feedback --at {LAST}"),
    *(f"fold-in --at {LAST}", "repair checkpoints", "repair batch", "ingest more.csv"),
    *("repair sums --by a --reason b", "repair ledger --by a --reason b", "compare 1 2"),
    *(f"train --run {RUN} --recipe als", *(f"{step} --run {RUN}" for step in STEPS)),
    *(f"register --run {RUN}", f"publish --run {RUN}"),
)


@pytest.fixture(scope="module")
def home(two_nights, tmp_path_factory):
    home = copy_of(two_nights[0], tmp_path_factory.mktemp("stdout") / "home")
    row = "more,u1,i1,1,2024-03-01T08:00:00Z"
    (home / "more.csv").write_text(f"event_id,user_id,item_id,value,timestamp\n{row}\n")
    return home


def words(command: str, home: Path, run_id: str) -> list[str]:
    if command == "--help":
        return [command]
    return [*command.replace(RUN, run_id).split(), "--home", str(home)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_stdout_is_one_sentence(home, two_nights, command):
    arguments = words(command, home, two_nights[2].run_id)
    if command == "ingest more.csv":
        arguments[1] = str(home / "more.csv")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTJAR")}
    errors = io.StringIO()
    with (
        Path("/dev/full").open("w") as full,
        patch.dict(os.environ, clean, clear=True),
        patch.object(sys, "argv", ["nightjar", *arguments]),
        patch.object(sys, "stdout", full),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    *_, last = errors.getvalue().splitlines()
    assert ended.value.code == 6, errors.getvalue()
    assert last.startswith("nightjar: cannot write the result to stdout: no space left"), last


@pytest.mark.parametrize(("place", "code"), [("> /dev/full", 6), ("| true", 0), (">&-", 0)])
@pytest.mark.parametrize("words", ["init", "nightly --help", "--version"])
def test_a_process_ends_with_one_sentence_at_most(tmp_path, words, place, code):
    arguments = f"init {tmp_path}/ws" if words == "init" else words
    command = f"set -o pipefail; {sys.executable} -m pipeline.cli {arguments} {place}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == (code == 6), done.stderr
