"""Waiting files are found among any other entries; unreadable files and folders are reported.

What can go wrong:
* a landing folder is gone, is a file, or may not be read -> one sentence, nothing is taken in
* a folder inside may not be read                         -> named; the others are found
* a file may not be read                                  -> it waits; the others are taken in
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.data.sources.config import Limits, MappingError
from pipeline.errors import DataError, StorageError
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest.discovery import expand, landed
from pipeline.steps.ingest.read_file import CannotOpen, sum_of
from pipeline.workspace.child_process import Child
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, workspace
from tests.raising import raises

LATER = datetime(2030, 1, 1, tzinfo=UTC)
UNPRIVILEGED = 65534


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return workspace(tmp_path / "ws")


@pytest.fixture
def open_place():
    """A folder that all users may enter, as none of pytest's is."""
    place = Path(tempfile.mkdtemp())
    for table in ("items", "users", "events"):
        (place / "landing" / table).mkdir(parents=True)
    # Explicitly: a command that another test ran in this process has left its umask, 077.
    for folder in (place, *place.rglob("*")):
        folder.chmod(0o755)
    yield place
    shutil.rmtree(place)


@contextmanager
def without_privileges():
    """Run as a user to whom permissions apply; they do not apply to root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def waiting(home: Path) -> list[str]:
    return [name for inside in landed(home, LATER) for _, name in inside.files]


def test_tables_come_in_order_and_the_oldest_first(open_place):
    landing = open_place / "landing"
    for number, name in enumerate(("events/b.csv", "events/a.csv", "events/in/c.csv", "items/i")):
        path = landing / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (number, number))
    for name in (".hidden", "new.tmp", "new.csv.part", "new.crdownload", ".in/x.csv"):
        path = landing / "events" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (landing / "events" / "link").symlink_to("nowhere")
    late = landing / "events" / "late.csv"
    late.touch()
    os.utime(late, (LATER.timestamp() + 1,) * 2)
    assert waiting(open_place) == ["i", "b.csv", "a.csv", "in/c.csv"]
    assert [(x.path, x.reason) for x in landed(open_place, LATER)[2].irregular] == [
        ("events/link", "is a link")
    ]
    assert [inside.table for inside in landed(open_place, LATER)] == ["items", "users", "events"]


@pytest.mark.parametrize("fault", ["gone", "a file", "all gone"])
def test_a_landing_folder_that_is_not_there_is_an_error_before_anything_is_taken_in(ws, fault):
    path = land(ws, "items.csv", "item_id\nbread\n", "items")
    events = ws.home / "landing" / "events"
    shutil.rmtree(ws.home / "landing" if fault == "all gone" else events)
    if fault == "a file":
        events.touch()
    with raises("ingest.folder_unreadable") as caught:
        feedback(ws, AT)
    assert caught.value.exit_code == 6
    assert ws.lake.version("batches") is None
    assert path.exists() or fault == "all gone"


def test_a_landing_folder_that_may_not_be_read_is_an_error(open_place):
    events = open_place / "landing" / "events"
    events.chmod(0o300)
    try:
        with without_privileges(), pytest.raises(StorageError, match="permission denied"):
            landed(open_place, LATER)
    finally:
        events.chmod(0o700)


def test_a_folder_inside_that_may_not_be_read_hides_no_other_file(open_place):
    inner = open_place / "landing" / "events" / "inner"
    inner.mkdir()
    (inner / "hidden.csv").touch()
    (open_place / "landing" / "events" / "seen.csv").touch()
    inner.chmod(0)
    try:
        with without_privileges():
            assert waiting(open_place) == ["seen.csv"]
            ((folder, reason),) = landed(open_place, LATER)[2].troubles
            assert folder == inner and "permission denied" in reason
            with raises("ingest.folder_unreadable") as caught:
                expand([open_place])
            assert isinstance(caught.value, DataError) and "inner" in caught.value.where
    finally:
        inner.chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_reported_and_the_pass_goes_on(ws, monkeypatch):
    inner = ws.home / "landing" / "events" / "inn\ner"
    inner.mkdir()
    land(ws, "orders.csv", orders("1,anna,bread,1,2024-03-01"))
    opened = os.open

    def refusing(name, *args, **more):
        if name == inner.name:
            raise PermissionError(13, "Permission denied")
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    result = feedback(ws, AT)
    (problem,) = result.problems
    assert problem.startswith("inn\\ner: waits: ") and "permission denied" in problem
    assert (result.accepted, result.failed) == (1, True)


def test_a_file_that_may_not_be_read_waits(open_place, ws, monkeypatch):
    file = open_place / "a.csv"
    file.write_text("x")
    file.chmod(0)
    with without_privileges(), raises("ingest.cannot_open") as caught:
        sum_of(file, Limits())
    assert isinstance(caught.value, CannotOpen) and caught.value.where == "a.csv"
    assert issubclass(CannotOpen, MappingError)
    land(ws, "orders.csv", orders("1,anna,bread,1,2024-03-01"))
    path = land(ws, "other.csv", orders("2,anna,bread,1,2024-03-01"))
    opened = os.open

    def refusing(name, *args, **more):
        if name == path.name:
            raise PermissionError(13, "Permission denied")
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    result = feedback(ws, AT)
    (problem,) = result.problems
    assert problem.startswith("other.csv: waits: ") and "permission denied" in problem
    assert result.accepted == 1
    assert path.exists()
