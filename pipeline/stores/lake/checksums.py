"""Checksums of one table: one JSON line per commit, in the order of versions.

Guarantees: a last line that a crash cut does not count; any other damaged line raises `LakeError`;
a rewrite replaces all lines at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Final

from pipeline.errors import LakeError
from pipeline.stores.disk import FileState, file_state, sync, write_synced


@dataclass(frozen=True)
class Line:
    """A version and the SHA-256 of its files, by path relative to the table."""

    version: int
    files: Mapping[str, str]

    def bytes(self) -> bytes:
        """Return the line, with its newline."""
        return json.dumps(vars(self)).encode() + b"\n"


@dataclass(frozen=True)
class SummedFiles:
    """All lines of a table, read at one moment.

    Attributes
    ----------
    lines
        Complete lines, oldest version first.
    sums
        SHA-256 in hex by file, over all lines.
    size
        Length of the complete lines in bytes.
    cut
        True if more bytes follow: a line that a crash cut.
    """

    lines: tuple[Line, ...] = ()
    sums: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    cut: bool = False

    @property
    def acknowledged(self) -> int:
        """The last acknowledged version; -1 if there is none."""
        return self.lines[-1].version if self.lines else -1


# Each read of a table needs its lines, and a process reads a table many times between two commits.
_PARSED: Final[dict[Path, tuple[FileState, SummedFiles]]] = {}


class Checksums:
    """The checksum file at `path`; the first line creates it and its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: Line) -> None:
        """Append a line and force it to the disk."""
        before, data = self.read(), line.bytes()
        self._path.parent.mkdir(exist_ok=True)
        is_new = not self._path.exists()
        with self._path.open("ab") as stream:
            if before.cut:
                # The rest of a cut line would make this one unreadable, too.
                stream.truncate(before.size)
            write_synced(stream, data)
        if is_new:
            sync(self._path.parent, self._path.parent.parent)
        state = file_state(self._path)
        if state[-1] == before.size + len(data):
            # Not parsed again: the file has one line per commit.
            lines, sums = (*before.lines, line), {**before.sums, **line.files}
            _PARSED[self._path] = state, SummedFiles(lines, sums, state[-1])

    def read(self) -> SummedFiles:
        """Return all lines.

        Raises
        ------
        LakeError
            ``lake.checksums_not_a_file``, ``lake.checksums_damaged``
        """
        if not self._path.exists():
            return SummedFiles()
        if not self._path.is_file():
            raise LakeError(
                "lake.checksums_not_a_file",
                f"{self._path} is not a file; move it away, then run `nightjar repair sums`",
            )
        state = file_state(self._path)
        known = _PARSED.get(self._path)
        if known is None or known[0] != state:
            known = _PARSED[self._path] = state, self._parse(self._path.read_bytes())
        return known[1]

    def readable(self) -> list[Line]:
        """Return the lines that can be read, oldest version first, for a repair."""
        if not self._path.is_file():
            return []
        lines = filter(None, map(_parsed, self._path.read_bytes().split(b"\n")))
        return sorted(lines, key=attrgetter("version"))

    def rewrite(self, *, without: Iterable[str] = (), extra: Iterable[Line] = ()) -> None:
        """Replace all lines at once.

        Parameters
        ----------
        without
            Files whose checksums are dropped.
        extra
            Further files of versions.
        """
        dropped = set(without)
        lines = [*self.read().lines, *extra]
        kept = ({f: s for f, s in line.files.items() if f not in dropped} for line in lines)
        self.replace(Line(line.version, files) for line, files in zip(lines, kept, strict=True))

    def replace(self, lines: Iterable[Line]) -> None:
        """Write these lines in place of all others; of equal files of a version the last counts."""
        kept: dict[int, dict[str, str]] = {}
        for line in lines:
            kept.setdefault(line.version, {}).update(line.files)
        # A rename in one step: a crash leaves all old lines or all new ones.
        self._path.parent.mkdir(exist_ok=True)
        new = self._path.with_suffix(".new")
        with new.open("wb") as stream:
            texts = (Line(v, kept[v]).bytes() for v in sorted(kept) if kept[v])
            write_synced(stream, b"".join(texts))
        new.replace(self._path)
        sync(self._path.parent)

    def _parse(self, data: bytes) -> SummedFiles:
        # Text after the last newline is a line that a crash cut: it was never acknowledged.
        texts = data.split(b"\n")[:-1]
        lines = list(map(_parsed, texts))
        # Of a line that was being written, a power cut may leave the end without the beginning.
        if lines and lines[-1] is None:
            lines.pop()
        complete: list[Line] = []
        for number, line in enumerate(lines, start=1):
            if line is None or (complete and complete[-1].version >= line.version):
                raise LakeError(
                    "lake.checksums_damaged",
                    f"{self._path} line {number} is damaged; run `nightjar repair sums`, or "
                    "restore the lake from a backup",
                )
            complete.append(line)
        sums = {file: total for line in complete for file, total in line.files.items()}
        size = sum(len(text) + 1 for text in texts[: len(complete)])
        return SummedFiles(tuple(complete), sums, size, cut=size < len(data))


def _parsed(text: bytes) -> Line | None:
    """Return a line; None for one that is damaged."""
    try:
        line = json.loads(text)
        return Line(int(line["version"]), dict(line["files"]))
    except (ValueError, TypeError, LookupError):
        return None
