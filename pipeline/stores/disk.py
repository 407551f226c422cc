"""Writes that are forced to the disk (fsync), checksums, and errors of the file system.

Guarantees: when `write_synced` or `sync` returns, the data are on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import StorageError


@contextmanager
def storage_errors(id: str, sentence: str) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError`.

    Parameters
    ----------
    id
        Id of the error, such as ``storage.cannot_write``.
    sentence
        Message, which names the file; the system's reason is appended.

    Raises
    ------
    StorageError
        With this id.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(id, f"{sentence}: {error.strerror}") from error


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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, without reading it into memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
