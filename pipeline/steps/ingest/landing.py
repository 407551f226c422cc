"""Moves of files that were read: to the archive, or to `rejected/` with the reason beside them.

Guarantees: only files inside the landing folder of the workspace are moved, and only by renaming.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pipeline.stores.disk import storage_errors, sync

_LONGEST: Final = 200
"""Bytes of a file name that leave room for a prefix and a suffix (Linux allows 255)."""


@dataclass(frozen=True)
class Mark:
    """Properties that differ between a file and another one that replaced it."""

    device: int
    inode: int
    size: int
    written_ns: int


def printable(text: str) -> str:
    """Escape characters that are not printable, such as line feeds or bytes outside UTF-8."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def mark(path: Path | str) -> Mark | None:
    """Return the mark of a file; None if it is gone."""
    try:
        about = os.lstat(path)  # of a link itself, not of its target
    except OSError:
        return None
    return Mark(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


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
    if not _is_landed(home, path) or mark(path) != seen:
        return
    suffixes = path.suffixes[-2:] if path.suffix in (".gz", ".zst") else path.suffixes[-1:]
    target = home / "archive" / (digest + "".join(suffixes))
    _move(path, target)
    if mark(target) != seen:  # replaced between the check and the move: it goes back
        stem = path.name.removesuffix("".join(suffixes))[: _LONGEST // 4]
        _move(target, path.with_name(f"{stem}-{digest[:8]}{''.join(suffixes)}"))


def reject(home: Path, path: Path, sentence: str, seen: Mark) -> None:
    """Move an invalid file from the landing folder to `rejected/`, the reason beside it.

    Parameters
    ----------
    home
        Folder of the workspace.
    path
        Path of the file.
    sentence
        The reason.
    seen
        Mark of the file before it was read; a file that replaced it stays.

    Raises
    ------
    StorageError
        `storage.cannot_write`: the reason cannot be written.
    """
    if not _is_landed(home, path) or mark(path) != seen:
        return
    folder = home / "rejected"
    target = folder / path.name
    if os.path.lexists(target) or len(os.fsencode(path.name)) > _LONGEST:
        # A file of this name was rejected before: the hash covers the modification time.
        moment = hashlib.sha256(f"{seen.written_ns} ".encode() + os.fsencode(path)).hexdigest()[:8]
        target = folder / f"{moment}-{path.name[-_LONGEST // 4 :]}"
    with storage_errors("storage.cannot_write", f"cannot write {folder}"):
        folder.mkdir(exist_ok=True)
        target.with_name(f"{target.name}.reason.txt").write_text(sentence + "\n", "utf-8")
    _move(path, target)


def _is_landed(home: Path, path: Path) -> bool:
    """Return True if a file lies in the landing folder once links on its path are resolved."""
    return (home.resolve() / "landing") in (path.parent.resolve() / path.name).parents


def _move(path: Path, target: Path) -> None:
    move = f"{printable(str(path))} to {printable(str(target))}"
    with storage_errors("storage.cannot_move", f"cannot move {move}"):
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        # A rename is durable once both folders are synced.
        sync(target.parent, path.parent)
