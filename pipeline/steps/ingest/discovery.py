"""Discovery of new files, and of the source that reads each.

Guarantees: links are not followed. A folder inside `landing/` that cannot be listed is reported and
hides no other file; a missing landing folder is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pipeline.data.sources.config import Source
from pipeline.errors import ConfigError, DataError, StorageError
from pipeline.steps.ingest.landing import Mark, mark, printable

TABLES: Final = ("items", "users", "events")
_STEPS: Final = {PermissionError: "grant read access", FileNotFoundError: "create it"}
"""Cause why a folder cannot be listed -> next step."""
_UNFINISHED: Final = (".tmp", ".part", ".crdownload")


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
            inside, troubles = _listed(path)
            # A user who names a folder expects all of its files to be read, so a folder that cannot
            # be listed is an error here; in `landing/` it is only reported.
            for folder, reason in troubles:
                raise DataError("ingest.folder_unreadable", reason, where=printable(str(folder)))
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
            f"unknown table {table}. Allowed: {', '.join(TABLES)}",
        )
    if wanted is not None:
        if wanted not in sources or sources[wanted].table != table:
            known = ", ".join(sorted(n for n, s in sources.items() if s.table == table)) or "none"
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
    younger
        Number of files that were written too recently and wait for a later pass.
    """

    table: str
    files: list[tuple[Path, str]]
    troubles: list[tuple[Path, str]]
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
        files, troubles = _listed(folder)
        whole = {p: m for p, m in files.items() if m.written_ns <= until.timestamp() * 1e9}
        named = [(Path(path), path[len(f"{folder}/") :]) for path in _by_age(whole)]
        tables.append(Landed(table, named, troubles, len(files) - len(whole)))
    return tables


def _listed(top: Path) -> tuple[dict[str, Mark], list[tuple[Path, str]]]:
    """Return the files below a folder, and the inner folders that cannot be listed."""
    files: dict[str, Mark] = {}
    troubles: list[tuple[Path, str]] = []
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # A sender writes under a hidden name and renames the complete file.
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    # A file that is removed meanwhile has no mark.
                    elif not entry.name.endswith(_UNFINISHED) and (written := mark(entry.path)):
                        files[entry.path] = written
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            step = _STEPS.get(type(error), "rename or remove it")
            reason = f"cannot be listed: {cause}; {step}"
            # Without an error an unreadable landing folder would look like an empty one.
            if folder == str(top):
                raise StorageError(
                    "ingest.folder_unreadable", f"the folder {top} {reason}"
                ) from error
            troubles.append((Path(folder), reason))
    return files, troubles


def _by_age(marks: Mapping[str, Mark]) -> list[str]:
    # Names break ties as bytes, so that the order does not depend on the locale.
    return sorted(marks, key=lambda path: (marks[path].written_ns, os.fsencode(path)))
