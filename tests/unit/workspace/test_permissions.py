"""Modes of a workspace, of one for a group, and of files outside."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.steps.experiments.backtest.sandbox import BacktestSandbox
from pipeline.workspace import permissions
from pipeline.workspace.child_process import keep_private
from pipeline.workspace.workspace import Workspace
from tests.groups import foreign_group, own_group
from tests.raising import raises
from tests.records import backtest_plan


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


@pytest.fixture(params=["owner", "group"])
def group(request):
    return own_group() if request.param == "group" else None


@pytest.fixture
def ws(tmp_path, group):
    return Workspace.init(tmp_path / "ws", group=group)


def test_a_new_workspace_has_its_modes_whatever_the_umask_is(tmp_path, group):
    home = tmp_path / "ws"
    home.mkdir()
    home.chmod(0o777)
    os.umask(0)
    Workspace.init(home, group=group)
    shared, landing, file = (0o700, 0o700, 0o600) if group is None else (0o2750, 0o3770, 0o640)
    modes = {str(path.relative_to(home)): mode(path) for path in (home, *home.rglob("*"))}
    tables = {f"landing/{table}" for table in ("events", "items", "users")}
    assert modes == dict.fromkeys({"landing", *tables}, landing) | {
        ".": shared,
        "runs": shared,
        "nightjar.toml": file,
        "secrets": 0o700,
        "secrets/vault.key": 0o600,
    }
    assert permissions.corrections(home, group) == []
    for path in (home, home / "runs", home / "landing" / "events", home / "nightjar.toml"):
        assert group is None or path.group() == group


def test_the_umask_is_that_of_the_workspace_opened_last(tmp_path):
    private = Workspace.init(tmp_path / "private")
    shared = Workspace.init(tmp_path / "shared", group=own_group())
    keep_private()
    for ws, expected in ((shared, 0o027), (private, 0o077), (shared, 0o027)):
        Workspace.open(ws.home)
        assert umask() == expected


def test_a_workspace_whose_group_the_machine_lacks_is_refused(tmp_path):
    ws = Workspace.init(tmp_path / "ws", group=own_group())
    keep_private()
    file = ws.home / "nightjar.toml"
    file.write_text(file.read_text().replace(own_group(), "no such group"))
    with raises("workspace.unknown_group"):
        Workspace.open(ws.home)
    assert umask() == 0o077


def test_only_a_group_of_the_user_is_accepted(tmp_path, monkeypatch):
    with raises("workspace.unknown_group"):
        Workspace.init(tmp_path / "a", group="no such group")
    for name, value in (("geteuid", 1), ("getegid", 1), ("getgroups", [1])):
        monkeypatch.setattr(os, name, lambda value=value: value)
    with raises("workspace.group_not_allowed"):
        Workspace.init(tmp_path / "b", group=foreign_group(1))
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_keeps_its_group(tmp_path):
    own, other = own_group(), "another group"
    shared, private = (Workspace.init(tmp_path / str(n), group=n) for n in (own, None))
    assert shared.config.workspace.group == own
    assert Workspace.init(shared.home).config.workspace.group == own
    assert Workspace.init(shared.home, group=own).config.workspace.group == own
    with raises("workspace.group_differs"):
        Workspace.init(shared.home, group=other)
    with raises("workspace.group_differs"):
        Workspace.init(private.home, group=own)


@pytest.mark.parametrize("variable", ["NIGHTJAR_VAULT_KEY", "NIGHTJAR_VAULT_KEY_FILE"])
def test_no_key_is_made_if_the_environment_names_one(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "/run/secrets/vault_key")
    ws = Workspace.init(tmp_path / "ws")
    assert list((ws.home / "secrets").iterdir()) == []


def test_paths_that_are_too_wide_have_a_command_that_corrects_them(ws, group):
    home = ws.home
    for name in ("archive", "runs/a b", "lake/quarantine", "landing/events/sender"):
        (home / name).mkdir(parents=True)
    private = ["archive", "lake/quarantine", "vault.db", "vault.db-journal"]
    shared = ["runs", "runs/a b", "runs/a b/page.html", "landing", "nightjar.toml"]
    for name in (*private, *shared):
        if not (home / name).exists():
            (home / name).touch(0o600)
    (home / "runs" / "link").symlink_to("/etc/hostname")
    # What a sender delivers has the sender's mode; other users cannot enter a private folder.
    (home / "landing" / "events" / "sender").chmod(0o777)
    (home / "lake" / "quarantine").chmod(0o700)
    (home / "archive").chmod(0o700)
    (home / "archive" / "file").touch(0o644)
    assert permissions.corrections(home, group) == []

    for name in (*private, *shared):
        (home / name).chmod(0o777)
    commands = permissions.corrections(home, group)
    assert len(commands) == len(private) + len(shared)
    assert any(f"'{home}/runs/a b'" in command for command in commands)
    for command in commands:
        assert os.system(command) == 0
    assert permissions.corrections(home, group) == []
    if group is not None:
        assert mode(home / "runs") == 0o2750


def test_a_landing_folder_without_the_sticky_bit_is_named(tmp_path):
    """Without it a member could rename the folder of a table, and remove files of other senders."""
    group = own_group()
    home = Workspace.init(tmp_path / "ws", group=group).home
    for folder in (home / "landing", home / "landing" / "events"):
        folder.chmod(0o2770)
    commands = permissions.corrections(home, group)
    assert commands == [f"chmod 3770 {home}/landing{name}" for name in ("", "/events")]
    for command in commands:
        assert os.system(command) == 0
    assert permissions.corrections(home, group) == []


PLACES = (
    *("", "nightjar.toml", "runs", "landing/events", "link", "secrets", "secrets/vault.key"),
    *("archive/file", "lake/quarantine/file"),
)


@pytest.mark.root  # only root can give a file to another user
@pytest.mark.parametrize("place", PLACES)
def test_a_path_of_another_user_is_named(ws, group, place):
    home = ws.home
    for name in ("archive", "lake/quarantine"):
        (home / name).mkdir(parents=True)
        (home / name).chmod(0o700)
        (home / name / "file").touch(0o600)
    (home / "lake").chmod(mode(home / "runs"))
    if group is not None:
        os.chown(home / "lake", -1, home.stat().st_gid)
    (home / "link").symlink_to("runs")
    (home / "landing" / "events" / "sender").mkdir()
    (home / "landing" / "events" / "sender" / "file").touch()
    for path in (home / "landing" / "events").rglob("*"):
        os.chown(path, 65_534, -1)
    assert permissions.corrections(home, group) == []
    os.chown(home / place, 65_534, -1, follow_symlinks=False)
    if place == "":
        # The owner of the workspace is the owner of its folder: all other paths are foreign to it.
        assert f"chown -h nobody {home}/runs" in permissions.corrections(home, group)
        return
    owner = pwd.getpwuid(os.geteuid()).pw_name
    commands = permissions.corrections(home, group)
    assert commands == [f"chown -h {owner} {home / place}"]
    assert os.system(commands[0]) == 0
    assert permissions.corrections(home, group) == []


@pytest.mark.root  # only root can give a file to a group that it is not in
def test_a_file_of_another_group_is_named(tmp_path):
    group = own_group()
    ws = Workspace.init(tmp_path / "ws", group=group)
    file = ws.home / "nightjar.toml"
    os.chown(file, -1, 12345)
    assert permissions.corrections(ws.home, group) == [f"chgrp {group} {file}"]
    with raises("workspace.unknown_group"):
        permissions.corrections(ws.home, "no such group")


def test_an_export_is_private_before_its_first_byte(tmp_path):
    file = tmp_path / "out"
    os.umask(0)
    for existing in (None, "longer than what replaces it"):
        if existing:
            file.write_text(existing)
            file.chmod(0o644)
        with permissions.open_export(file) as stream:
            assert [mode(path) for path in tmp_path.iterdir() if path != file] == [0o600]
            stream.write(b"new")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]
        assert mode(file) == 0o600


def test_an_export_leaves_a_device_as_it_is():
    before = mode(Path(os.devnull))
    with permissions.open_export(Path(os.devnull)) as stream:
        stream.write(b"new")
    assert mode(Path(os.devnull)) == before


def test_an_export_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError), permissions.open_export(tmp_path / "no" / "out"):
        pass


def test_a_sandbox_has_the_group_of_its_workspace(tmp_path):
    group = own_group()
    source = Workspace.init(tmp_path / "ws", group=group)
    box = BacktestSandbox(source, backtest_plan(source), source.home / "backtests" / "box").ws
    assert (mode(box.home), box.home.group(), umask()) == (0o2750, group, 0o027)
