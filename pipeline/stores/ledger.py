"""The promotion ledger: one JSON line per decision and publication, append-only and hash-chained.

Guarantees:

* A line is written completely or not at all.
* A key is written once, so a retry adds nothing.
* Each line has the SHA-256 of the previous one, so a changed or removed line is detected. A missing
  end is detected by comparison with the head, which `publications` in the lake stores, and a file
  beside the ledger after each line.
* No line contains a user id.
* A rewrite replaces all lines at once and keeps the old file beside the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import StorageError
from pipeline.stores.disk import (
    FileState,
    file_state,
    read_regular,
    storage_errors,
    sync,
    write_synced,
)
from pipeline.stores.locks import LocksConfig, locked

_START = "0" * 64
_KEY: Final = re.compile(rb'"key": "([^"]+)"')


@dataclass(frozen=True)
class ReadableLines:
    """Lines of a ledger that may be damaged.

    Attributes
    ----------
    chained
        Lines from the first one on that fit the chain of checksums.
    later
        Lines behind the first break of the chain that fit their own checksum.
    damaged
        Number of each other line, and its key if that can be read.
    """

    chained: tuple[dict[str, Any], ...]
    later: tuple[dict[str, Any], ...]
    damaged: Mapping[int, str | None]


class Ledger:
    """One JSON object per line: ``key``, ``type``, further fields, ``previous``, ``sha256``."""

    def __init__(self, path: Path, wait_seconds: float = LocksConfig().wait_seconds) -> None:
        self.path = path
        self._head = path.with_suffix(".head")
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
                self._known = state, self._parse(read_regular(self.path))
        return self._known[1]

    def head(self) -> tuple[int, str]:
        """Return the number of lines and the SHA-256 of the last one."""
        entries = self.entries()
        return len(entries), entries[-1]["sha256"] if entries else _START

    def lines_cut(self) -> int:
        """Return the number of lines lost at the end; at least 1 if others are in their place.

        Raises
        ------
        StorageError
            As `entries`.
        """
        # Before the lines: another process may append one in between.
        lines, total = self._noted_head()
        entries = self.entries()
        if lines <= len(entries) and (not lines or entries[lines - 1]["sha256"] == total):
            return 0
        return max(lines - len(entries), 1)

    def noted_lines(self) -> int:
        """Return the number of lines after the last append, for a repair."""
        return self._noted_head()[0]

    def _noted_head(self) -> tuple[int, str]:
        """Return `head` as of the last append; no line if it is missing or damaged."""
        try:
            noted = json.loads(read_regular(self._head))
            return int(noted["lines"]), str(noted["sha256"])
        except (OSError, ValueError, LookupError, TypeError):
            return 0, _START

    def _note_head(self, lines: int, total: str) -> None:
        data = json.dumps({"lines": lines, "sha256": total}).encode()
        with storage_errors("storage.cannot_write", f"cannot write {self._head}"):
            _replace(self._head, data)

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
                    f"{self.path} line {number} is not a ledger entry; run `nightjar "
                    "repair ledger`, or restore the file from a backup",
                ) from error
            if not holds:
                raise StorageError(
                    "ledger.chain_broken",
                    f"{self.path} line {number} breaks the checksum chain; run `nightjar "
                    "repair ledger`, or restore the file from a backup",
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
        with self.lock():
            entries = self.entries()
            for entry in entries:
                if entry["key"] == key:
                    return entry
            previous = entries[-1]["sha256"] if entries else _START
            entry = {**fields, "key": key, "type": type_, "previous": previous}
            entry["sha256"] = _sum(entry)
            was_cut = self.lines_cut() > 0
            self._write(_line(entry))
            # A line that replaces a lost one must not hide the loss; the same line again heals it.
            if not was_cut:
                self._note_head(len(entries) + 1, entry["sha256"])
            return entry

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of all writers of the ledger."""
        lock = self.path.with_suffix(".lock")
        return locked(lock, "the ledger", wait_seconds=self._wait_seconds)

    def readable(self) -> ReadableLines:
        """Return the lines that can be read, for a repair."""
        chained: list[dict[str, Any]] = []
        later: list[dict[str, Any]] = []
        damaged: dict[int, str | None] = {}
        with storage_errors("storage.cannot_read", f"cannot read {self.path}"):
            data = read_regular(self.path) if self.path.exists() else b""
        previous = _START
        for number, line in enumerate(_complete(data), start=1):
            entry = _intact(line)
            if entry is None:
                key = _KEY.search(line)
                damaged[number] = None if key is None else key[1].decode(errors="replace")
            elif not damaged and not later and entry["previous"] == previous:
                chained.append(entry)
                previous = entry["sha256"]
            else:
                later.append(entry)
        return ReadableLines(tuple(chained), tuple(later), damaged)

    def rewrite(self, lines: Sequence[Mapping[str, Any]]) -> Path | None:
        """Replace all lines; the caller holds `lock`.

        Parameters
        ----------
        lines
            ``key``, ``type`` and further fields each, oldest first; the chain is computed.

        Returns
        -------
        Path or None
            The old file, under a name that ends with its checksum; None if there was none.
        """
        data, previous = b"", _START
        for line in lines:
            entry = {n: v for n, v in line.items() if n != "sha256"} | {"previous": previous}
            previous = entry["sha256"] = _sum(entry)
            data += _line(entry) + b"\n"
        with storage_errors("storage.cannot_write", f"cannot write {self.path}"):
            kept = None
            if self.path.exists():
                old = read_regular(self.path)
                kept = self.path.with_name(
                    f"{self.path.name}.{hashlib.sha256(old).hexdigest()[:12]}"
                )
                _replace(kept, old)
            # Without a head a killed rewrite leaves the old ledger or the new one.
            self._head.unlink(missing_ok=True)
            _replace(self.path, data)
            self._note_head(len(lines), previous)
        return kept

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
    # A complete entry whose newline is missing or was altered.
    return [*lines, rest]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, ensure_ascii=False).encode()


def _sum(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()


def _intact(line: bytes) -> dict[str, Any] | None:
    """Return an entry that fits its own checksum; None for another line."""
    try:
        entry = json.loads(line)
        total = entry.pop("sha256")
        intact = total == _sum(entry) and {"key", "type", "previous"} <= entry.keys()
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return {**entry, "sha256": total} if intact else None


def _replace(path: Path, data: bytes) -> None:
    """Write a file under another name, force it to the disk and rename it."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        write_synced(file, data)
    new.replace(path)
    sync(path.parent)
