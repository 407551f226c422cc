"""Modes of all files after ingest and a nightly run, of a workspace of one user and of a group."""

import os
import stat
import subprocess
import tempfile
from pathlib import Path, PurePath

import pytest

from pipeline.steps.doctor import examine
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace import permissions
from pipeline.workspace.workspace import Workspace
from tests.groups import own_group
from tests.worlds import NIGHTS, catalogue, copy_of, land, purchases

MEMBER = 65534
OUTSIDER = 65533
CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "purchase" }

[split]
task = "discovery"

[publish]
live_from = "as_of"

[recipes]
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory, workspace):
    """A workspace of a group after a small nightly run; one row of its events is bad."""
    ws = workspace(tmp_path_factory.mktemp("shared") / "ws", CONFIG, own_group())
    catalogue(ws.home, 80)
    file = land(ws.home, purchases(users=260, items=80, days=75), NIGHTS[0])
    with file.open("a") as rows:
        rows.write("bad,u1,,1,2024-01-01T00:00:00Z\n")
    os.utime(file, (1, 1))
    assert feedback(ws, NIGHTS[0]).quarantined == 1
    assert nightly(ws, NIGHTS[0]).decision == "first"
    return ws


def modes(home):
    """Return the modes of all paths but delivered ones."""
    paths = [home, *home.rglob("*")]
    tables = [home / "landing" / table for table in ("events", "items", "users")]
    return {
        str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode)
        for path in paths
        if not set(tables) & set(path.parents)
    }


def test_a_workspace_is_readable_by_its_owner_only(one_night):
    by_path = modes(one_night[0])
    assert {"runs", "mlflow/mlflow.db", "archive", "ledger.jsonl", "vault.db"} <= by_path.keys()
    assert {path: mode for path, mode in by_path.items() if mode & 0o077} == {}
    assert permissions.corrections(one_night[0], None) == []


def test_a_workspace_of_a_group_is_readable_by_the_group(shared):
    private = ("archive", "rejected", "secrets", "scratch", "vault.db", "lake/quarantine")
    by_path = modes(shared.home)
    assert {
        "archive",
        "secrets",
        "vault.db",
        "lake/quarantine",
        "mlflow/mlflow.db",
    } <= by_path.keys()
    own = {path: mode for path, mode in by_path.items() if path.startswith(private)}
    # Other users cannot enter a private folder, so the modes of files in it are free.
    folders = {p: mode for p, mode in own.items() if not p.startswith("lake/quarantine/")}
    assert {path: mode for path, mode in folders.items() if mode & 0o077} == {}
    landing = {"landing", *(f"landing/{table}" for table in ("events", "items", "users"))}
    others = {path: mode for path, mode in by_path.items() if path not in own.keys() | landing}
    assert {by_path[path] for path in landing} == {0o3770}
    # A member who could open a lock could hold it.
    locks = [path for path in others if PurePath(path).name.startswith((".lock-", "ledger.lock"))]
    locks += [path for path in others if path.startswith("lake/.locks/")]
    assert len(locks) > 10
    assert {others.pop(path) for path in locks} == {0o600}
    assert set(others.values()) == {0o2750, 0o640}
    assert {(shared.home / path).group() for path in others} == {own_group()}
    assert permissions.corrections(shared.home, own_group()) == []


@pytest.mark.parametrize("kind", ["owner", "group"])
def test_doctor_names_what_is_too_wide(kind, one_night, shared, tmp_path):
    source, group = (one_night[0], None) if kind == "owner" else (shared.home, own_group())
    home = copy_of(source, tmp_path / "ws")
    if group is not None:
        subprocess.run(["chgrp", "-R", group, home], check=True)

    def check():
        (result,) = (check for check in examine(home) if check.name == "permissions")
        return result

    assert check().ok, check().sentence
    home.chmod(0o755)
    (home / "vault.db").chmod(0o644)
    sentence = check().sentence
    assert sentence.startswith("2 paths ")
    assert f"`chmod {'700' if group is None else '2750'} {home}`" in sentence
    assert f"`chmod 600 {home / 'vault.db'}`" in sentence
    for path in (home / "runs").rglob("*"):
        path.chmod(0o755)
    sentence = check().sentence
    assert not check().ok
    assert sentence.count("`chmod ") == 5
    assert f"{len([*(home / 'runs').rglob('*')]) - 3:,} more" in sentence


@pytest.mark.root  # only root can run commands as other users
def test_a_member_reads_and_delivers_and_others_do_neither(shared):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "ws")
        subprocess.run(["cp", "-a", shared.home, home], check=True)
        group = home.stat().st_gid

        def run_as(user, script, *paths):
            """Run a script as another user for each path `$f`; return the paths where it worked."""
            command = ["sh", "-c", f'for f in "$@"; do if {script}; then echo "$f"; fi; done', "-"]
            done = subprocess.run(
                [*command, *paths],
                user=user,
                group=user,
                extra_groups=[group] if user == MEMBER else [],
                capture_output=True,
                text=True,
                cwd="/",
            )
            return {Path(line) for line in done.stdout.splitlines()}

        readable = [home / "ledger.jsonl", home / "nightjar.toml", home / "mlflow" / "mlflow.db"]
        readable += [*home.glob("runs/*/page.html"), *home.glob("lake/events/*/*.parquet")]
        private = [home / "vault.db", home / "secrets" / "vault.key"]
        private += [*home.glob("archive/*"), *home.glob("lake/quarantine/*.parquet")]
        assert len(readable) > 4 and len(private) > 3
        assert run_as(MEMBER, 'cat "$f" >/dev/null', *readable, *private) == set(readable)
        assert run_as(OUTSIDER, 'cat "$f" >/dev/null', *readable, *private) == set()
        events, folders = home / "landing" / "events", [home, home / "runs", home / "lake"]
        assert run_as(MEMBER, 'touch "$f/new.csv"', events, *folders) == {events}
        assert run_as(OUTSIDER, 'touch "$f/old.csv"', events, *folders) == set()

        # A member removes and renames neither files of other senders nor the folders of tables.
        other = events / "other.csv"
        other.touch(0o600)
        os.chown(other, OUTSIDER, group)
        assert run_as(MEMBER, 'rm -f "$f" 2>/dev/null', other) == set()
        assert run_as(MEMBER, 'mv "$f" "$f.moved" 2>/dev/null', other, events) == set()
        assert run_as(MEMBER, 'mv "$f" "$f.csv"', events / "new.csv") == {events / "new.csv"}
        assert run_as(MEMBER, 'mv "$f.csv" "$f"', events / "new.csv") == {events / "new.csv"}
        other.unlink()

        new = events / "new.csv"
        text = "event_id,user_id,item_id,value,timestamp\nnew,u1,i1,1,2024-03-12T09:00:00Z\n"
        write = f"chmod 640 {new} && printf '{text}' > {new} && touch -d 2024-03-12 {new}"
        assert run_as(MEMBER, write, new) == {new}
        assert new.stat().st_uid == MEMBER
        assert ingest_landed(Workspace.open(home), NIGHTS[1]).accepted == 1
