"""Folders that others may write into: opening without links, and moves of files that were read.

Guarantees:

* Below the landing folder no link is followed, even if one replaces a file or folder at any moment.
* Only regular files with one name, inside the landing folder, are moved, by renaming, or to another
  file system by a copy that is compared. What was moved is examined afterwards; if it is something
  else, it goes back.
* A file that a killed pass has copied, but not removed, is removed by the next one.
* The bytes of a moved file are on the disk before it has its new name.
* Files in `archive/` and `rejected/` have names of our own: the sha256 of their bytes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import BinaryIO, Final, cast

from pipeline.errors import StorageError
from pipeline.stores.disk import fault_text, storage_errors
from pipeline.workspace.permissions import PRIVATE_FILE, PRIVATE_FOLDER

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags that open a folder; with `O_NOFOLLOW`, not a link to one."""
MOVED: Final = ".moved-"
"""Beginning of the name of a landed file that was copied to another file system."""
_SUFFIX: Final = r"(\.[A-Za-z0-9]{1,16}){1,2}"
_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of opening a path of which a part was removed, or replaced by a link."""


@dataclass(frozen=True)
class Mark:
    """Properties that differ between a file and another one that replaced it."""

    device: int
    inode: int
    size: int
    written_ns: int

    @classmethod
    def of(cls, about: os.stat_result) -> Mark:
        """Return the mark of a file from its properties."""
        return cls(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


def mark(path: Path | str) -> Mark | None:
    """Return the mark of a file; None if it is gone."""
    try:
        return Mark.of(os.lstat(path))  # of a link itself, not of its target
    except OSError:
        return None


def flaw(about: os.stat_result, *, one_name: bool) -> str | None:
    """Return why a file is not read.

    Parameters
    ----------
    about
        Properties of the file itself, not of a link's target.
    one_name
        False accepts a file with several names.

    Returns
    -------
    The reason; None for a regular file.
    """
    if stat.S_ISLNK(about.st_mode):
        return "is a link"
    if stat.S_ISFIFO(about.st_mode):
        return "is a named pipe"
    if stat.S_ISSOCK(about.st_mode):
        return "is a socket"
    if not stat.S_ISREG(about.st_mode):
        return "is a folder" if stat.S_ISDIR(about.st_mode) else "is a device"
    # Another name of a file may lie in a folder that its sender cannot read, such as `secrets/`.
    if one_name and about.st_nlink > 1:
        return "has several names (hard links)"
    return None


@contextmanager
def open_folder(home: Path, inner: PurePath) -> Iterator[int]:
    """Open a folder of the workspace.

    Parameters
    ----------
    home
        Folder of the workspace, which may be reached by links.
    inner
        Path of the folder in it; a link in this path is an `OSError`.

    Yields
    ------
    Handle of the folder, closed at the end of the block.
    """
    handle = os.open(home, FOLDER)
    try:
        for part in inner.parts:
            outer, handle = handle, os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=handle)
            os.close(outer)
        yield handle
    finally:
        os.close(handle)


def landed_at(home: Path, digests: Collection[str]) -> datetime | None:
    """Return the time at which the oldest of some ingested files was written.

    Parameters
    ----------
    home
        Folder of the workspace.
    digests
        sha256 of the files.

    Returns
    -------
    Modification time in UTC; ``None`` if none of the files is in the archive.
    """
    folder = home / "archive"
    paths = folder.iterdir() if folder.is_dir() else ()
    marks = [mark(path) for path in paths if path.name.partition(".")[0] in digests]
    written = [seen.written_ns for seen in marks if seen is not None]
    return datetime.fromtimestamp(min(written) / 1e9, UTC) if written else None


def archive(home: Path, path: Path, digest: str, seen: Mark) -> None:
    """Move an ingested file from the landing folder to the archive, named by its sha256.

    A file that replaced it in the meantime stays for the next pass.

    Parameters
    ----------
    home
        Folder of the workspace.
    path
        Path of the file.
    digest
        sha256 of its bytes.
    seen
        Its mark before it was read.
    """
    _move_away(home, path, seen, "archive", digest)


def reject(home: Path, path: Path, sentence: str, digest: str | None, seen: Mark) -> None:
    """Move an invalid file from the landing folder to `rejected/`, the reason beside it.

    Parameters
    ----------
    home
        Folder of the workspace.
    path
        Path of the file.
    sentence
        The reason, which begins with the name of the file.
    digest
        sha256 of its bytes; None if they are too many to be read.
    seen
        Mark of the file before it was read; a file that replaced it stays.

    Raises
    ------
    StorageError
        `storage.cannot_write`: the reason cannot be written.
    """
    if digest is None:
        about = f"{seen.inode} {seen.size} {seen.written_ns} ".encode()
        digest = hashlib.sha256(about + os.fsencode(path)).hexdigest()
    _move_away(home, path, seen, "rejected", digest, reason=sentence)


def remove_moved(home: Path, path: Path) -> None:
    """Remove a file named `MOVED` whose bytes are in `archive/` or `rejected/`.

    Parameters
    ----------
    home
        Folder of the workspace.
    path
        Path of the file.
    """
    inside, seen = _inside(home, path), mark(path)
    if inside is None or seen is None:
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    # What cannot be removed is tried again by the next pass, and harms no file.
    with suppress(OSError), open_folder(home, inside.parent) as source:
        if not _is_same(source, path.name, seen):
            return
        with os.fdopen(os.open(path.name, flags, dir_fd=source), "rb") as file:
            digest = _sum(file)
        kept = [p for name in ("archive", "rejected") for p in (home / name).glob(f"{digest}*")]
        copies = [copy for place in kept if (copy := mark(place)) is not None]
        if any(c.size == seen.size for c in copies) and _is_same(source, path.name, seen):
            os.unlink(path.name, dir_fd=source)


def _move_away(
    home: Path, path: Path, seen: Mark, folder: str, digest: str, reason: str | None = None
) -> None:
    """Move a file out of the landing folder, unless another one has replaced it."""
    inside, suffix, note = _inside(home, path), _suffix(path), f"{digest}.reason.txt"
    if inside is None:
        return
    new = f"{digest}{suffix}"
    try:
        with open_folder(home, inside.parent) as source:
            if not _is_same(source, path.name, seen):
                return
            with _open_kept(home / folder) as kept:
                if reason is not None:
                    with storage_errors("storage.cannot_write", f"cannot write {home / folder}"):
                        _write_new(kept, note, reason)
                # A name that no file has, for one that replaced the file meanwhile.
                back = f"{path.name.removesuffix(suffix)[:50]}-{secrets.token_hex(4)}{suffix}"
                if not _move_same(source, path.name, kept, new, seen, back):
                    if reason is not None:
                        os.unlink(note, dir_fd=kept)
                    return
                # A file of another user keeps its mode; the folder protects it.
                with suppress(PermissionError):
                    os.chmod(new, PRIVATE_FILE, dir_fd=kept)
    except OSError as error:
        if error.errno not in _REPLACED:
            raise StorageError(
                "storage.cannot_move",
                f"cannot move {path} to {home / folder}: {fault_text(error)}",
            ) from error


@contextmanager
def _open_kept(folder: Path) -> Iterator[int]:
    with storage_errors("storage.cannot_write", f"cannot write {folder}"):
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
        handle = os.open(folder, FOLDER)
    try:
        yield handle
    finally:
        os.close(handle)


def _inside(home: Path, path: Path) -> PurePath | None:
    """Return the path of a landed file in the workspace, without links; None for other files."""
    place, root = path.parent.resolve() / path.name, home.resolve()
    return place.relative_to(root) if root / "landing" in place.parents else None


def _is_same(folder: int, name: str, seen: Mark) -> bool:
    about = os.lstat(name, dir_fd=folder)
    return Mark.of(about) == seen and flaw(about, one_name=True) is None


def _suffix(path: Path) -> str:
    """Return the suffix of a file, such as ``.csv.gz``; "" for an unusual one."""
    compressed = path.suffix.lower() in (".gz", ".zst")
    suffix = "".join(path.suffixes[-2:] if compressed else path.suffixes[-1:])
    return suffix if re.fullmatch(_SUFFIX, suffix) else ""


def _write_new(folder: int, name: str, sentence: str) -> None:
    """Write the reason into a new file, so that nothing is written through a link."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # equal bytes were rejected before
    with _create(folder, name) as file:
        file.write(f"{sentence}\n".encode())


def _create(folder: int, name: str) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, PRIVATE_FILE, dir_fd=folder), "wb+")


def _move_same(source: int, name: str, target: int, new: str, seen: Mark, back: str) -> bool:
    """Move a file that was read; False if another one replaced it, which gets the name `back`."""
    # Without O_NONBLOCK the open of a pipe that replaced it would wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=source), "rb") as file:
        if Mark.of(os.fstat(file.fileno())) != seen:
            return False
        # Its sender may not have forced it to the disk, and the archive must survive a power cut.
        os.fsync(file.fileno())
        try:
            _move(source, name, target, new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(file, target, new, seen)
            # Under a new name nothing else can replace it between the check and the removal.
            target, new = source, f"{MOVED}{secrets.token_hex(8)}"
            _move(source, name, target, new)
            if _is_same(target, new, seen):
                os.unlink(new, dir_fd=target)
                return True
    if _is_same(target, new, seen):
        return True
    _move(target, new, source, back)
    return target == source  # the copy is that of the file that was read


def _copy(file: BinaryIO, target: int, new: str, seen: Mark) -> None:
    """Copy an open file into a folder of another file system, complete or not at all."""
    draft = f".{new}.{secrets.token_hex(4)}.part"
    try:
        with _create(target, draft) as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            # The age of lists counts from the time at which the file was written.
            os.utime(copy.fileno(), ns=(seen.written_ns, seen.written_ns))
            os.fsync(copy.fileno())
            if _sum(file) != _sum(copy) or Mark.of(os.fstat(file.fileno())) != seen:
                raise OSError(errno.EIO, "the copy differs from the file")
        _move(target, draft, target, new)
    except OSError:
        with suppress(OSError):
            os.unlink(draft, dir_fd=target)
        raise


def _sum(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


def _move(source: int, name: str, target: int, new: str) -> None:
    """Rename a file from one open folder to another; a link is renamed, not followed."""
    os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    # A rename is durable once both folders are synced.
    os.fsync(target)
    os.fsync(source)
