"""Places that another user of the machine has prepared: of exports, and of new workspaces."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.workspace import permissions
from pipeline.workspace.workspace import Workspace
from tests.raising import raises

OTHER = 65_534
"""A user who is not the one of this process; only root can give files away."""


def export(path, content=b"raw ids"):
    with permissions.open_export(path) as stream:
        stream.write(content)


def test_a_reader_who_opened_the_old_file_does_not_get_the_new_content(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"old")
    file.chmod(0o644)
    with file.open("rb") as opened_before:
        export(file)
        assert opened_before.read() == b"old"
    assert file.read_bytes() == b"raw ids"
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_export_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"old")
    with pytest.raises(KeyError), permissions.open_export(file) as stream:
        stream.write(b"half")
        raise KeyError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"old"}


def test_an_own_link_is_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    link = tmp_path / "out"
    link.symlink_to(target)
    export(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"raw ids"


@pytest.mark.root
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_nothing_is_written_through_the_link_or_pipe_of_another_user(tmp_path, kind):
    victim, out = tmp_path / "victim", tmp_path / "out"
    if kind == "link":
        victim.write_bytes(b"keep")
    if kind == "pipe":
        os.mkfifo(out, 0o666)
        reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    else:
        out.symlink_to(victim)
    os.lchown(out, OTHER, OTHER)
    for write in (export, permissions.require_writable):
        with raises("storage.foreign_export"):
            write(out)
    if kind == "pipe":
        assert os.read(reader, 10) == b""
        os.close(reader)
    elif kind == "link":
        assert victim.read_bytes() == b"keep"
    else:
        assert not victim.exists()


@pytest.mark.root
def test_an_export_belongs_to_its_writer_even_if_another_user_made_the_file(tmp_path):
    out = tmp_path / "out"
    out.touch()
    os.chown(out, OTHER, OTHER)
    export(out)
    assert (out.stat().st_uid, out.stat().st_mode & 0o777) == (os.geteuid(), 0o600)


def test_the_check_before_an_export_leaves_no_file_and_names_what_is_no_file(tmp_path):
    permissions.require_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    permissions.require_writable(Path(os.devnull))
    for place in (tmp_path, tmp_path / "no" / "out"):
        with pytest.raises(StorageError):
            permissions.require_writable(place)


@pytest.mark.parametrize("name", ["landing", "secrets", "runs", "nightjar.toml.new"])
def test_a_new_workspace_is_not_made_through_a_link(tmp_path, name):
    home, elsewhere = tmp_path / "ws", tmp_path / "elsewhere"
    home.mkdir()
    if name != "nightjar.toml.new":
        elsewhere.mkdir()
    (home / name).symlink_to(elsewhere)
    with raises("workspace.foreign_folder"):
        Workspace.init(home)
    assert not elsewhere.exists() or list(elsewhere.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("place", ["", "secrets", "secrets/vault.key"])
def test_a_new_workspace_takes_no_folder_or_key_of_another_user(tmp_path, place):
    home = tmp_path / "ws"
    (home / "secrets").mkdir(parents=True)
    key = home / "secrets" / "vault.key"
    key.write_text("A" * 43 + "=")
    key.chmod(0o600)
    os.chown(home / place, OTHER, OTHER)
    with raises("workspace.foreign_folder"):
        Workspace.init(home)
    shutil.rmtree(home)
    home.mkdir()
    assert Workspace.init(home).home == home.resolve()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["dangling", "to a folder", "above", "to a workspace"])
def test_a_new_workspace_is_not_made_through_a_link_of_another_user(tmp_path, kind):
    chosen, link = tmp_path / "chosen", tmp_path / "link"
    if kind != "dangling":
        chosen.mkdir()
    if kind == "to a workspace":
        Workspace.init(chosen)
    before = sorted(tmp_path.rglob("*"))
    link.symlink_to(chosen)
    os.lchown(link, OTHER, OTHER)
    with raises("workspace.foreign_folder"):
        Workspace.init(link / "inner" if kind == "above" else link)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, link])


def test_a_new_workspace_is_made_through_an_own_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "chosen")
    assert Workspace.init(tmp_path / "link").home == (tmp_path / "chosen").resolve()
