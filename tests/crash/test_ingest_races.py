"""Another process acts while an ingest runs: another ingest, or the sender of the files."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import columns as c
from pipeline.failpoints import VARIABLE
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest import ingest as step
from pipeline.steps.ingest import landing
from pipeline.steps.ingest.discovery import landed
from pipeline.steps.ingest.landing import mark
from pipeline.stores.batches import Batches
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, state, workspace
from tests.raising import raises
from tests.records import append_decision

ROOT = Path(__file__).resolve().parents[2]
ROW = "1,anna,bread,1,2024-03-01 10:00:00"
OTHER = "2,bert,milk,1,2024-03-02 10:00:00"


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return workspace(tmp_path / "ws")


def names(ws: Workspace, folder: str) -> list[str]:
    return sorted(p.name for p in (ws.home / folder).rglob("*") if not p.is_dir())


def statuses(result) -> dict[str, str]:
    return {one.file: one.status.value for one in result.outcomes}


# --- another ingest ------------------------------------------------------------------------------


class Paused:
    """A pass in its own process that stops at a failpoint until it is resumed."""

    def __init__(self, home: Path, point: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.test_ingest_races", str(home)],
            cwd=ROOT,
            env={**os.environ, VARIABLE: f"{point}:sleep"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Paused":
        assert self._process.stderr is not None
        lines = []
        while not (line := self._process.stderr.readline()).startswith("failpoint "):
            assert line, lines
            lines.append(line)
        self._process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wake(self) -> tuple[int, str]:
        """Resume the process until its end; return its exit code and its error output."""
        self._process.send_signal(signal.SIGCONT)
        words = self._process.communicate(timeout=60)[1]
        return self._process.returncode, words


def everything(ws: Workspace) -> tuple[object, ...]:
    ws = Workspace.open(ws.home)
    versions = {t: ws.lake.version(t) for t in ("events", "quarantine", "batches")}
    files = {folder: names(ws, folder) for folder in ("landing/events", "archive", "rejected")}
    return state(ws), versions, files


@pytest.mark.slow
def test_a_second_ingest_is_refused_while_the_first_one_sleeps(tmp_path):
    ws = workspace(tmp_path / "ws")
    land(ws, "orders-1.csv", orders(ROW))
    with Paused(ws.home, "before_commit") as first:
        second = subprocess.run(
            [sys.executable, "-m", "tests.crash.test_ingest_races", str(ws.home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 6
        assert "the lock ingest is held by process" in second.stderr
        code, words = first.wake()
    assert code == 0, words
    assert ws.lake.read("events").height == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["listed", "claimed", "parsed", "quarantine_written", "committed", "archived"]
)
def test_a_paused_attempt_that_lost_its_lock_writes_nothing(tmp_path, point):
    """A paused process keeps the lock: the test deletes it, as a broken file system would."""
    ws = workspace(tmp_path / "ws", f"{CONFIG}\n[ingest]\nrows_per_commit = 1\n")
    land(ws, "orders-1.csv", orders(ROW, "3,,salt,1,2024-03-02", "4,anna,salt,x,2024-03-02"))
    land(ws, "orders-2.csv", orders(OTHER))
    with Paused(ws.home, point) as first:
        (ws.home / "lake" / ".locks" / "ingest.lock").unlink()
        feedback(Workspace.open(ws.home), AT)
        expected = everything(ws)
        assert len(expected[0]["events"]) == 2
        assert expected[2]["landing/events"] == []
        code, words = first.wake()
    assert everything(ws) == expected
    overtaken = "another ingest" in words or "another process has written" in words
    gone = "was removed" in words or "removed while it was read" in words
    lost = "which this ingest wrote" in words
    gone_too = "scratch: no such file" in words
    assert code in (0, 6), words
    assert overtaken or gone or lost or gone_too, words


@pytest.mark.parametrize("method", ["commit", "_spool_frames", "_note", "_carry_out", "_unspool"])
def test_an_attempt_that_was_overtaken_with_its_rows_in_hand_writes_nothing(
    ws, monkeypatch, method
):
    land(ws, "orders-1.csv", orders(ROW, "4,anna,salt,x,2024-03-02"))
    original = getattr(Batches, method)
    others: list[tuple[object, ...]] = []

    def overtaken(self, *args, **kwargs):
        if not others:
            others.append(())  # the other one is not overtaken in its turn
            (ws.home / "lake" / ".locks" / "ingest.lock").unlink()
            feedback(Workspace.open(ws.home), AT)
            others.append(everything(ws))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Batches, method, overtaken)
    with raises("lake.conflict"):
        feedback(ws, AT)
    assert everything(ws) == others[1]
    assert len(others[1][0]["events"]) == 1


@pytest.mark.parametrize("method", ["_note", "_carry_out", "_unspool"])
def test_rows_of_a_running_ingest_are_not_removed(ws, monkeypatch, method):
    """Another process that lost the lock spools under the same number."""
    land(ws, "orders-1.csv", orders(ROW))
    original = getattr(Batches, method)
    refused: list[str] = []

    def at_work(self, *args):
        if not refused:
            with raises("ingest.overtaken") as late:
                Batches(ws.lake)._spool_frames(1, {})
            refused.append(str(late.value))
        return original(self, *args)

    monkeypatch.setattr(Batches, method, at_work)
    assert feedback(ws, AT).accepted == 1
    assert len(refused) == 1
    assert ws.lake.read("events").height == 1


# --- the sender of the files ---------------------------------------------------------------------


def test_a_file_that_is_taken_away_after_it_was_listed_harms_no_other(ws, monkeypatch):
    gone = land(ws, "orders-1.csv", orders(ROW))
    land(ws, "orders-2.csv", orders(OTHER))

    def listed(*args):
        outcome = landed(*args)
        gone.unlink()
        return outcome

    monkeypatch.setattr(step, "landed", listed)
    result = feedback(ws, AT)
    assert statuses(result) == {"orders-1.csv": "waits", "orders-2.csv": "taken"}
    assert result.problems == ("orders-1.csv: waits: was removed",)
    assert names(ws, "rejected") == []


def test_a_file_that_vanishes_between_two_looks_is_not_listed(ws, monkeypatch):
    land(ws, "orders-1.csv", orders(ROW))
    gone = land(ws, "orders-2.csv", orders(OTHER))
    scan = os.scandir

    @contextmanager
    def vanishing(handle):
        with scan(handle) as entries:
            listed = list(entries)
            gone.unlink(missing_ok=True)
            yield listed

    monkeypatch.setattr(os, "scandir", vanishing)
    assert statuses(feedback(ws, AT)) == {"orders-1.csv": "taken"}


def test_a_file_that_is_replaced_after_it_was_listed_is_read_as_it_is(ws, monkeypatch):
    path = land(ws, "orders-1.csv", orders(ROW))

    def listed(*args):
        result = landed(*args)
        _replace(path, orders(OTHER))
        return result

    monkeypatch.setattr(step, "landed", listed)
    assert feedback(ws, AT).accepted == 1
    assert ws.lake.read("events")[c.EVENT_ID].to_list() == ["2"]


@pytest.mark.parametrize("first", [ROW, "1,anna,bread,two,2024-03-01"])
def test_a_file_that_takes_the_place_of_one_that_was_read_is_not_lost(ws, monkeypatch, first):
    path = land(ws, "orders.csv", orders(first))

    def replaced(self, function, **request):
        parsed = parsed_here(self, function, **request)
        _replace(path, orders(OTHER))
        return parsed

    monkeypatch.setattr(Child, "call", replaced)
    feedback(ws, AT)
    monkeypatch.setattr(Child, "call", parsed_here)
    assert names(ws, "landing/events") == ["orders.csv"]
    assert feedback(ws, AT).accepted == 1
    assert "2" in ws.lake.read("events")[c.EVENT_ID].to_list()
    assert names(ws, "landing/events") == []


def test_a_file_replaced_in_the_blink_before_it_is_moved_comes_back(ws, monkeypatch):
    path = land(ws, "orders.csv", orders(ROW))
    move = landing._move

    def blink(source, name, target, new):
        if name == path.name:
            _replace(path, orders(OTHER))
        move(source, name, target, new)

    monkeypatch.setattr(landing, "_move", blink)
    feedback(ws, AT)
    monkeypatch.setattr(landing, "_move", move)
    [back] = names(ws, "landing/events")
    assert back.startswith("orders-") and back.endswith(".csv")
    assert feedback(ws, AT).accepted == 1
    assert sorted(ws.lake.read("events")[c.EVENT_ID]) == ["1", "2"]


def test_a_bad_file_that_was_replaced_is_not_set_aside(ws, monkeypatch):
    path = land(ws, "orders.csv", "")

    def replaced(self, function, **request):
        try:
            return parsed_here(self, function, **request)
        finally:
            _replace(path, orders(ROW))

    monkeypatch.setattr(Child, "call", replaced)
    result = feedback(ws, AT)
    assert statuses(result) == {"orders.csv": "waits"}
    assert "replaced or removed" in result.problems[0]
    monkeypatch.setattr(Child, "call", parsed_here)
    assert feedback(ws, AT).accepted == 1


def test_a_file_that_still_grows_is_taken_when_it_is_whole(ws):
    path = land(ws, "orders.csv", orders(ROW))
    for second in range(3):
        with path.open("a") as stream:
            stream.write(f"{second + 5},anna,salt,1,2024-03-02,x\n")
        written = (AT + timedelta(seconds=second)).timestamp()
        os.utime(path, (written, written))
        early = feedback(ws, AT + timedelta(seconds=second + 1))
        assert (early.files, early.younger) == (0, 1)
        assert "no file was ingested\ntoo young for this pass, and left: 1 file (" in early.text()
    assert feedback(ws, AT + timedelta(seconds=4)).accepted == 4


# --- the same again ------------------------------------------------------------------------------


def test_the_same_under_another_name_recompressed_or_reordered_adds_nothing(ws):
    rows = [ROW, OTHER, ",anna,salt,1,2024-03-03", ",anna,salt,1,2024-03-03"]
    data = orders(*rows).encode()
    land(ws, "orders-1.csv", data)
    assert feedback(ws, AT).accepted == 4
    before = ws.lake.version("events")
    for name, again in {
        "orders-2.csv": data,
        "orders-3.csv.gz": gzip.compress(data, 1, mtime=0),
        "orders-4.csv.gz": gzip.compress(data, 9, mtime=1),
        "orders-5.csv": orders(*reversed(rows)).encode(),
    }.items():
        land(ws, name, again)
    result = feedback(ws, AT)
    assert statuses(result)["orders-2.csv"] == "seen before"
    assert (result.accepted, result.duplicates) == (0, 3 * 4)
    assert ws.lake.version("events") == before
    assert names(ws, "landing/events") == []


def test_late_rows_of_a_year_ago_are_stored_once(ws):
    land(ws, "orders-1.csv", orders(ROW, "9,carl,rye,1,2023-03-01"))
    assert feedback(ws, AT).accepted == 2
    land(ws, "orders-2.csv", orders("9,carl,rye,1,2023-03-01", "9,carl,rye,1,2023-03-02"))
    result = feedback(ws, AT)
    assert (result.accepted, result.duplicates, result.quarantined) == (1, 1, 0)
    days = ws.lake.read("events").sort(c.EVENT_DAY)[c.EVENT_DAY].cast(str).to_list()
    assert days == ["2023-03-01", "2023-03-02", "2024-03-01"]


def test_of_two_events_with_one_id_the_first_counts_and_the_other_is_quarantined(ws):
    changed = ROW.replace("bread", "cake")
    land(ws, "orders-1.csv", orders(ROW, changed, ROW))
    first = feedback(ws, AT)
    assert (first.accepted, first.quarantined, first.duplicates) == (1, 1, 1)
    assert first.reasons == {"event_id_conflict": 1}
    land(ws, "orders-2.csv", orders(changed, ROW, OTHER))
    second = feedback(ws, AT)
    assert (second.accepted, second.quarantined, second.duplicates) == (1, 1, 1)
    assert sorted(ws.lake.read("events")[c.ITEM_ID]) == ["bread", "milk"]
    quarantine = ws.lake.read("quarantine")
    assert sorted(quarantine[c.LINE]) == [2, 3]
    assert "anna" not in "".join(quarantine[c.RAW])


@pytest.mark.parametrize("link", ["landing", "landing/users"])
def test_a_landing_folder_that_is_a_link_is_refused_and_nothing_behind_it_moves(ws, tmp_path, link):
    outside = tmp_path / "outside"
    (ws.home / link).rename(outside)
    outside_file = outside / "thesis.txt"
    outside_file.write_text("a life's work")
    os.utime(outside_file, (1, 1))
    (ws.home / link).symlink_to(outside)
    with raises("ingest.link") as caught:
        feedback(ws, AT)
    assert str(ws.home / link) in caught.value.sentence
    assert outside_file.read_text() == "a life's work"


def test_a_file_behind_a_link_in_the_landing_folder_stays_where_it_is(ws, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "orders-1.csv").write_text(orders(ROW))
    (ws.home / "landing" / "events" / "link").symlink_to(outside)
    [one] = step.ingest(ws, [ws.home / "landing/events/link/orders-1.csv"], at=AT).outcomes
    assert one.status.value == "taken"
    assert [path.name for path in outside.iterdir()] == ["orders-1.csv"]


def test_a_lake_that_is_gone_is_no_empty_one(ws):
    land(ws, "orders-1.csv", orders(ROW))
    feedback(ws, AT)
    append_decision(ws, "a-run")
    shutil.rmtree(ws.home / "lake")
    land(ws, "orders-2.csv", orders(OTHER))
    with raises("lake.lost"):
        feedback(Workspace.open(ws.home), AT)
    assert names(ws, "landing/events") == ["orders-2.csv"]


def test_a_mark_distinguishes_files(tmp_path):
    path = tmp_path / "a"
    assert mark(path) is None
    path.write_text("1")
    first = mark(path)
    assert mark(path) == first
    _replace(path, "1")
    assert mark(path) != first


def _replace(path: Path, text: str) -> None:
    """Put another file in its place, as old as the first, by renaming."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    os.utime(new, (1_000_000_000, 1_000_000_000))
    new.rename(path)


if __name__ == "__main__":
    from pipeline.errors import NightjarError

    try:
        print(feedback(Workspace.open(Path(sys.argv[1])), AT).text(), file=sys.stderr)
    except NightjarError as error:
        sys.exit(print(error.sentence, file=sys.stderr) or error.exit_code)
