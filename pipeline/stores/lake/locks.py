"""Locks of a lake, by name: files whose locks are the kernel's, so that death frees them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConcurrencyError, LakeError
from pipeline.stores.lake.connection import words


@contextmanager
def locked(folder: Path, name: str, *, wait: bool, shared: bool) -> Iterator[None]:
    """Hold a lock, see `Lake.lock`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LakeError(f"the lock {name} cannot be made: {words(error)}") from error
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise ConcurrencyError(
                f"the lock {name} is held by process {holder}; wait for it and start again"
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
