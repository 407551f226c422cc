"""The promotion ledger: one JSON line per decision and publication, append-only and hash-chained.

Guarantees:

* A line is written completely or not at all.
* A key is written once, so a retry adds nothing.
* Each line carries the SHA-256 of the previous one, so a changed or removed line is detected.
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
from pipeline.stores.disk import storage_errors, write_synced
from pipeline.stores.locks import LocksConfig, locked

_START = "0" * 64


class Ledger:
    """One JSON object per line: ``key``, ``type``, further fields, ``previous``, ``sha256``."""

    def __init__(self, path: Path, wait_seconds: float = LocksConfig().wait_seconds) -> None:
        self._path = path
        self._wait_seconds = wait_seconds

    def entries(self) -> tuple[dict[str, Any], ...]:
        """Return all lines, oldest first, after checking the chain.

        Raises
        ------
        StorageError
            ``ledger.damaged``, ``ledger.chain_broken``, ``storage.cannot_read``
        """
        with storage_errors("storage.cannot_read", f"cannot read {self._path}"):
            data = self._path.read_bytes() if self._path.exists() else b""
        entries: list[dict[str, Any]] = []
        previous = _START
        # A last line without a newline was cut by a crash and never acknowledged.
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                claimed = entry.pop("sha256")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise StorageError(
                    "ledger.damaged",
                    f"{self._path} line {number} is not a ledger entry; restore the file "
                    "from a backup",
                ) from error
            if entry["previous"] != previous or _sum(entry) != claimed:
                raise StorageError(
                    "ledger.chain_broken",
                    f"{self._path} line {number} breaks the checksum chain; restore the "
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
        lock = self._path.with_suffix(".lock")
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
        with storage_errors("storage.cannot_write", f"cannot write {self._path}"):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            with os.fdopen(handle, "rb+") as file:
                # Text after the last newline is a line that a crash cut; it is overwritten.
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
                write_synced(file, line + b"\n")


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()


def _sum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()
