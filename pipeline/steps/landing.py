"""Files on their way: finding them, matching them to sources, and where they go afterwards.

Promises: only files inside the workspace's landing folder are moved, and only by renaming.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pipeline.data.sources import Source
from pipeline.errors import ConfigError, DataError, StorageError

TABLES: Final = ("items", "users", "events")
_UNFINISHED: Final = (".tmp", ".part", ".crdownload")


@dataclass(frozen=True)
class Found:
    """A file and the source that reads it.

    Attributes
    ----------
    name
        The source's name in the config; the table's where none matches.
    matched
        Whether a configured source claims the file.
    """

    path: Path
    name: str
    source: Source
    matched: bool = True

    def hint(self, sentence: str) -> str:
        """Say so where the trouble may be that no source claims the file."""
        if self.matched:
            return sentence
        return (
            f"{sentence}; no source's path matches this name, so its columns were taken by their "
            "own names"
        )


@dataclass(frozen=True)
class Mark:
    """What tells a file from another one that took its name."""

    device: int
    inode: int
    size: int
    written_ns: int


def expand(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and those in folders from the oldest to the newest.

    Raises `DataError` for a path that is not there and a folder without files.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = _by_age(_files(path))
            if not inside:
                raise DataError("is a folder without files", where=str(path))
            files.extend(inside)
        elif path.exists() or path.is_symlink():
            files.append(path)
        else:
            raise DataError("is not there", where=str(path))
    return files


def source_for(
    sources: Mapping[str, Source], path: Path, table: str, wanted: str | None, name: str = ""
) -> Found:
    """Match a file to the source that it is read by.

    Of several whose pattern fits, the one that spells out most of the name wins.
    """
    if table not in TABLES:
        raise ConfigError(f"there is no table {table} to fill; it is one of {', '.join(TABLES)}")
    if wanted is not None:
        if wanted not in sources or sources[wanted].table != table:
            known = ", ".join(sorted(n for n, s in sources.items() if s.table == table))
            raise ConfigError(f"{table} have no source {wanted}; configured are {known}")
        return Found(path, wanted, sources[wanted])
    fitting = [
        (len(source.path.replace("*", "").replace("?", "")), key)
        for key, source in sources.items()
        if source.table == table and fnmatchcase(name or path.name, source.path)
    ]
    if not fitting:
        return Found(path, table, Source.model_validate({"table": table}), matched=False)
    most = max(fitting, key=lambda one: one[0])[1]
    return Found(path, most, sources[most])


def landed(home: Path, sources: Mapping[str, Source], until: datetime) -> Iterator[Found]:
    """Yield the files below landing/ that were last written until `until`.

    Items and users come before events; within a table the oldest comes first. Files whose name
    starts with a dot, or says that they are unfinished, are not looked at.
    """
    for table in TABLES:
        folder = home / "landing" / table
        for path in _by_age(_files(folder)):
            found = mark(path)
            if found is not None and found.written_ns <= until.timestamp() * 1e9:
                name = path.relative_to(folder).as_posix()
                yield source_for(sources, path, table, None, name)


def mark(path: Path) -> Mark | None:
    """Return what tells this file from another one of its name; None where it is gone."""
    try:
        about = path.lstat()
    except OSError:
        return None
    return Mark(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


def landed_at(home: Path, digests: Collection[str]) -> datetime | None:
    """Return when the oldest of some files that were taken in was written.

    ``None`` where none of them lies in the archive any more, or ever did.
    """
    folder = home / "archive"
    paths = folder.iterdir() if folder.is_dir() else ()
    found = [mark(path) for path in paths if path.name.partition(".")[0] in digests]
    written = [one.written_ns for one in found if one is not None]
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
        stem, dot, rest = path.name.partition(".")
        _move(target, path.with_name(f"{stem}-{digest[:8]}{dot}{rest}"))


def reject(home: Path, path: Path, sentence: str, seen: Mark) -> None:
    """Move a bad file, if it is still the one `seen`, out of the landing folder.

    The reason is written beside it.
    """
    if not _is_landed(home, path) or mark(path) != seen:
        return
    folder = home / "rejected"
    target = folder / path.name
    if target.exists() or target.is_symlink():
        # The same name again: the moment of its writing tells the two apart.
        moment = hashlib.sha256(f"{seen.written_ns} {path}".encode()).hexdigest()[:8]
        target = folder / f"{moment}-{path.name}"
    try:
        folder.mkdir(exist_ok=True)
        target.with_name(f"{target.name}.reason.txt").write_text(sentence + "\n", "utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from error
    _move(path, target)


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if (path.is_symlink() or not path.is_dir())
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.suffix not in _UNFINISHED
    ]


def _by_age(paths: list[Path]) -> list[Path]:
    """Sort by age; a file that is gone since it was listed is left out."""
    marks = {path: found for path in paths if (found := mark(path)) is not None}
    return sorted(marks, key=lambda path: (marks[path].written_ns, path.as_posix()))


def _is_landed(home: Path, path: Path) -> bool:
    return (home / "landing") in path.absolute().parents


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
        raise StorageError(f"cannot move {path} to {target}: {error.strerror}") from error
