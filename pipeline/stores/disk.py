"""Forced writes, checksums, and errors of the file system.

Guarantees: when `write_synced` or `sync` returns, the data are on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pipeline.errors import StorageError


@contextmanager
def storage_errors(
    problem: Literal["cannot_read", "cannot_write", "cannot_remove"], place: object
) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError`.

    Parameters
    ----------
    problem
        Second part of the error's id, and verb of its message.
    place
        File, folder or step that the message names.

    Raises
    ------
    StorageError
        ``storage.<problem>``
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"storage.{problem}", f"{problem.replace('_', ' ')} {place}: {error.strerror}"
        ) from error


def write_synced(file: IO[bytes], data: bytes) -> None:
    """Write bytes and force them to the disk.

    Parameters
    ----------
    file
        Open for writing; it stays open.
    """
    file.write(data)
    # fsync writes what the kernel holds; Python's own buffer must reach the kernel first.
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, without reading it into memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
