"""Files that wait: finding them, and the source that reads each.

Promises: no link is followed; a folder inside landing/ that cannot be listed is named and hides no
other file; the landing folder itself must be there.
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
_UNFINISHED: Final = (".tmp", ".part", ".crdownload")


@dataclass(frozen=True)
class DiscoveredFile:
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

    @property
    def file(self) -> str:
        """Its name, fit to be printed."""
        return printable(self.path.name)

    def hint(self, sentence: str) -> str:
        """Say so where the trouble may be that no source claims the file."""
        if self.matched:
            return sentence
        return (
            f"{sentence}; no source's path matches this name, so its columns were taken by their "
            "own names"
        )


def expand(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and those in folders from the oldest to the newest.

    Raises `DataError` for a path that is not there and a folder without files, or with one inside
    that cannot be listed.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside, troubles = _listed(path)
            for folder, trouble in troubles:
                raise DataError("ingest.folder_unreadable", trouble, where=printable(str(folder)))
            if not inside:
                raise DataError("ingest.empty_folder", "is a folder without files", where=str(path))
            files.extend(map(Path, _by_age(inside)))
        elif path.exists() or path.is_symlink():
            files.append(path)
        else:
            raise DataError("ingest.not_found", "is not there", where=str(path))
    return files


def source_for(
    sources: Mapping[str, Source], path: Path, table: str, wanted: str | None, name: str = ""
) -> DiscoveredFile:
    """Match a file to the source that it is read by.

    Of several whose pattern fits, that which spells out most of the name wins.
    """
    if table not in TABLES:
        raise ConfigError(
            "ingest.unknown_table",
            f"there is no table {table} to fill; it is one of {', '.join(TABLES)}",
        )
    if wanted is not None:
        if wanted not in sources or sources[wanted].table != table:
            known = ", ".join(sorted(n for n, s in sources.items() if s.table == table))
            raise ConfigError(
                "ingest.unknown_source", f"{table} have no source {wanted}; configured are {known}"
            )
        return DiscoveredFile(path, wanted, sources[wanted])
    fitting = [
        (len(source.path.replace("*", "").replace("?", "")), key)
        for key, source in sources.items()
        if source.table == table and fnmatchcase(name or path.name, source.path)
    ]
    if not fitting:
        return DiscoveredFile(path, table, Source.model_validate({"table": table}), matched=False)
    most = max(fitting, key=lambda pair: pair[0])[1]
    return DiscoveredFile(path, most, sources[most])


@dataclass(frozen=True)
class Landed:
    """What lies below landing/<table>/.

    Attributes
    ----------
    files
        The oldest first, the path of each in the folder beside it.
    troubles
        Folders inside that cannot be listed, and why.
    younger
        How many files were written later, and wait.
    """

    table: str
    files: list[tuple[Path, str]]
    troubles: list[tuple[Path, str]]
    younger: int = 0


def landed(home: Path, until: datetime) -> list[Landed]:
    """List what was last written until `until`: items and users come before events.

    Files whose name starts with a dot, or says that they are unfinished, are not looked at.

    Raises
    ------
    StorageError
        A landing folder is gone, is a link or cannot be read.
    """
    tables = []
    for table in TABLES:
        folder = home / "landing" / table
        for place in (folder.parent, folder):
            if place.is_symlink():
                raise StorageError(
                    "ingest.link", f"the folder {place} is a link; links are not followed"
                )
        files, troubles = _listed(folder)
        whole = {p: m for p, m in files.items() if m.written_ns <= until.timestamp() * 1e9}
        named = [(Path(path), path[len(f"{folder}/") :]) for path in _by_age(whole)]
        tables.append(Landed(table, named, troubles, len(files) - len(whole)))
    return tables


def _listed(top: Path) -> tuple[dict[str, Mark], list[tuple[Path, str]]]:
    """Return the files in a folder and in those inside it, and what of these cannot be listed.

    A file that is gone meanwhile is left out.
    """
    files: dict[str, Mark] = {}
    troubles: list[tuple[Path, str]] = []
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.name.endswith(_UNFINISHED) and (written := mark(entry.path)):
                        files[entry.path] = written
        except OSError as error:
            why = f"cannot be listed: {(error.strerror or str(error)).lower()}"
            if folder == str(top):
                raise StorageError("ingest.folder_unreadable", f"the folder {top} {why}") from error
            troubles.append((Path(folder), why))
    return files, troubles


def _by_age(marks: Mapping[str, Mark]) -> list[str]:
    return sorted(marks, key=lambda path: (marks[path].written_ns, os.fsencode(path)))
