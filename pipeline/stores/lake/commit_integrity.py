"""What one table's log holds on the disk: fsynced, summed, and checked when it is opened again.

Delta itself does none of this: a commit is not fsynced, and a commit of 0 bytes, the last one or
any since the last checkpoint, reads as a shorter table without a word.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import LakeError
from pipeline.stores.lake.checksums import Checksums, Line, sha256, sync

_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\.parquet")
_LOG: Final = "_delta_log"


class CommitIntegrity:
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
        self._log = self._path / _LOG
        self._sums = Checksums(root / "_sums" / f"{table}.jsonl")

    @property
    def exists(self) -> bool:
        """Whether the table has a commit; a folder alone may be what a killed writer left."""
        return next(self._versions(), None) is not None

    def acknowledged(self) -> int:
        """Return the last version whose writer was told that it is safe; -1 for none."""
        line = self._sums.last()
        return -1 if line is None else line.version

    def acknowledge(self, version: int) -> None:
        """Fsync all that a commit wrote, then write its sums; only then it counts.

        Where a later writer has done that for one who slept, there is nothing to do.
        """
        if version <= self.acknowledged():
            return
        files = [*self._added(version), *self._log_files(version)]
        paths = [self._path / file for file in files]
        pointer = self._log / "_last_checkpoint"
        sync([*paths, *([pointer] if pointer.exists() else [])])
        sync(sorted({path.parent for path in paths} | {self._path, self._root}))
        sums = {file: sha256(self._path / file) for file in files}
        self._sums.append(Line(version, sums))

    def acknowledge_last_commit(self, version: int) -> None:
        """Acknowledge the commit up to a version whose writer was killed before it could.

        It is one at most, for the next writer begins with this; where more have no sums these were
        lost, and new ones would vouch for whatever the files hold by now.
        """
        for missing in self._unacknowledged(version):
            self.acknowledge(missing)

    def _unacknowledged(self, version: int) -> list[int]:
        missing = list(range(self.acknowledged() + 1, version + 1))
        if len(missing) > 1:
            self._fail("lake.sums_lost", f"the sums of versions {missing[0]} to {missing[-1]} are lost")
        return missing

    def check(self) -> None:
        """Raise `LakeError` for what is lost, cut or altered.

        Looked at are the last commit with its files, and of the log all that a reader needs: the
        last checkpoint and the commits since.
        """
        line = self._sums.last()  # before the log, which may grow meanwhile
        last = max(self._versions(), default=-1)
        if line is not None and line.version > last:
            self._fail("lake.log_lost", f"the log of version {line.version} is lost")
        if last < 0:
            return
        added = self._added(last)
        self._unacknowledged(last)
        self.check_log(last)
        if line is not None and line.version == last:
            self.compare(last, line.files)
        else:
            self._check_sizes(last, added)

    def check_log(self, version: int) -> None:
        """Raise `LakeError` for damage of the log that a reader of a version needs."""
        checkpoint = max((v for v in self._versions(_CHECKPOINT) if v <= version), default=-1)
        for summed in self._sums.since(checkpoint):
            if summed.version <= version:
                log = {f: s for f, s in summed.files.items() if f.startswith(f"{_LOG}/")}
                self.compare(summed.version, log)

    def verify(self, version: int, files: Collection[str]) -> None:
        """Raise `LakeError` for a data file of a version that is lost, altered, or has no sum.

        Only those of the last commit may have none, where its writer was killed before it could
        acknowledge them.
        """
        wanted, sums = set(files), self.checksums()
        last = max(self._versions(), default=-1)
        new = {} if self.acknowledged() >= last else self._added(last)
        self._check_sizes(last, {file: new[file] for file in new.keys() & wanted - sums.keys()})
        for file in sorted(wanted - sums.keys() - new.keys()):
            if (self._path / file).exists():
                self._fail("lake.file_unsummed", f"a file of version {version} has no sum ({file})")
            self._fail("lake.file_lost", f"a file of version {version} is lost ({file})")
        self.compare(version, {file: sums[file] for file in sorted(wanted & sums.keys())})

    def _check_sizes(self, version: int, files: Mapping[str, int]) -> None:
        """Where nobody acknowledged a commit each of its files is whole, or it is an error."""
        for file, size in files.items():
            path = self._path / file
            if not path.is_file() or path.stat().st_size != size:
                self._fail("lake.file_cut", f"a file of version {version} is lost or cut ({file})")

    def compare(self, version: int, sums: Mapping[str, str]) -> None:
        """Raise `LakeError` for the first file that is not what its sum says."""
        for file, expected in sums.items():
            try:
                actual = sha256(self._path / file)
            except OSError:
                self._fail("lake.file_lost", f"a file of version {version} is lost ({file})")
            if actual != expected:
                self._fail("lake.file_altered", f"a file of version {version} was altered ({file})")

    def checksums(self) -> dict[str, str]:
        """Return file -> sha256 over all acknowledged commits."""
        return self._sums.files()

    def is_checkpoint(self, version: int) -> bool:
        """Whether a version has a checkpoint that was acknowledged."""
        name = _checkpoint(version)
        return (self._path / name).exists() and name in self.checksums()

    def note_checkpoint(self, version: int) -> None:
        """Fsync a checkpoint that was made after its version was acknowledged, and note its sum."""
        name = _checkpoint(version)
        sync([self._path / name, self._log])
        self._sums.rewrite(extra=Line(version, {name: sha256(self._path / name)}))

    def base(self, before: datetime) -> int:
        """Return the newest checkpoint that was written before an instant; -1 for none."""
        sums = self.checksums()
        versions = (
            version
            for version in self._versions(_CHECKPOINT)
            if _checkpoint(version) in sums
            and (self._path / _checkpoint(version)).stat().st_mtime < before.timestamp()
        )
        return max(versions, default=-1)

    def holds(self, version: int) -> bool:
        """Whether the log still has a version."""
        return (self._path / _checkpoint(version)).exists() or version in self._versions()

    def removed_after(self, version: int) -> set[str]:
        """Return the data files that commits after a version took out."""
        return {
            urllib.parse.unquote(action["remove"]["path"])
            for commit in self._versions()
            if commit > version
            for action in self._actions(commit)
            if "remove" in action
        }

    def is_compaction_only(self, version: int, until: int) -> bool:
        """Whether the commits after one version until another say that they change no rows."""
        try:
            actions = [a for v in range(version + 1, until + 1) for a in self._actions(v)]
        except LakeError:
            return False
        moved = [action.get("add") or action.get("remove") for action in actions]
        named = all("metaData" not in action for action in actions)
        return named and all(not file["dataChange"] for file in moved if file is not None)

    def log_before(self, base: int, kept: Collection[int]) -> list[str]:
        """List, the newest first, the entries that no version needs since `base` or of `kept`."""
        last = max(self._versions(), default=-1)
        commits = {v: _commit(v) for v in self._versions() if v <= base and v != last}
        checkpoints = {
            v: _checkpoint(v) for v in self._versions(_CHECKPOINT) if v < base and v not in kept
        }
        pairs = [*commits.items(), *checkpoints.items()]
        return [name for _, name in sorted(pairs, reverse=True)]

    def forget(self, files: Collection[str]) -> None:
        """Write the sums anew without those of files that are about to go."""
        self._sums.rewrite(without=files)

    def _versions(self, pattern: re.Pattern[str] = _COMMIT) -> Iterator[int]:
        if self._log.is_dir():
            # Listed at once: a generator left half way would leave the folder open.
            for name in os.listdir(self._log):  # noqa: PTH208
                if match := pattern.fullmatch(name):
                    yield int(match[1])

    def _actions(self, version: int) -> list[dict[str, Any]]:
        """Return what a commit says."""
        path = self._path / _commit(version)
        try:
            actions = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        except FileNotFoundError:
            self._fail("lake.log_lost", f"the log of version {version} is lost")
        except ValueError:
            actions = []
        if not actions:
            self._fail("lake.log_cut", f"the log of version {version} is cut or empty ({path.name})")
        return actions

    def _added(self, version: int) -> dict[str, int]:
        """Return the data files of a commit, relative to the table, with their sizes."""
        added = [action["add"] for action in self._actions(version) if "add" in action]
        return {urllib.parse.unquote(add["path"]): int(add["size"]) for add in added}

    def _log_files(self, version: int) -> list[str]:
        names = (_commit(version), _checkpoint(version))
        return [name for name in names if (self._path / name).exists()]

    def _fail(self, id: str, what: str) -> NoReturn:
        raise LakeError(id, f"lake table {self._table}: {what}")


def _commit(version: int) -> str:
    return f"{_LOG}/{version:020}.json"


def _checkpoint(version: int) -> str:
    return f"{_LOG}/{version:020}.checkpoint.parquet"
