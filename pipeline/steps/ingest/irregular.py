"""Entries of the landing folder that stay there, and when each was reported first.

They are entries that are never read, and files that wait for another config.

Guarantees: an entry is a problem of one pass and a warning of the later ones; another entry in its
place, and a file that waits for another reason, is reported again. A damaged or missing file only
means that entries are reported again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import Final

from pydantic import TypeAdapter

from pipeline.base import Instant
from pipeline.errors import NightjarError, printable
from pipeline.steps.ingest.landing import Mark
from pipeline.stores.disk import storage_errors, write_synced

FILE: Final = "irregular.json"
_REPORTED: Final = TypeAdapter(dict[str, Instant])


@dataclass(frozen=True)
class Irregular:
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
        # Names may be bytes outside UTF-8, which JSON cannot hold.
        return printable(f"{self.seen.inode} {self.seen.written_ns} {self.path}")

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
        return f"{self.file}: {self.reason}, not read, for {age_text(at - since)}; remove it"


def read_reported(home: Path) -> dict[str, datetime]:
    """Return key -> instant of the pass that reported the entry."""
    try:
        return _REPORTED.validate_json((home / FILE).read_bytes())
    except (OSError, ValueError, NightjarError):
        return {}


def write_reported(home: Path, reported: Mapping[str, datetime]) -> None:
    """Store the result of `read_reported`.

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
    with storage_errors("storage.cannot_write", f"cannot write {path}"):
        with new.open("wb") as file:
            write_synced(file, _REPORTED.dump_json(dict(reported), indent=1))
        new.replace(path)


def age_text(age: timedelta) -> str:
    """Return an age in its largest whole unit: ``3 hours``."""
    seconds = max(0, int(age.total_seconds()))
    lengths = {"day": 86_400, "hour": 3_600, "minute": 60}
    unit = next((name for name, length in lengths.items() if seconds >= length), "minute")
    count = seconds // lengths[unit]
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
