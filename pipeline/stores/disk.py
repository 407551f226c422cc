"""Forced writes, checksums, and failures of the file system as `StorageError`."""

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
    """Turn an `OSError` into a `StorageError` that names the place."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"storage.{problem}", f"{problem.replace('_', ' ')} {place}: {error.strerror}"
        ) from error


def write_synced(file: IO[bytes], data: bytes) -> None:
    """Write bytes to an open file and force them to the disk."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def sync(*paths: Path) -> None:
    """Force files and folders to the disk, one after the other."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    """Return the sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
