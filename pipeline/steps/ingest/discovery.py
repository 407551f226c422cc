"""Discovery of new files, and of the source that reads each.

Guarantees: links are not followed; an entry that is not a regular file with one name is listed as
irregular, not as a file. A folder inside `landing/` that cannot be listed is reported and hides no
other file; a missing landing folder is an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final

from pipeline.data.sources.config import Source
from pipeline.errors import ConfigError, DataError, StorageError, nearest, printable
from pipeline.steps.ingest.irregular import Irregular
from pipeline.steps.ingest.landing import FOLDER, MOVED, Mark, flaw, open_folder

TABLES: Final = ("items", "users", "events")
_STEPS: Final = {PermissionError: "grant read access", FileNotFoundError: "create it"}
"""Cause why a folder cannot be listed -> next step."""
_UNFINISHED: Final = (".tmp", ".part", ".crdownload")
_DEEPEST: Final = 16
"""Folders in folders that are listed; each level holds two handles open."""


@dataclass(frozen=True)
class DiscoveredFile:
    """A file and the source that reads it.

    Attributes
    ----------
    name
        Name of the source in the config; that of the table if no source matches.
    matched
        True if a configured source matches the file.
    """

    path: Path
    name: str
    source: Source
    matched: bool = True

    @property
    def file(self) -> str:
        """Name of the file for messages."""
        return printable(self.path.name)


def expand(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by the files in them, oldest first.

    Raises
    ------
    DataError
        `ingest.not_found`, `ingest.empty_folder`, `ingest.folder_unreadable`.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            listing = _listed(path, open_folder(path, PurePath()))
            # A user who names a folder expects all of its files to be read, so a folder that cannot
            # be listed is an error here; in `landing/` it is only reported.
            for folder, reason in listing.troubles:
                raise DataError("ingest.folder_unreadable", reason, where=printable(str(folder)))
            inside = listing.files | {path: seen for path, (_, seen) in listing.others.items()}
            if not inside:
                raise DataError(
                    "ingest.empty_folder",
                    "is a folder without files; name a folder with files",
                    where=str(path),
                )
            files.extend(map(Path, _by_age(inside)))
        # `exists` is False for a broken link, whose error must be that links are not followed.
        elif path.exists() or path.is_symlink():
            files.append(path)
        else:
            raise DataError("ingest.not_found", "does not exist; correct the path", where=str(path))
    return files


def source_for(
    sources: Mapping[str, Source], path: Path, table: str, wanted: str | None, name: str = ""
) -> DiscoveredFile:
    """Select the source that reads a file.

    Parameters
    ----------
    sources
        Configured sources by name.
    path
        Path of the file.
    table
        Table that it fills.
    wanted
        Name of the source. None selects it by its pattern; if several match, the pattern with the
        most characters besides wildcards wins.
    name
        Name that is matched, by default that of the file.

    Returns
    -------
    The file with its source; without a match one that maps columns by their own names.

    Raises
    ------
    ConfigError
        `ingest.unknown_table`, `ingest.unknown_source`.
    """
    if table not in TABLES:
        raise ConfigError(
            "ingest.unknown_table",
            f"unknown table {table}. Allowed: {', '.join(TABLES)}{nearest(table, TABLES)}",
        )
    if wanted is not None:
        if wanted not in sources or sources[wanted].table != table:
            names = sorted(n for n, s in sources.items() if s.table == table)
            known = (", ".join(names) or "none") + nearest(wanted, names)
            raise ConfigError(
                "ingest.unknown_source",
                f"unknown source {wanted} of table {table}; name a configured one ({known}), or "
                f"add [sources.{wanted}] to nightjar.toml",
            )
        return DiscoveredFile(path, wanted, sources[wanted])
    fitting = {
        key: len(source.path.replace("*", "").replace("?", ""))
        for key, source in sources.items()
        # `fnmatch` follows the rules of the operating system for upper and lower case.
        if source.table == table and fnmatchcase(name or path.name, source.path)
    }
    if not fitting:
        return DiscoveredFile(path, table, Source.model_validate({"table": table}), matched=False)
    longest = max(fitting, key=fitting.__getitem__)
    return DiscoveredFile(path, longest, sources[longest])


@dataclass(frozen=True)
class Landed:
    """Content of ``landing/<table>/``.

    Attributes
    ----------
    files
        Path of each file, and its path relative to the folder; oldest first.
    troubles
        Folders inside that cannot be listed, and the reasons.
    irregular
        What is not a regular file with one name.
    moved
        Files that a killed pass has copied away.
    younger
        Number of files that were written too recently and wait for a later pass.
    """

    table: str
    files: list[tuple[Path, str]]
    troubles: list[tuple[Path, str]]
    irregular: list[Irregular]
    moved: list[Path]
    younger: int = 0


def landed(home: Path, until: datetime) -> list[Landed]:
    """List the landed files of all tables.

    Hidden files, and names that mark unfinished ones (``.tmp``, ``.part``, ``.crdownload``), are
    ignored.

    Parameters
    ----------
    home
        Folder of the workspace.
    until
        Latest modification time, UTC; later files wait.

    Returns
    -------
    Items, users, then events.

    Raises
    ------
    StorageError
        `ingest.link`: a landing folder is a link; `ingest.folder_unreadable`: it is missing or
        cannot be listed.
    """
    tables = []
    for table in TABLES:
        folder = home / "landing" / table
        for place in (folder.parent, folder):
            # Ingested files are moved away; a link would move files from outside `landing/`.
            if place.is_symlink():
                raise StorageError(
                    "ingest.link", f"the folder {place} is a link; make it a real folder"
                )
        # Opened without links, since the folder may be replaced after the check.
        listing = _listed(folder, open_folder(home, PurePath("landing", table)))
        latest = until.timestamp() * 1e9
        whole = {p: m for p, m in listing.files.items() if m.written_ns <= latest}
        named = [(Path(path), path[len(f"{folder}/") :]) for path in _by_age(whole)]
        irregular = [
            Irregular(table + path.removeprefix(str(folder)), *about)
            for path, about in sorted(listing.others.items())
            if about[1].written_ns <= latest
        ]
        younger = len(listing.files) + len(listing.others) - len(whole) - len(irregular)
        tables.append(Landed(table, named, listing.troubles, irregular, listing.moved, younger))
    return tables


@dataclass
class _Listing:
    """Paths below a folder: files, others with the flaw, and folders that cannot be listed."""

    files: dict[str, Mark] = field(default_factory=dict)
    others: dict[str, tuple[str, Mark]] = field(default_factory=dict)
    troubles: list[tuple[Path, str]] = field(default_factory=list)
    moved: list[Path] = field(default_factory=list)


def _listed(top: Path, opened: AbstractContextManager[int]) -> _Listing:
    """List an open folder and the folders in it."""
    listing = _Listing()
    try:
        with opened as handle:
            _list(listing, handle, str(top), 0)
    except OSError as error:
        # Without an error an unreadable landing folder would look like an empty one.
        raise StorageError(
            "ingest.folder_unreadable", f"the folder {top} {_not_listed(error)}"
        ) from error
    return listing


def _list(listing: _Listing, handle: int, folder: str, depth: int) -> None:
    with os.scandir(handle) as entries:
        for entry in entries:
            # A sender writes under a hidden name and renames the complete file.
            if entry.name.startswith("."):
                if entry.name.startswith(MOVED):
                    listing.moved.append(Path(folder, entry.name))
                continue
            path = f"{folder}/{entry.name}"
            try:
                about = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(about.st_mode):
                    _list_inner(listing, handle, path, depth + 1)
                elif not entry.name.endswith(_UNFINISHED):
                    _add(listing, path, about)
            except FileNotFoundError:
                pass  # removed meanwhile
            except OSError as error:
                listing.troubles.append((Path(path), _not_listed(error)))


def _list_inner(listing: _Listing, outer: int, path: str, depth: int) -> None:
    if depth > _DEEPEST:
        reason = f"cannot be listed: more than {_DEEPEST} folders deep; move its files up"
        listing.troubles.append((Path(path), reason))
        return
    # Relative to the open folder: a folder above it may be replaced by a link meanwhile.
    handle = os.open(PurePath(path).name, FOLDER | os.O_NOFOLLOW, dir_fd=outer)
    try:
        _list(listing, handle, path, depth)
    finally:
        os.close(handle)


def _add(listing: _Listing, path: str, about: os.stat_result) -> None:
    reason = flaw(about, one_name=True)
    if reason is None:
        listing.files[path] = Mark.of(about)
    else:
        listing.others[path] = (reason, Mark.of(about))


def _not_listed(error: OSError) -> str:
    cause = (error.strerror or str(error)).lower()
    return f"cannot be listed: {cause}; {_STEPS.get(type(error), 'rename or remove it')}"


def _by_age(marks: Mapping[str, Mark]) -> list[str]:
    # Names break ties as bytes, so that the order does not depend on the locale.
    return sorted(marks, key=lambda path: (marks[path].written_ns, os.fsencode(path)))
