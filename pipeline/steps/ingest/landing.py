"""Folders that others may write into: opening without links, and moves of files that were read.

Guarantees:

* Below the landing folder no link is followed, even if one replaces a file or folder at any moment.
* Only regular files with one name, inside the landing folder, are moved. What was moved is examined
  afterwards; if it is something else, it goes back.
* Files of this user are renamed. One that others can write, or on another file system, is copied,
  and the copy is compared with its sha256: an earlier descriptor of the sender does not reach it.
* A file that a killed pass has copied, but not removed, is removed by the next one.
* Of a file that grows, no more bytes are read than it had at the start.
* The bytes of a moved file are on the disk before it has its new name.
* Files in `archive/` and `rejected/` have names of our own: the sha256 of their bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import BinaryIO, Final

from pipeline.errors import StorageError
from pipeline.stores.disk import fault_text, storage_errors
from pipeline.workspace.permissions import PRIVATE_FILE, PRIVATE_FOLDER

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags that open a folder; with `O_NOFOLLOW`, not a link to one."""
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags that open a file; without O_NONBLOCK the open of a pipe would wait for a writer."""
MOVED: Final = ".moved-"
"""Beginning of the name of a landed file that was copied."""
_PART: Final = 1 << 20
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


def checksum(file: BinaryIO, most: int) -> str:
    """Return the sha256 of the first bytes of a file, which its sender may extend meanwhile.

    Parameters
    ----------
    file
        Open file.
    most
        Number of bytes that are read at most.

    Returns
    -------
    64 hex digits.
    """
    digest = hashlib.sha256()
    for part in _parts(file, most):
        digest.update(part)
    return digest.hexdigest()


def _parts(file: BinaryIO, most: int) -> Iterator[bytes]:
    file.seek(0)
    while most > 0 and (part := file.read(min(most, _PART))):
        most -= len(part)
        yield part


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
    about = f"{seen.inode} {seen.size} {seen.written_ns} ".encode() + os.fsencode(path)
    name = digest or hashlib.sha256(about).hexdigest()
    _move_away(home, path, seen, "rejected", name, sentence, is_sum=digest is not None)


def remove_moved(home: Path, paths: Sequence[Path], most: int) -> None:
    """Remove files named `MOVED` whose bytes are in `archive/` or `rejected/`.

    A sender can give any file such a name. Therefore only one is read that has the size of a file
    in these folders. If its bytes are others, it gets a name without `MOVED`, so that the next pass
    ingests it like any other file, and does not read it again.

    Parameters
    ----------
    home
        Folder of the workspace.
    paths
        Paths of the files.
    most
        Size in bytes above which a file is never copied.
    """
    kept = {
        (path.name.partition(".")[0], copy.size)
        for path in (
            p for name in ("archive", "rejected") if paths for p in (home / name).glob("*")
        )
        if (copy := mark(path)) is not None and copy.size <= most
    }
    sizes = {size for _, size in kept}
    for path in paths:
        inside, seen = _inside(home, path), mark(path)
        if inside is not None and seen is not None and seen.size in sizes:
            # What cannot be removed is tried again by the next pass, and harms no file.
            with suppress(OSError), open_folder(home, inside.parent) as source:
                _remove_copied(source, path.name, seen, kept)


def _remove_copied(source: int, name: str, seen: Mark, kept: Collection[tuple[str, int]]) -> None:
    if not _is_same(source, name, seen):
        return
    with os.fdopen(os.open(name, FILE, dir_fd=source), "rb") as file:
        digest = checksum(file, seen.size)
    if (digest, seen.size) not in kept:
        _move(source, name, source, _unused_name(name.removeprefix(MOVED).lstrip(".")))
    elif _is_same(source, name, seen):
        os.unlink(name, dir_fd=source)


def _move_away(
    home: Path,
    path: Path,
    seen: Mark,
    folder: str,
    digest: str,
    reason: str | None = None,
    *,
    is_sum: bool = True,
) -> None:
    """Move a file out of the landing folder, unless another one has replaced it."""
    inside, note = _inside(home, path), f"{digest}.reason.txt"
    if inside is None:
        return
    try:
        with open_folder(home, inside.parent) as source:
            if not _is_same(source, path.name, seen):
                return
            with _open_kept(home / folder) as kept:
                if reason is not None:
                    with storage_errors("storage.cannot_write", f"cannot write {home / folder}"):
                        _write_new(kept, note, reason)
                moved = _Move(source, path.name, kept, f"{digest}{_suffix(path.name)}", seen)
                if not moved.run(digest if is_sum else None) and reason is not None:
                    os.unlink(note, dir_fd=kept)
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


def _suffix(name: str) -> str:
    """Return the suffix of a file, such as ``.csv.gz``; "" for an unusual one."""
    path = PurePath(name)
    compressed = path.suffix.lower() in (".gz", ".zst")
    suffix = "".join(path.suffixes[-2:] if compressed else path.suffixes[-1:])
    return suffix if re.fullmatch(_SUFFIX, suffix) else ""


def _unused_name(name: str) -> str:
    """Return a name like that of a file which no other file has."""
    suffix = _suffix(name)
    return f"{name.removesuffix(suffix)[:50]}-{secrets.token_hex(4)}{suffix}"


def _write_new(folder: int, name: str, sentence: str) -> None:
    """Write the reason into a new file, so that nothing is written through a link."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # equal bytes were rejected before
    with _create(folder, name) as file:
        file.write(f"{sentence}\n".encode())


def _create(folder: int, name: str) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, PRIVATE_FILE, dir_fd=folder), "wb+")


@dataclass(frozen=True)
class _Move:
    """Move of a file that was read, between two open folders."""

    source: int
    name: str
    target: int
    new: str
    seen: Mark

    def run(self, digest: str | None) -> bool:
        """Move the file; False if another one replaced it, which stays under an unused name."""
        back = _unused_name(self.name)
        with os.fdopen(os.open(self.name, FILE, dir_fd=self.source), "rb") as file:
            about = os.fstat(file.fileno())
            if Mark.of(about) != self.seen:
                return False
            # Its sender may not have forced it to the disk, and the archive must survive a power
            # cut.
            os.fsync(file.fileno())
            if not self._rename(about, has_sum=digest is not None):
                self._copy(file, digest)
                # Under a new name nothing else can replace it between the check and the removal.
                hidden = f"{MOVED}{back}"
                _move(self.source, self.name, self.source, hidden)
                if not _is_same(self.source, hidden, self.seen):
                    _move(self.source, hidden, self.source, back)
                else:
                    os.unlink(hidden, dir_fd=self.source)
                return True  # the copy is that of the file that was read
        if not _is_same(self.target, self.new, self.seen):
            _move(self.target, self.new, self.source, back)
            return False
        with suppress(PermissionError):  # one without a sum keeps the mode of its sender
            os.chmod(self.new, PRIVATE_FILE, dir_fd=self.target)
        return True

    def _rename(self, about: os.stat_result, *, has_sum: bool) -> bool:
        """Rename the file; False if it must be copied."""
        others = stat.S_IWGRP | stat.S_IWOTH
        if has_sum and (about.st_uid != os.geteuid() or about.st_mode & others):
            return False
        try:
            _move(self.source, self.name, self.target, self.new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if not has_sum:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG)) from error
            return False
        return True

    def _copy(self, file: BinaryIO, digest: str | None) -> None:
        """Copy the open file, complete or not at all."""
        draft = f".{self.new}.{secrets.token_hex(4)}.part"
        try:
            with _create(self.target, draft) as copy:
                copy.writelines(_parts(file, self.seen.size))
                copy.flush()
                # The age of lists counts from the time at which the file was written.
                os.utime(copy.fileno(), ns=(self.seen.written_ns, self.seen.written_ns))
                os.fsync(copy.fileno())
                if checksum(copy, self.seen.size) != digest:
                    raise OSError(errno.EIO, "the copy differs from the file")
            _move(self.target, draft, self.target, self.new)
        except OSError:
            with suppress(OSError):
                os.unlink(draft, dir_fd=self.target)
            raise


def _move(source: int, name: str, target: int, new: str) -> None:
    """Rename a file from one open folder to another; a link is renamed, not followed."""
    os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    # A rename is durable once both folders are synced.
    os.fsync(target)
    os.fsync(source)
