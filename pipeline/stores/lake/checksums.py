"""Checksums of one table: one JSON line per commit, in the order of versions.

Guarantees: a line that a crash cut does not count; a rewrite replaces all lines at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from pipeline.errors import LakeError
from pipeline.stores.disk import sync, write_synced


@dataclass(frozen=True)
class Line:
    """A version and the SHA-256 of its files, by path relative to the table."""

    version: int
    files: Mapping[str, str]

    def bytes(self) -> bytes:
        """Return the line, with its newline."""
        return json.dumps(vars(self)).encode() + b"\n"


class Checksums:
    """The checksum file at `path`; the first line creates it and its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: Line) -> None:
        """Append a line and force it to the disk."""
        self._path.parent.mkdir(exist_ok=True)
        is_new = not self._path.exists()
        with self._path.open("ab+") as stream:
            if stream.tell() > 0:
                # Without a newline the rest of a cut line would make this one unreadable, too.
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            write_synced(stream, line.bytes())
        if is_new:
            sync(self._path.parent, self._path.parent.parent)

    def last(self) -> Line | None:
        """Return the last complete line."""
        return next(reversed(self.since(None)), None)

    def since(self, version: int | None) -> list[Line]:
        """Return the complete lines of a version and of all later ones, oldest first.

        The file grows with every commit, so it is read from its end, only as far as needed. For
        None that is the last line; earlier lines of the same read are returned as well.

        Raises
        ------
        LakeError
            ``lake.checksums_not_a_file``
        """
        if not self._path.exists():
            return []
        if not self._path.is_file():
            raise LakeError(
                "lake.checksums_not_a_file",
                f"{self._path} is not a file; restore the lake from a backup",
            )
        size = self._path.stat().st_size
        reach = 1 << 16
        with self._path.open("rb") as stream:
            while True:
                start = max(0, size - reach)
                stream.seek(start)
                lines = stream.read().split(b"\n")
                # The first line of a window may be cut, except at the start of the file.
                entries = list(filter(None, map(_parsed, lines if start == 0 else lines[1:])))
                enough = entries and (version is None or entries[0].version <= version)
                if enough or start == 0:
                    return [line for line in entries if line.version >= (version or 0)]
                reach *= 8

    def files(self) -> dict[str, str]:
        """Return ``{file: SHA-256 in hex}`` over all lines."""
        return {file: total for line in self.since(0) for file, total in line.files.items()}

    def readable(self) -> list[Line]:
        """Return the lines that can be read, oldest version first, for a repair."""
        if not self._path.is_file():
            return []
        lines = filter(None, map(_parsed, self._path.read_bytes().split(b"\n")))
        return sorted(lines, key=attrgetter("version"))

    def rewrite(self, *, without: Iterable[str] = (), extra: Iterable[Line] = ()) -> None:
        """Replace all lines at once; those that cannot be read are left out.

        Parameters
        ----------
        without
            Files whose checksums are dropped.
        extra
            Further files of versions.
        """
        dropped = set(without)
        kept: dict[int, dict[str, str]] = {}
        for line in [*self.readable(), *extra]:
            files = {file: total for file, total in line.files.items() if file not in dropped}
            kept.setdefault(line.version, {}).update(files)
        # A rename in one step: a crash leaves all old lines or all new ones.
        self._path.parent.mkdir(exist_ok=True)
        new = self._path.with_suffix(".new")
        with new.open("wb") as stream:
            lines = (Line(v, kept[v]).bytes() for v in sorted(kept) if kept[v])
            write_synced(stream, b"".join(lines))
        new.replace(self._path)
        sync(self._path.parent)


def _parsed(text: bytes) -> Line | None:
    """Return a line; None for one that a crash cut: its commit was never acknowledged."""
    try:
        line = json.loads(text)
        return Line(int(line["version"]), dict(line["files"]))
    except (ValueError, TypeError, LookupError):
        return None
