"""Locks on files.

Guarantees: the kernel holds the lock, so it is free as soon as its process has ended. Only the
owner of the file can take it, since a user who may open a file can hold its lock for ever.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import ConcurrencyError
from pipeline.stores.disk import storage_errors


@contextmanager
def locked(path: Path, name: str, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock on a file, which is created if it is missing.

    Parameters
    ----------
    path
        The file; it contains the id of the process that last took the lock.
    name
        Name of the lock in messages.
    wait
        Wait until the lock is free; only for work that takes seconds.
    shared
        Hold the lock together with other processes that share it.

    Raises
    ------
    ConcurrencyError
        ``lock.held``: another process holds the lock, and `wait` is not set.
    StorageError
        ``storage.cannot_write``
    """
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with ExitStack() as stack:
        with storage_errors("storage.cannot_write", f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab+", buffering=0, opener=_private))
            try:
                fcntl.flock(file, kind)
            except BlockingIOError:
                # Opened for appending: reading starts at the end without this.
                file.seek(0)
                holder = file.read(32).decode(errors="replace").strip() or "unknown"
                raise ConcurrencyError(
                    "lock.held", f"{name} is held by process {holder}; wait for it and start again"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
