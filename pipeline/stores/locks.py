"""Locks on files.

Guarantees: the kernel holds the lock, so it is free as soon as its process has ended. Only the
owner of the file can take it, since a user who may open a file can hold its lock for ever. A
process that waits for a lock logs the holder after five seconds, and does not wait without end.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import structlog
from pydantic import Field

from pipeline.base import Frozen
from pipeline.errors import ConcurrencyError
from pipeline.stores.disk import storage_errors

_LOGGED_AFTER: Final = 5.0
_POLL_SECONDS: Final = 0.05


class LocksConfig(Frozen):
    """Waiting for other processes."""

    wait_seconds: int = Field(
        default=600,
        ge=1,
        description="Seconds after which a command that waits for a lock ends with exit code 6. It "
        "waits for work that takes seconds, such as a publication; of two nightly runs or two "
        "ingests the second one never waits.",
    )


@contextmanager
def locked(
    path: Path, name: str, *, wait_seconds: float = 0, shared: bool = False
) -> Iterator[None]:
    """Hold the lock on a file, which is created if it is missing.

    Parameters
    ----------
    path
        The file; it contains the id of the process that last took the lock.
    name
        Name of the lock in messages.
    wait_seconds
        Time to wait until the lock is free; only for work that takes seconds.
    shared
        Hold the lock together with other processes that share it.

    Raises
    ------
    ConcurrencyError
        ``lock.held``: another process holds the lock, also after the time to wait.
    StorageError
        ``storage.cannot_write``
    """
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    with ExitStack() as stack:
        with storage_errors("storage.cannot_write", f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab+", buffering=0, opener=_private))
            _acquire(file, kind, name, wait_seconds)
            # On a full disk the lock holds without the id, and `gc` can free space.
            with suppress(OSError):
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
        yield


def _acquire(file: IO[bytes], kind: int, name: str, wait_seconds: float) -> None:
    start, logged = time.monotonic(), False
    while True:
        try:
            return fcntl.flock(file, kind)
        except BlockingIOError:
            waited, holder = time.monotonic() - start, _holder(file)
            if waited >= wait_seconds:
                after = f" for more than {wait_seconds:,.0f} seconds" if wait_seconds else ""
                raise ConcurrencyError(
                    "lock.held",
                    f"{name} is held by process {holder}{after}; wait for it and start again",
                ) from None
        # Without a configuration structlog would print to stdout, which is for results.
        if waited >= _LOGGED_AFTER and not logged and structlog.is_configured():
            logged = True
            log = structlog.get_logger("nightjar")
            log.warning("waiting_for_lock", lock=name, holder=holder)
        time.sleep(_POLL_SECONDS)


def _holder(file: IO[bytes]) -> str:
    # Opened for appending: reading starts at the end without this.
    file.seek(0)
    return file.read(32).decode(errors="replace").strip() or "unknown"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
