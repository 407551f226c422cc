"""Entries of the landing folder that are never read, and when each was reported first.

Guarantees: an entry is a problem of one pass and a warning of the later ones; another entry in its
place is reported again. A damaged or missing file only means that entries are reported again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import Final

from pipeline.base import format_instant, parse_instant
from pipeline.errors import NightjarError, printable
from pipeline.steps.ingest.landing import Mark
from pipeline.stores.disk import storage_errors, write_synced

FILE: Final = "unread.json"


@dataclass(frozen=True)
class Unread:
    """An entry that is not a regular file with one name.

    Attributes
    ----------
    path
        Its path relative to the landing folder.
    reason
        Why it is not read, from `landing.flaw`.
    """

    path: str
    reason: str
    seen: Mark

    @property
    def file(self) -> str:
        """Name of the entry for messages."""
        return printable(PurePath(self.path).name)

    @property
    def key(self) -> str:
        """Text that differs between this entry and another one in its place."""
        return f"{self.seen.inode} {self.seen.written_ns} {self.path}"

    @property
    def problem(self) -> str:
        """The sentence of the first pass, without the name."""
        return f"{self.reason}; remove it"

    def warning(self, since: datetime, at: datetime) -> str:
        """Return the sentence of a later pass.

        Parameters
        ----------
        since, at
            Instants of the first pass and of this one.
        """
        return f"{self.file}: {self.reason}, not read, for {_words(at - since)}; remove it"


def read_reported(home: Path) -> dict[str, datetime]:
    """Return key -> instant of the pass that reported the entry."""
    try:
        noted = json.loads((home / FILE).read_bytes())
        return {key: parse_instant(instant) for key, instant in noted.items()}
    except (OSError, ValueError, AttributeError, TypeError, NightjarError):
        return {}


def write_reported(home: Path, reported: Mapping[str, datetime]) -> None:
    """Store what `read_reported` returns.

    Parameters
    ----------
    home
        Folder of the workspace.
    reported
        Key -> instant of the pass that reported the entry.

    Raises
    ------
    StorageError
        `storage.cannot_write`.
    """
    path = home / FILE
    new = path.with_suffix(".new")
    noted = {key: format_instant(instant) for key, instant in reported.items()}
    with storage_errors("storage.cannot_write", f"cannot write {path}"):
        with new.open("wb") as file:
            write_synced(file, json.dumps(noted, indent=1).encode())
        new.replace(path)


def _words(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    lengths = {"day": 86_400, "hour": 3_600, "minute": 60}
    unit = next((name for name, length in lengths.items() if seconds >= length), "minute")
    count = seconds // lengths[unit]
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
