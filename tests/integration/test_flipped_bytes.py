"""A flipped byte of a file that a command reads is named, with exit code 6, before lists go live.

For the config and the key the exit code is 2. Readers of Parquet and JSON return most flipped bytes
as other values, without any error.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.serving.publish import live, of_publication
from pipeline.stores.batches import Batches
from pipeline.stores.lake import Lake
from pipeline.workspace.workspace import Workspace
from tests.commands import outcome
from tests.worlds import NIGHTS, START

AT = format_instant(NIGHTS[2])
FEEDBACK = ("feedback", "--at", AT)
FOLD_IN = ("fold-in", "--at", AT)
NIGHTLY = ("nightly", "--as-of", AT)
ALL = ("lists", "--all", "--json")
READING = (ALL, ("history", "--json"), ("history", "--quality", "--json"), ("policy", "--at", AT))


@pytest.fixture
def home(third_landed, tmp_path):
    return Path(shutil.copytree(third_landed, tmp_path / "home"))


@contextmanager
def flipped(path: Path, place: int | None = None) -> Iterator[None]:
    """Flip a bit of a file, by default of its middle byte."""
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(damaged)
    yield
    path.write_bytes(data)


def land(home: Path, *users: str) -> Path:
    """Land one new event for each user, of the last day."""
    rows = [f"new-{user},{user},i1,1,2024-04-08T08:00:00Z" for user in users]
    path = home / "landing" / "events" / "new.csv"
    path.write_text("\n".join(["event_id,user_id,item_id,value,timestamp", *rows, ""]))
    os.utime(path, (START.timestamp(),) * 2)
    return path


def publications(home: Path) -> list[tuple[object, ...]]:
    return Lake(home / "lake").read("publications").sort(c.GENERATION).rows()


def files_of_live_base(home: Path) -> list[Path]:
    base = live(Lake(home / "lake").read("publications"))
    assert base is not None
    return sorted(
        (home / f"lake/recommendations/publication_id={base[c.PUBLICATION_ID]}").iterdir()
    )


# --- the lake ------------------------------------------------------------------------------------


def test_no_list_is_made_from_events_that_were_altered(home):
    """Fold-in reads all past events of a user, not only those of the last commit."""
    [path] = (home / "lake/events/event_day=2024-01-20").glob("*.parquet")
    before = publications(home)
    land(home, "u1", "u2", "u3")
    with flipped(path):
        assert outcome(home, *FEEDBACK)[:2] == (6, "lake.file_altered")
        assert outcome(home, *NIGHTLY)[:2] == (6, "lake.file_altered")
        assert publications(home) == before
    assert outcome(home, *FEEDBACK).code == 0
    assert len(publications(home)) == len(before) + 1


def test_live_lists_that_were_altered_are_not_shown(home):
    """Their file is not of the last commit."""
    [path] = files_of_live_base(home)
    size = path.stat().st_size
    for place in range(0, size, size // 4):
        with flipped(path, place):
            for command in (ALL, ("lists", "u1")):
                assert outcome(home, *command)[:2] == (6, "lake.file_altered")


def test_live_lists_are_those_that_were_published(home):
    """Files whose checksums are right may still be those of another publication."""
    lake = Lake(home / "lake")
    base = live(lake.read("publications"))[c.PUBLICATION_ID]
    lists = lake.read("recommendations", partitions=of_publication(base))
    lake.replace_where("recommendations", lists.head(-1), base)
    for command in (ALL, ("lists", "u1")):
        assert outcome(home, *command)[:2] == (6, "lists.altered")


def test_a_damaged_checksum_in_an_older_line_stops_a_pass_and_a_night(home):
    """It used to stop nights only, after further passes had gone on."""
    path = home / "lake/_sums/events.jsonl"
    first = path.read_bytes().index(b"\n")
    land(home, "u1")
    for place in (5, first // 2, first - 10, first):
        with flipped(path, place):
            for command in (FOLD_IN, NIGHTLY):
                code, error, _ = outcome(home, *command)
                assert (code, error.partition(".")[0]) == (6, "lake")


def test_a_pointer_to_a_checkpoint_that_is_missing_is_ignored(home):
    (home / "lake/events/_delta_log/_last_checkpoint").write_text('{"version":77,"size":3}')
    land(home, "u1")
    assert outcome(home, *FEEDBACK).code == 0


def test_a_spool_that_was_altered_is_not_written_to_the_lake(home, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    land(home, "u1")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Batches, "_carry_out", killed)
        outcome(home, *FEEDBACK)
    [path] = (home / "lake/_spool").rglob("*.parquet")
    for place in range(0, path.stat().st_size, 499):
        with flipped(path, place):
            assert outcome(home, *FEEDBACK)[:2] == (6, "ingest.spool_damaged")
    assert outcome(home, *FEEDBACK).code == 0


@pytest.mark.parametrize("lost", ["events", "quarantine"])
def test_a_spool_that_lacks_a_file_is_not_done(home, monkeypatch, lost):
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    path = land(home, "u1")
    path.write_text(path.read_text() + "odd,u1,i1,1,never\n")
    os.utime(path, (START.timestamp(),) * 2)
    before = Workspace.open(home).lake.read("events").height
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Batches, "_carry_out", killed)
        outcome(home, *FEEDBACK)
    [spooled] = (home / "lake/_spool").rglob(f"{lost}.*.parquet")
    spooled.unlink()
    assert outcome(home, *FEEDBACK)[:2] == (6, "ingest.spool_damaged")
    shutil.rmtree(home / "lake/_spool")
    assert outcome(home, *FEEDBACK).code == 0
    assert Workspace.open(home).lake.read("events").height == before + 1
    assert not path.exists()


# --- other files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["snapshot", "refit"])
def test_a_damaged_key_of_a_manifest_is_one_sentence(home, step):
    run = max((home / "runs").iterdir())
    path = run / step / "manifest.json"
    with flipped(path, path.read_bytes().index(b'"sha256"') + 3):
        for command in (FOLD_IN, NIGHTLY)[: 2 if step == "snapshot" else 1]:
            assert outcome(home, *command)[:2] == (6, "run.manifest_damaged")


def test_a_damaged_key_or_config_is_an_error_of_the_config(home):
    with flipped(home / "secrets/vault.key"):
        # The key is random: with another byte it may be no Base64 any more.
        wrong = [(2, "vault.wrong_key"), (2, "vault.key_encoding")]
        assert outcome(home, *ALL)[:2] in wrong
        land(home, "u1")
        assert outcome(home, *FEEDBACK)[:2] in wrong
    config = home / "nightjar.toml"
    with flipped(config, config.read_bytes().index(b"[split]")):
        code, error, _ = outcome(home, *FEEDBACK)
        assert (code, error.partition(".")[0]) == (2, "config")


def _read_files(home: Path) -> list[Path]:
    """Return the files of the stores; of the many days of events every tenth."""
    days = sorted(home.glob("lake/events/event_day=*"))
    kept = [*days[::10], days[-1]]
    return [
        path
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and path.relative_to(home).parts[0] in ("lake", "runs", "ledger.jsonl", "vault.db")
        and path.suffix not in (".lock", ".html")
        and path.name != "page.json"
        and ".lock" not in path.name
        and (not path.parent.name.startswith("event_day=") or path.parent in kept)
    ]


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_named_or_changes_nothing_that_is_read(home):
    expected = {command: outcome(home, *command) for command in READING}
    assert all(done.code == 0 for done in expected.values())
    named: set[str] = set()

    for path in _read_files(home):
        with flipped(path):
            for command in READING:
                done = outcome(home, *command)
                assert done == expected[command] or (done.code in (2, 6) and done.id), (path, done)
                named.add(done.id)
    assert len(named) > 6, named


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_named_or_changes_nothing_that_goes_live(home, tmp_path):
    land(home, *(f"u{n}" for n in range(40)))
    assert outcome(home, "ingest", str(home / "landing/events/new.csv"), "--at", AT).code == 0
    before = publications(home)
    copy = Path(shutil.copytree(home, tmp_path / "calm"))
    assert outcome(copy, *FOLD_IN).code == 0
    after = publications(copy)
    assert len(after) == len(before) + 1
    went_live, trial = 0, None
    for path in _read_files(home)[::2]:
        # Only lists that went live change the workspace.
        trial = trial or Path(shutil.copytree(home, tmp_path / f"trial-{went_live}"))
        with flipped(trial / path.relative_to(home)):
            done = outcome(trial, *FOLD_IN)
        assert done.code == 0 or (done.code in (2, 6) and done.id), (path, done)
        # The file is whole again: its rows can be read.
        assert publications(trial) == (after if done.code == 0 else before), path
        if done.code == 0:
            went_live, trial = went_live + 1, None
    assert went_live > 10
