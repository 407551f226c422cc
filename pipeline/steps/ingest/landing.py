"""Where files go that were read: into the archive, or set aside with the reason beside them.

Promises: only files inside the workspace's landing folder are moved, and only by renaming.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError

_LONGEST: Final = 200
"""Bytes of a name that leave room for what is put before and behind it."""


@dataclass(frozen=True)
class Mark:
    """What tells a file from another one that took its name."""

    device: int
    inode: int
    size: int
    written_ns: int


def printable(text: str) -> str:
    """Write what cannot be printed, such as line feeds or bytes that are no UTF-8, as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def mark(path: Path | str) -> Mark | None:
    """Return what tells this file from another one of its name; None where it is gone."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    return Mark(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


def landed_at(home: Path, digests: Collection[str]) -> datetime | None:
    """Return when the oldest of some files that were taken in was written.

    ``None`` where none of them lies in the archive any more, or ever did.
    """
    folder = home / "archive"
    paths = folder.iterdir() if folder.is_dir() else ()
    marks = [mark(path) for path in paths if path.name.partition(".")[0] in digests]
    written = [seen.written_ns for seen in marks if seen is not None]
    return datetime.fromtimestamp(min(written) / 1e9, UTC) if written else None


def archive(home: Path, path: Path, digest: str, seen: Mark) -> None:
    """Move a file that was taken in out of the landing folder, under the sum of its bytes.

    One that took its place since it was `seen` stays, for the next pass.
    """
    if not _is_landed(home, path) or mark(path) != seen:
        return
    suffixes = path.suffixes[-2:] if path.suffix in (".gz", ".zst") else path.suffixes[-1:]
    target = home / "archive" / (digest + "".join(suffixes))
    _move(path, target)
    if mark(target) != seen:  # replaced between the look and the move
        stem = path.name.removesuffix("".join(suffixes))[: _LONGEST // 4]
        _move(target, path.with_name(f"{stem}-{digest[:8]}{''.join(suffixes)}"))


def reject(home: Path, path: Path, sentence: str, seen: Mark) -> None:
    """Move a bad file, if it is still the one `seen`, out of the landing folder.

    The reason is written beside it.
    """
    if not _is_landed(home, path) or mark(path) != seen:
        return
    folder = home / "rejected"
    target = folder / path.name
    if os.path.lexists(target) or len(os.fsencode(path.name)) > _LONGEST:
        # The same name again: the moment of its writing tells the two apart.
        moment = hashlib.sha256(f"{seen.written_ns} ".encode() + os.fsencode(path)).hexdigest()[:8]
        target = folder / f"{moment}-{path.name[-_LONGEST // 4 :]}"
    try:
        folder.mkdir(exist_ok=True)
        target.with_name(f"{target.name}.reason.txt").write_text(sentence + "\n", "utf-8")
    except OSError as error:
        raise StorageError(
            "storage.cannot_write", f"cannot write {folder}: {error.strerror}"
        ) from error
    _move(path, target)


def _is_landed(home: Path, path: Path) -> bool:
    """Whether a file really lies there: a folder on the way may be a link to somewhere else."""
    return (home.resolve() / "landing") in (path.parent.resolve() / path.name).parents


def _move(path: Path, target: Path) -> None:
    try:
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        for folder in (target.parent, path.parent):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        what = f"cannot move {printable(str(path))} to {printable(str(target))}"
        raise StorageError("storage.cannot_move", f"{what}: {error.strerror}") from error
