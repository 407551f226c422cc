"""Each hostile file is between two good ones: it has its declared outcome, they are ingested.

The pass is the command's, in a process whose memory, and that of the reader it starts, is watched.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.workspace.workspace import Workspace
from tests.ingesting import AT
from tests.integration.hostile import BIG, DEVICE, HEADER, IDS, REFUSED, TAKEN, Hostile, row

ROOT = Path(__file__).resolve().parents[2]
MOST_MB = 500
COUNTS = ("accepted", "quarantined", "duplicates")
# Runs the command, and prints the peak memory of its largest process.
WATCHED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
sys.stdout.buffer.write(done.stdout)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(done.returncode)
"""


@dataclass
class Passed:
    """The outcome of a pass over hostile files."""

    ws: Workspace
    code: int
    printed: dict[str, Any]
    peak_mb: int
    kept: dict[str, bytes]

    def of(self, one: Hostile) -> dict[str, Any]:
        shown = one.shown or one.file
        [result] = [outcome for outcome in self.printed["outcomes"] if outcome["file"] == shown]
        return result


def run(home: Path, files: tuple[Hostile, ...]) -> Passed:
    ws = Workspace.init(home, "")
    landing = ws.home / "landing" / "events"
    for number, name in enumerate(("first.csv", "last.csv")):
        (landing / name).write_bytes(HEADER + row(f"{name}-1") + row(f"{name}-2", "bert"))
        os.utime(landing / name, (number * 2_000_000_000 // 2 + 1, number * 1_500_000_000 + 1))
    kept = {}
    for one in files:
        path = landing / one.file
        try:
            one.make(path)
        except PermissionError:
            assert one is DEVICE and os.geteuid() != 0
            continue
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            kept[one.file] = path.read_bytes()
    command = [sys.executable, "-m", "pipeline.cli", "feedback", "--home", str(ws.home), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *command, "--at", AT.isoformat()],
        cwd=ROOT, capture_output=True, check=False, timeout=250,
    )  # fmt: skip
    answer, _, peak = done.stdout.decode().strip().rpartition("\n")
    assert answer, done.stderr.decode()
    return Passed(Workspace.open(ws.home), done.returncode, json.loads(answer), int(peak), kept)


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    return run(tmp_path_factory.mktemp("refused") / "ws", REFUSED)


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    return run(tmp_path_factory.mktemp("taken") / "ws", TAKEN)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    return run(tmp_path_factory.mktemp("big") / "ws", BIG)


def check_the_rest(passed: Passed, code: int) -> None:
    """The good files are in the lake, the memory was bounded, nothing is left over."""
    assert passed.code == code
    events = passed.ws.lake.read("events")
    good = events.filter(pl.col(c.EVENT_ID).str.contains(r"^(first|last)\.csv-[12]$"))
    assert good.height == 4
    assert 50 < passed.peak_mb <= MOST_MB
    assert passed.printed["files"] == len(passed.printed["outcomes"])
    assert not (passed.ws.home / "scratch").exists()


def check_set_aside(passed: Passed, one: Hostile) -> None:
    """Check that the file is in rejected/, unchanged, with its reason, and none of it in the lake.

    A file that waits, or is not read, is at its old place.
    """
    result = passed.of(one)
    assert (result["status"], result["rows"]) == (one.status, 0)
    assert one.reported in result["sentence"]
    assert "\n" not in result["sentence"]
    if one.status in ("waits", "not read"):
        assert os.path.lexists(passed.ws.home / "landing" / "events" / one.file)
        return
    rejected = passed.ws.home / "rejected"
    reasons = {path.read_text(): path for path in rejected.glob("*.reason.txt")}
    reason = reasons[f"{result['sentence']}\n"]
    stem = reason.name.removesuffix(".reason.txt")
    assert stem == result["batch_id"]
    [file] = {*rejected.glob(f"{stem}*")} - {reason}
    assert one.file.endswith(file.name.removeprefix(stem))
    if one.file in passed.kept:
        assert file.read_bytes() == passed.kept[one.file]
    assert not os.path.lexists(passed.ws.home / "landing" / "events" / one.file)


@pytest.mark.parametrize(
    "one",
    [pytest.param(one, marks=pytest.mark.root if one is DEVICE else ()) for one in REFUSED],
    ids=lambda one: one.title,
)
def test_a_hostile_file_is_set_aside_with_its_reason(refused, one):
    check_set_aside(refused, one)


def test_an_entry_that_is_not_a_file_stays_in_its_place(refused):
    landing = refused.ws.home / "landing" / "events"
    for one in REFUSED:
        if one.status == "not read" and one is not DEVICE:
            check_set_aside(refused, one)
    assert (landing / "link.csv").is_symlink()
    assert not any(path.is_symlink() for path in (refused.ws.home / "rejected").iterdir())


@pytest.mark.parametrize("one", TAKEN, ids=lambda one: one.title)
def test_of_a_file_with_hostile_rows_all_are_accounted_for(taken, one):
    result = taken.of(one)
    assert result["status"] == "taken"
    assert {name: result[name] for name in COUNTS} == {name: getattr(one, name) for name in COUNTS}
    assert result["rows"] == sum(result[name] for name in COUNTS)
    assert ", ".join(result["reasons"]) == one.reported
    key = result["batch_id"]
    events, quarantine = taken.ws.lake.read("events"), taken.ws.lake.read("quarantine")
    assert events.filter(pl.col(c.BATCH_ID) == key).height == one.accepted
    assert quarantine.filter(pl.col(c.BATCH_ID) == key).height == one.quarantined
    [archived] = [p for p in (taken.ws.home / "archive").iterdir() if p.name.startswith(key)]
    if one.file in taken.kept:
        assert archived.read_bytes() == taken.kept[one.file]


@pytest.mark.slow
@pytest.mark.parametrize("one", BIG, ids=lambda one: one.title)
def test_a_big_hostile_file_is_set_aside_with_its_reason(big, one):
    check_set_aside(big, one)


def test_the_other_files_of_the_pass_are_taken_in(refused, taken):
    check_the_rest(refused, 3)
    check_the_rest(taken, 0)
    elsewhere = refused.ws.home.parent / "ws" / "elsewhere.csv"
    assert elsewhere.read_bytes().startswith(HEADER)
    assert (refused.ws.home / "hard.csv").read_bytes().startswith(HEADER)


@pytest.mark.slow
def test_the_other_files_of_a_pass_over_big_ones_are_taken_in(big):
    check_the_rest(big, 3)


def test_users_are_distinguished_by_the_content_of_their_ids(taken):
    users = taken.ws.lake.read("events").select(c.EVENT_ID, c.USER_ID)
    raw = taken.ws.vault.reveal(users[c.USER_ID].unique().to_list())
    named = {name: raw[user] for name, user in users.iter_rows()}
    assert (named["007"], named["7"], named["008"]) == ("007", "7", "007")
    assert named["z1"] == named["z2"] == "Zoë"
    assert named["u2"] == "😀"
    assert {named[name] for name in ("w1", "w2", "w3")} == {"a b"}
    assert (named["q1"], named["q2"], named["q3"]) == ("7", "007.0", "1e3")
    assert (named["n3"], named["n4"]) == ("1e22", "9007199254740993")
    assert tuple(named[f"sql{n}"] for n in range(3)) == IDS[:3]
    assert c.FALLBACK_USER in IDS and c.FALLBACK_USER not in users[c.USER_ID]
    claimed = taken.ws.lake.read("events").filter(pl.col(c.PUBLICATION_ID).is_not_null())
    assert sorted(claimed[c.PUBLICATION_ID]) == sorted(IDS[:3])


def test_no_part_of_a_name_is_run(taken):
    folders = [ROOT, Path("/"), Path.cwd(), *taken.ws.home.rglob("*/")]
    assert [folder for folder in folders if (folder / "pwned").exists()] == []


def test_the_docs_list_the_same():
    text = (ROOT / "docs" / "INGEST.md").read_text("utf-8")
    part = text.split("## Hostile files")[1].split("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in part.splitlines() if "|" in line]
    documented = {title: (outcome, code) for title, outcome, code in rows[2:]}
    files = (*REFUSED, *TAKEN, *BIG)
    assert list(documented) == [one.title for one in files]
    for one in files:
        outcome, code = documented[one.title]
        assert code == ("0" if one.status == "taken" else "3")
        assert outcome.startswith("ingested" if one.status == "taken" else f"{one.status}: ")
        for word in one.reported.split(", ") if one.status == "taken" else [one.reported]:
            assert word in outcome
