"""Writes that are forced to the disk (fsync), checksums, and errors of the file system.

Guarantees: when `write_synced`, `sync` or `sync_tree` returns, the data are on the disk;
`remembered_sha256` reads a file again once its inode, its modification time or its size has
changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, TypeAlias

from pipeline.errors import StorageError

_NEXT_STEPS: Final = {
    errno.ENOENT: "correct the path, or restore the file",
    errno.ENOTDIR: "correct the path, or move that file away",
    errno.EEXIST: "correct the path, or move that file away",
    errno.EISDIR: "correct the path, or move that folder away",
    errno.ELOOP: "replace the link by a file",
    errno.EACCES: "correct the permissions",
    errno.EPERM: "correct the permissions",
    errno.EROFS: "make the file system writable",
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
}


FileState: TypeAlias = tuple[int, int, int]


@contextmanager
def storage_errors(id: str, sentence: str) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError`.

    Parameters
    ----------
    id
        Id of the error, such as ``storage.cannot_write``.
    sentence
        Message, which names the file; the system's reason and a next step are appended.

    Raises
    ------
    StorageError
        With this id.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(id, f"{sentence}: {fault_text(error)}") from error


def fault_text(error: OSError) -> str:
    """Return the system's reason in lower case, and the next step of the user."""
    reason = (error.strerror or str(error)).lower()
    return f"{reason}; {_NEXT_STEPS.get(error.errno or 0, 'check the path and the disk')}"


def write_synced(file: IO[bytes], data: bytes) -> None:
    """Write bytes and force them to the disk.

    Parameters
    ----------
    file
        Open for writing; it stays open.
    """
    file.write(data)
    # fsync only writes data that the kernel has, so Python's own buffer is flushed first.
    file.flush()
    os.fsync(file.fileno())


def sync(*paths: Path) -> None:
    """Force files and folders to the disk, one after the other.

    A new or renamed file survives a crash only once its folder is synced as well.
    """
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_SUMS: Final[dict[Path, tuple[FileState, str]]] = {}


def file_state(path: Path) -> FileState:
    """Return inode, modification time in nanoseconds and size of a file."""
    about = path.stat()
    return about.st_ino, about.st_mtime_ns, about.st_size


def remembered_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, computed once per process and `file_state`.

    For files that are written once: a pass reads the same files of the lake several times.
    """
    # Before the content: a change in between is then found by the next call.
    state = file_state(path)
    known = _SUMS.get(path)
    if known is None or known[0] != state:
        known = _SUMS[path] = state, sha256(path)
    return known[1]


def sync_tree(folder: Path, top: Path) -> None:
    """Force a folder with all that it contains to the disk.

    Parameters
    ----------
    folder
        May be missing; nothing happens then.
    top
        A folder above it. The folders between both are synced too, because they may be new.
    """
    if folder.is_dir():
        sync(*folder.rglob("*"), folder)
        above = folder.parents
        sync(*above[: above.index(top) + 1] if top in above else ())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, without reading it into memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
