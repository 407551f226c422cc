"""The promotion ledger: one JSON line per decision and publication, append-only and hash-chained.

Guarantees:

* A line is written completely or not at all.
* A key is written once, so a retry adds nothing.
* Each line carries the SHA-256 of the previous one, so a changed or removed line is detected. Lines
  that are missing at the end are not: `publications` in the lake holds the `head` for that.
* No line contains a user id.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError
from pipeline.stores.disk import FileState, file_state, storage_errors, write_synced
from pipeline.stores.locks import LocksConfig, locked

_START = "0" * 64


class Ledger:
    """One JSON object per line: ``key``, ``type``, further fields, ``previous``, ``sha256``."""

    def __init__(self, path: Path, wait_seconds: float = LocksConfig().wait_seconds) -> None:
        self.path = path
        self._wait_seconds = wait_seconds
        self._known: tuple[FileState, tuple[dict[str, Any], ...]] | None = None

    def entries(self) -> tuple[dict[str, Any], ...]:
        """Return all lines, oldest first, after checking the chain.

        Raises
        ------
        StorageError
            ``ledger.damaged``, ``ledger.chain_broken``, ``storage.cannot_read``
        """
        with storage_errors("storage.cannot_read", f"cannot read {self.path}"):
            if not self.path.exists():
                return ()
            state = file_state(self.path)
            if self._known is None or self._known[0] != state:
                self._known = state, self._parse(self.path.read_bytes())
        return self._known[1]

    def head(self) -> tuple[int, str]:
        """Return the number of lines and the SHA-256 of the last one."""
        entries = self.entries()
        return len(entries), entries[-1]["sha256"] if entries else _START

    def _parse(self, data: bytes) -> tuple[dict[str, Any], ...]:
        entries: list[dict[str, Any]] = []
        previous = _START
        for number, line in enumerate(_complete(data), start=1):
            try:
                entry = json.loads(line)
                claimed = entry.pop("sha256")
                # A key and a type, because every reader of an entry needs them.
                holds = (entry["previous"], _sum(entry)) == (previous, claimed)
                holds = holds and {"key", "type"} <= entry.keys()
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise StorageError(
                    "ledger.damaged",
                    f"{self.path} line {number} is not a ledger entry; restore the file "
                    "from a backup",
                ) from error
            if not holds:
                raise StorageError(
                    "ledger.chain_broken",
                    f"{self.path} line {number} breaks the checksum chain; restore the "
                    "file from a backup",
                )
            previous = claimed
            entries.append({**entry, "sha256": claimed})
        return tuple(entries)

    def append(self, key: str, type_: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Append a line unless its key exists.

        Parameters
        ----------
        key
            Unique name of the entry.
        type_
            Discriminator of the entry's fields.
        fields
            JSON values.

        Returns
        -------
        dict
            The new line, or the existing line with this key.
        """
        lock = self.path.with_suffix(".lock")
        with locked(lock, "the ledger", wait_seconds=self._wait_seconds):
            entries = self.entries()
            for entry in entries:
                if entry["key"] == key:
                    return entry
            previous = entries[-1]["sha256"] if entries else _START
            entry = {**fields, "key": key, "type": type_, "previous": previous}
            entry["sha256"] = _sum(entry)
            self._write(_line(entry))
            return entry

    def _write(self, line: bytes) -> None:
        with storage_errors("storage.cannot_write", f"cannot write {self.path}"):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            with os.fdopen(handle, "rb+") as file:
                data = file.read()
                kept = b"".join(line + b"\n" for line in _complete(data))
                # A line that a crash cut is overwritten; a complete one gets its newline.
                file.truncate(min(len(data), len(kept)))
                file.seek(0, os.SEEK_END)
                write_synced(file, kept[len(data) :] + line + b"\n")


def _complete(data: bytes) -> list[bytes]:
    """Return the lines without the last one if a crash cut it: it was never acknowledged."""
    *lines, rest = data.split(b"\n")
    try:
        json.JSONDecoder().raw_decode(rest.decode(errors="replace"))
    except ValueError:
        return lines
    # A whole entry, whose newline is missing or is another character now.
    return [*lines, rest]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()


def _sum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()
