"""Modes of the paths of a workspace: for its owner only, or also for the members of one group.

    path                                     owner only   with a group
    folders, files                           700, 600     2750, 640
    landing/ and its tables                  700          3770
    folders of `_PRIVATE`                    700          700
    vault.db and SQLite's files beside it    600          600
    files of locks                           600          600

Guarantees:

* Raw ids, bad values, keys and logins are accessible to the owner only, in both kinds.
* Members of the group can read the other files, and can write only in `landing/`.
* Folders have the set-group-ID bit, so that new files belong to the group.
* A file that is written outside the workspace is a new one, readable by its owner only, even if it
  replaces another; nothing is written through a link or a pipe of another user.
* The sticky bit of `landing/` and its tables lets each member move and remove only own files.
* A new workspace contains nothing that another user has made, and no link; no link of another user
  leads to it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Final, NamedTuple

from pipeline.errors import ConfigError, StorageError
from pipeline.stores.disk import storage_errors

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
_BITS: Final = 0o777
_PRIVATE: Final = ("airflow", "archive", "lake/quarantine", "rejected", "scratch", "secrets")
_VAULT: Final = "vault.db"
_LANDING: Final = "landing"


class _Modes(NamedTuple):
    folder: int
    file: int
    landing: int
    umask: int


_OWNER_ONLY: Final = _Modes(PRIVATE_FOLDER, PRIVATE_FILE, PRIVATE_FOLDER, 0o077)
_WITH_GROUP: Final = _Modes(0o2750, 0o640, 0o3770, 0o027)


def set_umask(group: str | None = None) -> None:
    """Let this process create the files of a workspace with the right mode.

    Changes the whole process and its later children.

    Parameters
    ----------
    group
        Group of the workspace; without one, files are for their owner only.

    Raises
    ------
    ConfigError
        `workspace.unknown_group`: new files would be readable by another group.
    """
    if group is not None:
        group_id(group)
    os.umask(_modes(group).umask)


def group_id(group: str) -> int:
    """Return the number of a group.

    Raises
    ------
    ConfigError
        `workspace.unknown_group`.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            "workspace.unknown_group",
            f"unknown group {group!r}; as `--group` or [workspace] group name one that "
            "`getent group` lists",
        ) from None


def require_membership(group: str) -> None:
    """Raise unless this process can give files to a group.

    Raises
    ------
    ConfigError
        `workspace.unknown_group`, `workspace.group_not_allowed`.
    """
    number = group_id(group)
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise ConfigError(
            "workspace.group_not_allowed",
            f"you are not a member of the group {group!r}; name one that `id -nG` lists, or log "
            "in again after you were added to it",
        )


def require_own_links(home: Path) -> None:
    """Raise if a link of another user leads to the folder of a new workspace.

    Raises
    ------
    ConfigError
        `workspace.foreign_folder`: that user could choose the folder.
    """
    place = home.absolute()
    for path in (place, *place.parents):
        # Links of root are parts of the system, such as /var/run.
        if path.is_symlink() and path.lstat().st_uid not in (0, os.geteuid()):
            raise ConfigError(
                "workspace.foreign_folder",
                f"{path} is a link of another user; name a folder without it",
            )


def take_over(home: Path) -> None:
    """Make the folder of a new workspace private.

    Raises
    ------
    ConfigError
        `workspace.foreign_folder`: the folder, or something in it, is a link or belongs to another
        user, who could read or replace the key of the vault.
    """
    _require_own(home)
    home.chmod(PRIVATE_FOLDER)  # from now on no other user can add anything
    for path in home.rglob("*"):
        _require_own(path)


def _require_own(path: Path) -> None:
    about = path.lstat()
    if stat.S_ISLNK(about.st_mode) or about.st_uid != os.geteuid():
        raise ConfigError(
            "workspace.foreign_folder",
            f"{path} is a link or belongs to another user; name a new folder",
        )


def share(home: Path, group: str | None) -> None:
    """Give the folders of a new workspace their modes, and their group.

    Parameters
    ----------
    home
        Folder of the workspace.
    group
        Its group, or None.
    """
    for folder in (home, *(path for path in home.rglob("*") if path.is_dir())):
        mode = _mode(folder.relative_to(home), True, group)
        if group is not None and mode != PRIVATE_FOLDER:
            # Before the mode: a change of the group clears the set-group-ID bit.
            os.chown(folder, -1, group_id(group))
        folder.chmod(mode)


def corrections(home: Path, group: str | None) -> list[str]:
    """Return the commands that correct the owner, mode and group of paths.

    The owner of the workspace is that of its folder. Delivered files are left out, because they
    have the owner and mode of their sender. What is below a private folder cannot be reached by
    others, so that only its owner is compared.

    Parameters
    ----------
    home
        Folder of the workspace.
    group
        Its group, or None.

    Returns
    -------
    One command per path, folders before their content.

    Raises
    ------
    ConfigError
        `workspace.unknown_group`.
    """
    number = None if group is None else group_id(group)
    owner = home.stat().st_uid
    commands = []
    for path, inner, reachable in _examined(home):
        try:
            about = path.lstat()
        except FileNotFoundError:  # removed meanwhile
            continue
        mode = _mode(inner, stat.S_ISDIR(about.st_mode), group)
        place = shlex.quote(str(path))
        if about.st_uid != owner:
            commands.append(f"chown -h {_user_name(owner)} {place}")
        elif not reachable or stat.S_ISLNK(about.st_mode):  # the mode of a link has no effect
            continue
        elif about.st_mode & _BITS & ~mode or mode & stat.S_ISVTX & ~about.st_mode:
            commands.append(f"chmod {mode:o} {place}")
        elif about.st_mode & stat.S_IRWXG and about.st_gid != number:
            commands.append(f"chgrp {group} {place}")
    return commands


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@contextmanager
def open_export(path: Path) -> Iterator[IO[bytes]]:
    """Open a file outside the workspace for writing, readable by its owner only.

    It gets its name when the block ends, so that a process which opened the old file before does
    not read the new content.

    Yields
    ------
    The file, empty and open for writing.

    Raises
    ------
    StorageError
        `storage.cannot_write`; `storage.foreign_export`: a link or pipe of another user.
    """
    with storage_errors("storage.cannot_write", f"cannot write {path}"):
        target = _export_target(path)
        if target is None:
            with path.open("wb") as file:
                yield file
            return
        new = target.with_name(f".nightjar-{os.urandom(8).hex()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(new, flags, PRIVATE_FILE), "wb") as file:
                yield file
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise as `open_export` does, without a change; for the time before minutes of work.

    Raises
    ------
    StorageError
        `storage.cannot_write`, `storage.foreign_export`.
    """
    import tempfile

    with storage_errors("storage.cannot_write", f"cannot write {path}"):
        target = _export_target(path)
        if target is not None:
            tempfile.TemporaryFile(dir=target.parent).close()
        elif path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _export_target(path: Path) -> Path | None:
    """Return the file that an export replaces or creates; None for a device, pipe or folder."""
    if os.path.lexists(path):
        about = path.lstat()
        is_guide = stat.S_ISLNK(about.st_mode) or stat.S_ISFIFO(about.st_mode)
        # Links of root lead to devices, such as /dev/stdout.
        if is_guide and about.st_uid not in (0, os.geteuid()):
            raise StorageError(
                "storage.foreign_export",
                f"{path} is a link or pipe of another user; name another file",
            )
    return None if path.exists() and not path.is_file() else path.resolve()


def _modes(group: str | None) -> _Modes:
    return _OWNER_ONLY if group is None else _WITH_GROUP


def _mode(inner: PurePath, is_folder: bool, group: str | None) -> int:
    """Return the mode of a path, relative to the workspace."""
    modes = _modes(group)
    if not is_folder:
        is_vault = len(inner.parts) == 1 and inner.name.startswith(_VAULT)
        is_lock = inner.suffix == ".lock" or inner.name.startswith(".lock-")
        return PRIVATE_FILE if is_vault or is_lock else modes.file
    if str(inner) in _PRIVATE:
        return PRIVATE_FOLDER
    return modes.landing if inner.parts[:1] == (_LANDING,) else modes.folder


def _examined(home: Path) -> Iterator[tuple[Path, PurePath, bool]]:
    """Yield the paths of a workspace, also relative, and whether other users can reach them."""
    yield home, PurePath(), True
    for folder, folders, files in os.walk(home):
        inner = PurePath(folder).relative_to(home)
        if len(inner.parts) == 2 and inner.parts[0] == _LANDING:
            folders.clear()
            continue
        folders.sort()
        reachable = not {str(inner), *map(str, inner.parents)} & set(_PRIVATE)
        for name in (*folders, *sorted(files)):
            yield Path(folder, name), inner / name, reachable
