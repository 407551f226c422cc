"""The promotion ledger: every decision and every swap, append-only and hash-chained.

Promises: a line is there whole or not at all; a line with a key that is there already is not
written again, so a retry adds nothing; each line carries the sha256 of the one before, so a line
that was changed or taken out is found; no line holds a user id.
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
from pipeline.stores.locks import locked

_START = "0" * 64


class Ledger:
    """One JSON object a line: ``key``, ``type``, the caller's fields, ``previous``, ``sha256``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[dict[str, Any], ...]:
        """Return all lines, oldest first, after checking the chain."""
        if not self._path.exists():
            return ()
        entries: list[dict[str, Any]] = []
        previous = _START
        # Whole lines only: a last line without its newline was never acknowledged.
        for number, line in enumerate(self._path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                claimed = entry.pop("sha256")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise StorageError(
                    "ledger.damaged", f"{self._path} line {number} is no ledger line"
                ) from error
            if entry["previous"] != previous or _sum(entry) != claimed:
                raise StorageError(
                    "ledger.chain_broken", f"{self._path} line {number} breaks the chain of sums"
                )
            previous = claimed
            entries.append({**entry, "sha256": claimed})
        return tuple(entries)

    def append(self, key: str, type_: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line, or return the one that has this key already."""
        with locked(self._path.with_suffix(".lock"), "the ledger", wait=True):
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
        with storage_errors("cannot_write", self._path):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            with os.fdopen(handle, "rb+") as file:
                # What follows the last newline is the rest of a line that died while written.
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
                write_synced(file, line + b"\n")


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()


def _sum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()
