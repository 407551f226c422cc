"""What one table's log holds on the disk: fsynced, summed, and checked when it is opened again.

Delta itself does none of this: a commit is not fsynced, and a commit of 0 bytes, the last one or
any since the last checkpoint, reads as a shorter table without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import LakeError

_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\.parquet")
_VERSION: Final = "version"
_FILES: Final = "files"


class Tail:
    """The commits of one table and their sums.

    Parameters
    ----------
    root
        The lake's folder.
    table
        The table's name; the sums stand in ``_sums/<table>.jsonl``, a line a version.
    """

    def __init__(self, root: Path, table: str) -> None:
        self._root = root
        self._table = table
        self._path = root / table
        self._log = self._path / "_delta_log"
        self._sums = root / "_sums" / f"{table}.jsonl"

    @property
    def exists(self) -> bool:
        """Whether the table has a commit; a folder alone may be what a killed writer left."""
        return next(self._versions(), None) is not None

    def acknowledged(self) -> int:
        """Return the last version whose writer was told that it is safe; -1 for none."""
        line = self._last_line()
        return -1 if line is None else int(line[_VERSION])

    def acknowledge(self, version: int) -> None:
        """Fsync all that a commit wrote, then write its sums; only then it counts."""
        files = [*self._added(version), *self._log_files(version)]
        paths = [self._path / file for file in files]
        pointer = self._log / "_last_checkpoint"
        _sync([*paths, *([pointer] if pointer.exists() else [])])
        _sync(sorted({path.parent for path in paths} | {self._path, self._root}))
        line = {_VERSION: version, _FILES: {file: _sha256(self._path / file) for file in files}}
        self._sums.parent.mkdir(exist_ok=True)
        is_new = not self._sums.exists()
        with self._sums.open("ab+") as stream:
            if stream.tell() > 0:
                # A line that a crash cut must not swallow this one.
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write(json.dumps(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            _sync([self._sums.parent, self._root])

    def check(self) -> None:
        """Raise `LakeError` for what is lost, cut or altered.

        Looked at are the last commit with its files, and of the log all that a reader needs: the
        last checkpoint and the commits since.
        """
        last = max(self._versions(), default=-1)
        line = self._last_line()
        if line is not None and line[_VERSION] > last:
            self._fail(f"the log of version {line[_VERSION]} is lost")
        if last < 0:
            return
        added = self._added(last)
        checkpoint = max(self._versions(_CHECKPOINT), default=-1)
        for summed in self._lines_since(checkpoint):
            log = {f: s for f, s in summed[_FILES].items() if f.startswith("_delta_log/")}
            self.compare(summed[_VERSION], log)
        if line is not None and line[_VERSION] == last:
            self.compare(last, line[_FILES])
            return
        # Its writer was killed before it could acknowledge: each file is whole, or it is an error.
        for file, size in added.items():
            path = self._path / file
            if not path.is_file() or path.stat().st_size != size:
                self._fail(f"a file of version {last} is lost or cut ({file})")

    def compare(self, version: int, sums: Mapping[str, str]) -> None:
        """Raise `LakeError` for the first file that is not what its sum says."""
        for file, expected in sums.items():
            try:
                found = _sha256(self._path / file)
            except OSError:
                self._fail(f"a file of version {version} is lost ({file})")
            if found != expected:
                self._fail(f"a file of version {version} was altered ({file})")

    def sums(self) -> dict[str, str]:
        """Return file -> sha256 over all acknowledged commits."""
        found: dict[str, str] = {}
        if self._sums.exists():
            with self._sums.open("rb") as stream:
                for line in filter(None, map(_parsed, stream)):
                    found.update(line[_FILES])
        return found

    def _versions(self, pattern: re.Pattern[str] = _COMMIT) -> Iterator[int]:
        if self._log.is_dir():
            # Listed at once: a generator left half way would leave the folder open.
            for name in os.listdir(self._log):  # noqa: PTH208
                if match := pattern.fullmatch(name):
                    yield int(match[1])

    def _added(self, version: int) -> dict[str, int]:
        """Return the data files of a commit, relative to the table, with their sizes."""
        name = f"{version:020}.json"
        try:
            lines = (self._log / name).read_text("utf-8").splitlines()
            actions = [json.loads(line) for line in lines]
        except FileNotFoundError:
            self._fail(f"the log of version {version} is lost")
        except ValueError:
            actions = []
        if not actions:
            self._fail(f"the log of version {version} is cut or empty ({name})")
        added = [action["add"] for action in actions if "add" in action]
        return {urllib.parse.unquote(add["path"]): int(add["size"]) for add in added}

    def _log_files(self, version: int) -> list[str]:
        names = (f"{version:020}.json", f"{version:020}.checkpoint.parquet")
        return [f"_delta_log/{name}" for name in names if (self._log / name).exists()]

    def _last_line(self) -> dict[str, Any] | None:
        """Return the last whole line."""
        return next(reversed(self._lines_since(None)), None)

    def _lines_since(self, version: int | None) -> list[dict[str, Any]]:
        """Return the whole lines from a version on, or at least the last one for None.

        It is read backwards: the file grows with every commit.
        """
        if not self._sums.exists():
            return []
        size = self._sums.stat().st_size
        reach = 1 << 16
        with self._sums.open("rb") as stream:
            while True:
                start = max(0, size - reach)
                stream.seek(start)
                lines = stream.read().split(b"\n")
                found = list(filter(None, map(_parsed, lines if start == 0 else lines[1:])))
                enough = found and (version is None or found[0][_VERSION] <= version)
                if enough or start == 0:
                    return [line for line in found if line[_VERSION] >= (version or 0)]
                reach *= 8

    def _fail(self, what: str) -> NoReturn:
        raise LakeError(f"lake table {self._table}: {what}")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line of sums; None for one that a crash cut, which was never acknowledged."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
