"""A user who may write into `landing/` can neither write, read nor block anything else.

Attempts:
* links, pipes, sockets, devices, further names of files -> not opened, moved or followed; reported
* a name that is that of another file's reason           -> names in `rejected/` are sums
* a link in the place of a file or folder, at any moment -> refused, or moved back
* a write after the move, through an earlier descriptor  -> `archive/` has a copy of the file
* a file that grows while it is read                     -> as many bytes are read as before
* control characters in names and values                 -> escaped
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest import ingest as step
from pipeline.steps.ingest import landing
from pipeline.steps.ingest.discovery import landed
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, workspace

ROOT = Path(__file__).resolve().parents[4]
OTHER_UID = 65534
ROW = "1,anna,bread,1,2024-03-01 10:00:00"
BAD = "line,line\n1,1\n"
# Nothing here may wait for a writer, which never comes.
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return workspace(tmp_path / "ws")


def old(path: Path) -> Path:
    os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return path


def names(ws: Workspace, folder: str) -> list[str]:
    return sorted(path.name for path in (ws.home / folder).glob("*"))


def statuses(result) -> dict[str, str]:
    return {one.file: one.status.value for one in result.outcomes}


def rejected(data: str, suffix: str = ".csv") -> list[str]:
    digest = hashlib.sha256(data.encode()).hexdigest()
    return [f"{digest}{suffix}", f"{digest}.reason.txt"]


def bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # its whole path may be too long for an address
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


# --- the reason of a rejected file ---------------------------------------------------------------


def attack(events: Path, victims: list[Path]) -> None:
    """Deliver a bad file for each target, and before it a link from the place of its reason."""
    files = ("id>PWNED_BY_LANDING;#.csv", 'import os; os.system("id") # airflow dag.csv', "key.csv")
    for name, victim in zip(files, victims, strict=True):
        (events / f"{name}.reason.txt").symlink_to(victim)
        os.utime(events / f"{name}.reason.txt", (1, 1), follow_symlinks=False)
        (events / name).write_text(f"{BAD}{name}\n")
        old(events / name)


def check_attack(ws: Workspace, victims: list[Path]) -> None:
    before = [victim.read_text() if victim.exists() else None for victim in victims]
    result = feedback(ws, AT)
    assert [victim.read_text() if victim.exists() else None for victim in victims] == before
    kinds = sorted(statuses(result).values())
    assert kinds == ["not read"] * 3 + ["set aside"] * 3
    assert all(path.is_symlink() for path in (ws.home / "landing" / "events").iterdir())
    for path in (ws.home / "rejected").iterdir():
        assert path.is_file() and not path.is_symlink()
        assert len(path.name.partition(".")[0]) == 64


def make_victims(folder: Path, ws: Workspace) -> list[Path]:
    folder.mkdir(exist_ok=True)
    (folder / ".bashrc").write_text("alias ll='ls -l'\n")
    return [folder / ".bashrc", folder / "innocent.py", ws.home / "secrets" / "vault.key"]


def test_a_link_at_the_place_of_a_reason_is_not_written_through(ws, tmp_path):
    victims = make_victims(tmp_path / "victim", ws)
    attack(ws.home / "landing" / "events", victims)
    check_attack(ws, victims)


@pytest.mark.root
def test_another_user_who_may_drop_files_overwrites_nothing(monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        ws = workspace(place / "ws")
        events = ws.home / "landing" / "events"
        for folder in (ws.home, events.parent, events):
            folder.chmod(0o755)
        os.chown(events, OTHER_UID, OTHER_UID)
        victims = make_victims(place / "victim", ws)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(OTHER_UID)
            os.setuid(OTHER_UID)
            attack(events, victims)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        check_attack(ws, victims)
    finally:
        shutil.rmtree(place)


def test_a_pipe_at_the_place_of_a_reason_stops_nothing(ws):
    pipe = ws.home / "landing" / "events" / "y.csv.reason.txt"
    os.mkfifo(pipe)
    os.utime(pipe, (1, 1))
    land(ws, "y.csv", BAD)
    assert statuses(feedback(ws, AT)) == {"y.csv.reason.txt": "not read", "y.csv": "set aside"}
    assert names(ws, "rejected") == rejected(BAD)
    assert names(ws, "landing/events") == ["y.csv.reason.txt"]


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_whatever_lies_at_the_place_of_a_reason_is_replaced(ws, tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (ws.home / "rejected").mkdir()
    file, reason = (ws.home / "rejected" / name for name in rejected(BAD))
    for path in (file, reason):
        if kind == "link":
            path.symlink_to(victim)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.write_text("earlier")
    land(ws, "y.csv", BAD)
    assert feedback(ws, AT).failed
    assert victim.read_text() == "mine"
    assert file.read_text() == BAD and not file.is_symlink()
    assert reason.read_text().startswith("y.csv: ") and not reason.is_symlink()


def test_a_folder_at_the_place_of_a_reason_keeps_the_file_in_its_place(ws):
    (ws.home / "rejected" / rejected(BAD)[1]).mkdir(parents=True)
    path = land(ws, "y.csv", BAD)
    result = feedback(ws, AT)
    [file] = result.outcomes
    assert (file.status, file.error_id, result.exit_code) == ("waits", "storage.cannot_write", 6)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("y.reason.txt", ".txt"),
        ("y.csv.GZ", ".csv.GZ"),
        ("y.a\x1b[31m", ""),
        (f"y.{'x' * 200}", ""),
        ("y\n.csv", ".csv"),
        ("-rf", ""),
    ],
)
def test_a_rejected_file_is_named_by_its_checksum_and_its_reason_names_the_original(
    ws, name, suffix
):
    land(ws, name, BAD)
    result = feedback(ws, AT)
    assert names(ws, "rejected") == sorted(rejected(BAD, suffix))
    reason = (ws.home / "rejected" / rejected(BAD)[1]).read_text()
    assert reason == f"{result.outcomes[0].sentence}\n"
    assert reason.startswith(f"{result.outcomes[0].file}: ")
    assert reason[:-1].isprintable()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("orders-alice.csv", ".csv"),
        ("orders-alice.reason.csv", ".csv"),
        ("orders-\n\x1b[31m.csv", ".csv"),
        ("orders; rm -rf $HOME.csv", ".csv"),
    ],
)
def test_an_archived_file_is_named_by_its_checksum(ws, name, suffix):
    content = orders(ROW)
    land(ws, name, content)
    assert feedback(ws, AT).accepted == 1
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert names(ws, "archive") == [f"{digest}{suffix}"]


def test_a_file_that_is_too_large_to_sum_is_set_aside_as_well(ws):
    (ws.home / "nightjar.toml").write_text("[ingest.limits]\nmax_file_bytes = 4\n")
    expected = []
    for name in ("a.csv", "b.csv"):
        path = land(ws, name, BAD)
        about = path.stat()
        key = f"{about.st_ino} {about.st_size} {about.st_mtime_ns} ".encode() + os.fsencode(path)
        digest = hashlib.sha256(key).hexdigest()
        expected += [f"{digest}.csv", f"{digest}.reason.txt"]
    assert set(statuses(feedback(Workspace.open(ws.home), AT)).values()) == {"set aside"}
    assert names(ws, "rejected") == sorted(expected)
    assert names(ws, "landing/events") == []


# --- a sender who has the file open --------------------------------------------------------------


def check_archive_of_its_own(ws: Workspace, path: Path, content: str, status: str) -> None:
    inode = path.stat().st_ino
    with path.open("r+") as opened:
        assert statuses(feedback(ws, AT)) == {path.name: status}
        opened.write("changed")
    folder = "archive" if status == "taken" else "rejected"
    (kept,) = (ws.home / folder).glob("*.csv")
    assert names(ws, "landing/events") == []
    assert kept.read_text() == content
    assert kept.name == f"{hashlib.sha256(content.encode()).hexdigest()}.csv"
    assert kept.stat().st_ino != inode
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (os.geteuid(), 0o600)


@pytest.mark.parametrize(("content", "status"), [(orders(ROW), "taken"), (BAD, "set aside")])
def test_a_file_that_others_can_write_is_copied(ws, content, status):
    path = land(ws, "orders-1.csv", content)
    path.chmod(0o666)
    check_archive_of_its_own(ws, path, content, status)


@pytest.mark.root
def test_a_file_of_another_user_is_copied(ws):
    path = land(ws, "orders-1.csv", orders(ROW))
    os.chown(path, OTHER_UID, OTHER_UID)
    check_archive_of_its_own(ws, path, orders(ROW), "taken")


def test_an_own_file_is_not_copied(ws):
    inode = land(ws, "orders-1.csv", orders(ROW)).stat().st_ino
    feedback(ws, AT)
    (kept,) = (ws.home / "archive").iterdir()
    assert kept.stat().st_ino == inode


def test_bytes_that_changed_after_the_reading_are_not_archived(ws, monkeypatch):
    """The sender also restores the modification time."""
    path, other = land(ws, "orders-1.csv", orders(ROW)), orders(ROW.replace("anna", "bert"))
    path.chmod(0o666)
    commit = step.Batches.commit

    def changed(*args, **named):
        commit(*args, **named)
        path.write_text(other)
        old(path)

    with monkeypatch.context() as patch:
        patch.setattr(step.Batches, "commit", changed)
        result = feedback(ws, AT)
    assert (result.accepted, result.exit_code) == (1, 6)
    assert names(ws, "archive") == []
    assert statuses(feedback(ws, AT)) == {"orders-1.csv": "taken"}
    assert names(ws, "archive") == [f"{hashlib.sha256(other.encode()).hexdigest()}.csv"]


@pytest.mark.parametrize("moment", ["before the checksum", "before the copy"])
def test_a_file_that_grows_to_terabytes_stops_nothing(ws, monkeypatch, moment):
    path = land(ws, "orders-1.csv", orders(ROW))
    path.chmod(0o666)
    (ws.home / "nightjar.toml").write_text("[ingest.limits]\nmax_file_bytes = 4096\n" + CONFIG)
    ws = Workspace.open(ws.home)
    flaw, fsync, looks = landing.flaw, os.fsync, []

    def checked(about, **named):
        looks.append(about)
        if len(looks) == 2:  # the first look is at the path, the second at the open file
            os.truncate(path, 4 << 40)
        return flaw(about, **named)

    def synced(handle):
        fsync(handle)
        if Path(f"/proc/self/fd/{handle}").readlink() == path:
            os.truncate(path, 4 << 40)

    if moment == "before the copy":
        monkeypatch.setattr(os, "fsync", synced)
    else:
        monkeypatch.setattr("pipeline.steps.ingest.read_file.flaw", checked)
    feedback(ws, AT)
    assert len(names(ws, "archive")) == (moment == "before the copy")
    assert "".join(names(ws, "landing/events")).startswith("orders-1")


# --- what is not a regular file ------------------------------------------------------------------


def device(path: Path) -> None:
    os.mknod(path, 0o020600, os.makedev(1, 5))


MADE = {
    "is a link": lambda path: path.symlink_to(path.parents[3] / "secret.csv"),
    "is a link ": lambda path: path.symlink_to(path.parents[2]),
    "has several names (hard links)": lambda path: path.hardlink_to(path.parents[3] / "secret.csv"),
    "is a named pipe": os.mkfifo,
    "is a socket": bind,
    "is a device": device,
}


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.root if kind == "is a device" else ()) for kind in MADE
    ]
)
def thing(request, ws) -> tuple[Path, str]:
    """An entry of the landing folder that is not read, and the reason."""
    (ws.home.parent / "secret.csv").write_text(orders("9,eve,secret,1,2024-03-01"))
    path = ws.home / "landing" / "events" / "orders-x.csv"
    MADE[request.param](path)
    return old(path), request.param.strip()


def test_many_irregular_entries_have_few_lines(ws):
    for number in range(150):
        link = ws.home / "landing" / "events" / f"x{number}.csv"
        link.symlink_to("nowhere")
        old(link)
    first = feedback(ws, AT)
    assert len(first.outcomes) == first.files == 150
    assert len(first.problems) == 21
    assert first.problems[-1].startswith("and 130 more ")
    assert first.text().count("is a link") == 20
    later = feedback(Workspace.open(ws.home), AT + timedelta(minutes=1))
    assert len(later.warnings) == 21
    assert later.warnings[-1].startswith("and 130 more ")
    assert later.text().count("is a link") == 20


def never_opened(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    opened = os.open

    def watched(name, *args, **more):
        assert Path(os.fsdecode(name)).name != path.name
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", watched)


def test_an_irregular_entry_is_reported_once_and_then_a_warning(ws, thing, monkeypatch):
    path, reason = thing
    never_opened(monkeypatch, path)
    land(ws, "orders-1.csv", orders(ROW))
    before = mark = landing.mark(path)
    first = feedback(ws, AT)
    assert statuses(first) == {"orders-x.csv": "not read", "orders-1.csv": "taken"}
    assert first.failed
    assert first.warnings == ()
    assert first.problems[0].startswith(f"orders-x.csv: not read: {reason}; ")
    for later, age in (
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=5), "5 hours"),
        (timedelta(days=3, hours=1), "3 days"),
    ):
        again = feedback(Workspace.open(ws.home), AT + later)
        assert (again.failed, again.files) == (False, 0)
        assert again.warnings == (f"orders-x.csv: {reason}, not read, for {age}; remove it",)
        assert again.warnings[0] in again.text()
    assert landing.mark(path) == mark == before
    assert names(ws, "rejected") == []
    assert ws.lake.read("events").height == 1


@pytest.mark.parametrize("name", ["x.csv", "x\n\x1b[31m.csv", os.fsdecode(b"x-\xff.csv")])
def test_another_thing_of_the_same_name_is_reported_again(ws, name):
    path = ws.home / "landing" / "events" / name
    path.symlink_to("nowhere")
    old(path)
    assert feedback(ws, AT).failed
    assert not feedback(ws, AT).failed
    os.utime(path, (1, 1), follow_symlinks=False)
    assert feedback(ws, AT).failed
    assert not feedback(ws, AT).failed
    path.unlink()
    assert feedback(ws, AT).warnings == ()
    assert json.loads((ws.home / "irregular.json").read_text()) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": "b"}'])
def test_a_damaged_note_of_reported_files_is_written_anew(ws, content):
    (ws.home / "irregular.json").write_text(content)
    (ws.home / "landing" / "events" / "x.csv").symlink_to("nowhere")
    old(ws.home / "landing" / "events" / "x.csv")
    assert feedback(ws, AT).failed
    assert not feedback(ws, AT).failed


def test_a_thing_that_was_just_made_waits_like_a_file(ws):
    os.mkfifo(ws.home / "landing" / "events" / "x.csv")
    result = feedback(ws, AT)
    assert (result.files, result.younger, result.warnings) == (0, 1, ())


def test_what_a_user_names_may_have_several_names_and_nothing_else(ws, thing, monkeypatch):
    path, reason = thing
    if "several" in reason:
        assert step.ingest(ws, [path], at=AT).accepted == 1
        assert path.exists()  # it lies below `landing/`, and is not moved
        return
    if path.is_dir():
        return  # a user who names a link to a folder means the folder
    never_opened(monkeypatch, path)
    result = step.ingest(ws, [path], at=AT)
    assert statuses(result) == {"orders-x.csv": "not read"}
    assert reason in result.problems[0]
    assert result.failed
    assert step.ingest(ws, [path], at=AT).failed
    assert os.path.lexists(path)


def test_the_content_of_a_file_with_several_names_is_not_shown(ws):
    key = ws.home / "secrets" / "vault.key"
    old_name = ws.home / "landing" / "events" / "hardkey.csv"
    old_name.hardlink_to(key)
    result = feedback(ws, AT + timedelta(days=10_000))
    assert statuses(result) == {"hardkey.csv": "not read"}
    assert key.read_text().strip() not in result.text()


def test_folders_in_folders_are_listed_to_a_depth(ws):
    folder = ws.home / "landing" / "events"
    (ws.home / "nightjar.toml").write_text(CONFIG.replace('"orders*"', '"*orders*"'))
    ws = Workspace.open(ws.home)
    for _ in range(20):
        folder = folder / "d"
        folder.mkdir()
    (folder.parents[10] / "orders-1.csv").write_text(orders(ROW))
    old(folder.parents[10] / "orders-1.csv")
    (folder / "orders-2.csv").write_text(orders(ROW))
    result = feedback(ws, AT)
    assert statuses(result) == {"d": "waits", "orders-1.csv": "taken"}


# --- swapped at the wrong moment -----------------------------------------------------------------


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of another user that holds a good file of the name of a landed one."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "orders-1.csv").write_text(orders("9,eve,secret,1,2024-03-01"))
    old(folder / "orders-1.csv")
    return folder


def unharmed(ws: Workspace, outside: Path) -> None:
    assert names(ws, "archive") == names(ws, "rejected") == []
    assert [path.name for path in outside.iterdir()] == ["orders-1.csv"]
    assert ws.lake.version("events") is None


@pytest.mark.parametrize("kind", ["link", "pipe", "hard link"])
def test_a_replacement_of_a_listed_file_is_not_read(ws, outside, monkeypatch, kind):
    path = land(ws, "orders-1.csv", orders(ROW))

    def listed(*args):
        tables = landed(*args)
        path.unlink()
        if kind == "link":
            path.symlink_to(outside / "orders-1.csv")
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.hardlink_to(outside / "orders-1.csv")
        old(path)
        return tables

    monkeypatch.setattr(step, "landed", listed)
    assert statuses(feedback(ws, AT)) == {"orders-1.csv": "not read"}
    assert os.path.lexists(path)
    unharmed(ws, outside)


@pytest.mark.parametrize("kind", ["link", "pipe", "hard link"])
def test_a_replacement_between_check_and_open_is_not_read(ws, outside, monkeypatch, kind):
    path = land(ws, "orders-1.csv", orders(ROW))
    foreign, inodes, opened = (outside / "orders-1.csv").stat().st_ino, [], os.open

    def swapping(name, *args, **more):
        if name == path.name and not path.is_symlink() and path.is_file():
            path.unlink()
            if kind == "link":
                path.symlink_to(outside / "orders-1.csv")
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.hardlink_to(outside / "orders-1.csv")
        handle = opened(name, *args, **more)
        inodes.append(os.fstat(handle).st_ino)
        return handle

    monkeypatch.setattr(os, "open", swapping)
    result = feedback(ws, AT)
    monkeypatch.setattr(os, "open", opened)
    assert result.failed
    # That a file has several names is known only once it is open; nothing is read from it.
    assert (foreign in inodes) == (kind == "hard link")
    assert os.path.lexists(path)
    unharmed(ws, outside)


@pytest.mark.parametrize("inner", ["", "in/", "in/in/"])
def test_a_folder_that_becomes_a_link_after_the_listing_is_not_entered(
    ws, outside, monkeypatch, inner
):
    (ws.home / "nightjar.toml").write_text(CONFIG.replace('"orders*"', '"*orders*"'))
    ws = Workspace.open(ws.home)
    folder = ws.home / "landing" / "events" / inner
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "orders-1.csv"
    path.write_text(orders(ROW))
    old(path)

    def listed(*args):
        tables = landed(*args)
        folder.rename(ws.home.parent / "away")
        folder.symlink_to(outside)
        return tables

    monkeypatch.setattr(step, "landed", listed)
    assert statuses(feedback(ws, AT)) == {"orders-1.csv": "waits"}
    unharmed(ws, outside)


@pytest.mark.parametrize("data", [orders(ROW), BAD])
def test_a_folder_that_becomes_a_link_before_the_move_is_not_entered(
    ws, outside, monkeypatch, data
):
    (ws.home / "nightjar.toml").write_text(CONFIG.replace('"orders*"', '"*orders*"'))
    ws = Workspace.open(ws.home)
    folder = ws.home / "landing" / "events" / "in"
    folder.mkdir()
    path = folder / "orders-1.csv"
    path.write_text(data)
    old(path)

    def swapped(self, function, **request):
        try:
            return parsed_here(self, function, **request)
        finally:
            folder.rename(ws.home.parent / "away")
            folder.symlink_to(outside)

    monkeypatch.setattr(Child, "call", swapped)
    feedback(ws, AT)
    assert names(ws, "archive") == names(ws, "rejected") == []
    assert [path.name for path in outside.iterdir()] == ["orders-1.csv"]


def test_a_folder_that_becomes_a_link_while_it_is_listed_is_not_entered(ws, outside, monkeypatch):
    folder = ws.home / "landing" / "events" / "in"
    folder.mkdir()
    scan = os.scandir

    def swapping(handle):
        entries = scan(handle)
        if folder.exists() and not folder.is_symlink():
            folder.rename(ws.home.parent / "away")
            folder.symlink_to(outside)
        return entries

    monkeypatch.setattr(os, "scandir", swapping)
    result = feedback(ws, AT)
    assert set(statuses(result).values()) <= {"waits", "not read"}
    unharmed(ws, outside)


@pytest.mark.parametrize("data", [orders(ROW), BAD])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "second name"])
def test_a_replacement_before_the_move_goes_back(ws, outside, monkeypatch, data, kind):
    path = land(ws, "orders-1.csv", data)
    move, swapped = landing._move, []

    def blink(source, name, target, new):
        if not swapped:
            swapped.append(name)
            if kind == "second name":
                os.link(path, ws.home.parent / "second")
            else:
                path.unlink()
                if kind == "link":
                    path.symlink_to(outside / "orders-1.csv")
                elif kind == "pipe":
                    os.mkfifo(path)
                else:
                    path.mkdir()
        move(source, name, target, new)

    monkeypatch.setattr(landing, "_move", blink)
    feedback(ws, AT)
    assert swapped == ["orders-1.csv"]
    assert names(ws, "archive") == names(ws, "rejected") == []
    [back] = names(ws, "landing/events")
    assert back.startswith("orders-1-") and back.endswith(".csv")
    assert (outside / "orders-1.csv").read_text().endswith("9,eve,secret,1,2024-03-01,x\n")


def test_the_bytes_that_are_read_are_those_that_were_summed(ws, outside, monkeypatch):
    """The child opens the path again: a file put there in between must not be shown."""
    path = land(ws, "orders-1.csv", orders(ROW))
    (outside / "orders-1.csv").write_text("the-key-of-another-user\n1\n")

    def swapped(self, function, **request):
        path.rename(path.with_name(".kept"))
        path.symlink_to(outside)
        request["path"] = str(outside / "orders-1.csv")
        try:
            return parsed_here(self, function, **request)
        finally:
            path.unlink()
            path.with_name(".kept").rename(path)

    monkeypatch.setattr(Child, "call", swapped)
    result = feedback(ws, AT)
    assert statuses(result) == {"orders-1.csv": "waits"}
    assert "the-key" not in result.text()


# --- control characters --------------------------------------------------------------------------


def test_names_and_values_are_escaped_in_results_and_reasons(ws):
    hostile = "\x1b[31mkey\nnightjar: FAKE\u202e"
    land(ws, "keys.jsonl", json.dumps({hostile: 1}) + "\n")
    land(ws, "twice.csv", "\x1b[31m,\x1b[31m\n1,2\n")
    land(ws, "items.csv", 'item_id,title\nbread,"\x1b[31mRED"\nitem\u200b004,x\n', "items")
    land(ws, f"{hostile}.csv", BAD)
    header, line = orders(ROW).splitlines()
    land(ws, "orders-1.csv", f"{header},\x1b[31mmore\n{line},x\n")
    result = feedback(ws, AT)
    assert all(text.isprintable() for text in result.text().split("\n"))
    assert all(one.text().isprintable() for one in result.outcomes)
    assert result.emptied == {"title_unprintable": 1}
    assert result.reasons == {"item_id_unprintable": 1}
    assert "1 accepted + 1 quarantined; quarantined for 1 item_id_unprintable; " in result.text()
    assert "fields emptied for 1 title_unprintable" in result.text()
    assert ws.lake.read("items")["title"].to_list() == [None]
    for path in (ws.home / "rejected").glob("*.reason.txt"):
        assert path.read_text()[:-1].isprintable()


def test_the_command_reports_it_with_its_exit_code(ws):
    path = ws.home / "landing" / "events" / "x\x1b[31m.csv"
    path.symlink_to("nowhere")
    old(path)
    command = [sys.executable, "-m", "pipeline.cli", "feedback", "--home", str(ws.home)]
    codes = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        assert "x\\x1b[31m.csv: " in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    assert codes == [3, 0]
