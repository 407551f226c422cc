"""Writes that are forced to the disk (fsync), checksums, and errors of the machine.

Guarantees: when `write_synced`, `sync` or `sync_tree` returns, the data are on the disk;
`remembered_sha256` reads a file again once its inode, its times or its size have changed. A full
disk, missing permissions, an unreadable disk and exhausted memory are recognised in the errors of
every library, Rust panics included.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Final, TypeAlias

from pipeline.errors import NightjarError, ResourceError, StorageError

_FREE: Final = "free disk space or inodes (`df -h` and `df -i` show both)"
_NEXT_STEPS: Final = {
    errno.ENOENT: "correct the path, or restore the file",
    errno.ENOTDIR: "correct the path, or move that file away",
    errno.EEXIST: "correct the path, or move that file away",
    errno.EISDIR: "correct the path, or move that folder away",
    errno.ELOOP: "replace the link by a file",
    errno.EACCES: "correct the permissions",
    errno.EPERM: "correct the permissions",
    errno.EROFS: "make the file system writable",
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`)",
    errno.EIO: "check the disk, then start again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "close other programs",
}
_MACHINE: Final = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO),
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
"""Errors that have their cause outside the program, whatever it was doing."""
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
# Libraries pass on the text of the system, or have their own: SQLite, Python, the loader.
_TEXTS: Final = {os.strerror(code).lower(): code for code in _MACHINE} | {
    "database or disk is full": errno.ENOSPC,
    "readonly database": errno.EROFS,
    "disk i/o error": errno.EIO,
    "can't start new thread": errno.ENOMEM,
    "failed to map segment from shared object": errno.ENOMEM,
}


FileState: TypeAlias = tuple[int, int, int, int]
"""Result of `file_state`."""


@contextmanager
def storage_errors(id: str, sentence: str) -> Iterator[None]:
    """Turn an `OSError`, or an error that one caused, into a `StorageError`.

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
    except NightjarError:
        raise
    except BaseException as error:
        failed = is_failure(error) and machine_error(error) is not None
        if failed or isinstance(error, OSError):
            raise StorageError(id, f"{sentence}: {fault_text(error)}") from error
        raise


def is_panic(error: BaseException) -> bool:
    """Return whether a Rust library panicked; it is not an `Exception`, nor can it be imported."""
    return type(error).__name__ == "PanicException"


def is_failure(error: BaseException) -> bool:
    """Return whether an exception reports a failure; one that stops the program does not."""
    return isinstance(error, Exception) or is_panic(error)


def fault_text(error: BaseException, folder: Path | None = None) -> str:
    """Return the system's reason in lower case, and the next step of the user.

    Parameters
    ----------
    error
        Error of the system or of a library.
    folder
        Folder that was written; if its file system is full, that is the reason of an error that
        names none.
    """
    code = _code(error, folder)
    if code is None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"{lines[0][:300].lower()}; check the path and the disk"
    return f"{os.strerror(code).lower()}; {_NEXT_STEPS.get(code, 'check the path and the disk')}"


def machine_error(error: BaseException, folder: Path | None = None) -> int | None:
    """Return the errno of a full disk, missing permissions and the like behind an error.

    Parameters
    ----------
    error, folder
        As in `fault_text`.

    Returns
    -------
    None if the machine is not the cause.
    """
    code = _code(error, folder)
    return code if code in _MACHINE else None


def expected_failure(error: BaseException) -> NightjarError | None:
    """Return the failure to report for an exception that no store has turned into one.

    Returns
    -------
    The exception itself if it is a `NightjarError`; ``memory.exhausted`` or ``storage.failed`` if
    the machine is the cause; None for a bug.
    """
    if isinstance(error, NightjarError):
        return error
    if not is_failure(error):
        return None
    code = machine_error(error)
    # Extension modules raise a SystemError if an allocation failed without an exception.
    if isinstance(error, (MemoryError, SystemError)) or code == errno.ENOMEM:
        return ResourceError(
            "memory.exhausted",
            "the memory of this process is exhausted; raise its limit (`ulimit -v`, or that of its "
            "container), end other programs, or configure smaller recipes",
        )
    if code is None:
        return None
    name = getattr(error, "filename", None)
    place = "the workspace" if name is None else os.fsdecode(name)
    return StorageError("storage.failed", f"cannot use {place}: {fault_text(error)}")


def _code(error: BaseException, folder: Path | None = None) -> int | None:
    """Return the errno of an error or of one of its causes, by its field or its text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno
        text = str(cause)
        if match := _OS_ERROR.search(text):
            return int(match[1])
        for known, code in _TEXTS.items():
            if known in text.lower():
                return code
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return errno.ENOSPC if folder is not None and _is_full(folder) else None


def _is_full(folder: Path) -> bool:
    """Return whether the file system of a folder has no free space or no free inode."""
    try:
        about = os.statvfs(folder)
    except OSError:
        return False
    # Some file systems create inodes as needed, and report none at all.
    return about.f_bavail == 0 or (about.f_files > 0 and about.f_favail == 0)


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


_SUMS: Final[dict[Path, tuple[FileState, str]]] = {}


def file_state(path: Path) -> FileState:
    """Return inode, modification and change time in nanoseconds, and size of a file."""
    about = path.stat()
    # The change time as well: the modification time can be set, for instance by a restored backup.
    return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size


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


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; an `OSError` for a folder, pipe, socket or device."""
    # Without O_NONBLOCK the open of a pipe would wait for a writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file")
    return file


def read_regular(path: Path) -> bytes:
    """Return the content of a file; an `OSError` as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex, without reading it into memory as a whole."""
    import hashlib

    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
