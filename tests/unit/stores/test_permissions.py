"""Files of another user: a store names the file, and a command ends with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Runs
from pipeline.workspace.workspace import Workspace
from tests.raising import raises

ROOT = Path(__file__).resolve().parents[3]
OTHER_UID = 54321


def as_other_user(read: str, home: Path) -> str:
    """Return the error id of an expression that another user evaluates, "" for none."""
    code = f"""
import os, sys
from pathlib import Path
from pipeline.errors import NightjarError
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Runs
home = Path(sys.argv[1])
os.setuid({OTHER_UID})
try:
    {read}
except NightjarError as error:
    print(error.id, end="")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def home(tmp_path):
    with Runs(tmp_path / "runs").open("r").draft("step") as draft:
        draft.bytes("a", b"1")
    Ledger(tmp_path / "ledger.jsonl").append("k", "t", {})
    for folder in (tmp_path, *tmp_path.parents[:2], tmp_path / "runs"):
        folder.chmod(0o755)
    return tmp_path


@pytest.mark.root
@pytest.mark.parametrize(
    ("closed", "read"),
    [
        ("ledger.jsonl", 'Ledger(home / "ledger.jsonl").entries()'),
        ("runs", 'Runs(home / "runs").starting_with("")'),
        ("runs/r", 'Runs(home / "runs").open("r").committed("step")'),
        ("runs/r", 'Runs(home / "runs").open("r").manifest("step")'),
        ("runs/r/step/manifest.json", 'Runs(home / "runs").open("r").manifest("step")'),
        ("runs/r/step/a", 'Runs(home / "runs").open("r").bytes("step", "a")'),
    ],
)
def test_what_another_user_may_not_read_is_named(home, closed, read):
    (home / closed).chmod(0)
    assert as_other_user(read, home) == "storage.cannot_read"


@pytest.mark.parametrize(
    ("place", "read"),
    [
        ("ledger.jsonl", lambda home: Ledger(home / "ledger.jsonl").entries()),
        ("runs/r/step/a", lambda home: Runs(home / "runs").open("r").bytes("step", "a")),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_named(
    home: Path, place: str, read: Callable[[Path], object]
) -> None:
    (home / place).unlink()
    (home / place).mkdir()
    with raises("storage.cannot_read"):
        read(home)


@pytest.mark.root
def test_a_command_ends_with_one_sentence(tmp_path):
    # Root without the right to ignore permissions: another user may not even start this Python.
    limited = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if subprocess.run([*limited, "true"], capture_output=True, check=False).returncode:
        pytest.skip("capabilities cannot be dropped here")
    ws = Workspace.init(tmp_path / "ws")
    ws.ledger.append("k", "t", {})
    for place in (ws.home / "ledger.jsonl", ws.home / "runs"):
        os.chown(place, OTHER_UID, OTHER_UID)
        place.chmod(0o700)
    for command in (["history"], ["nightly", "--as-of", "2024-01-01T00:00:00Z"], ["feedback"]):
        done = subprocess.run(
            [*limited, sys.executable, "-m", "pipeline.cli", *command, "--home", str(ws.home)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        sentences = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert done.returncode == 6, done.stderr
        assert [line[:10] for line in sentences] == ["nightjar: "]
        assert "permission denied; correct the permissions" in sentences[0]
