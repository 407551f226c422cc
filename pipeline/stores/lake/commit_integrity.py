"""Integrity of one table's commits: fsynced, checksummed, and checked when opened again.

deltalake does none of this. It does not fsync a commit, and if a crash leaves a commit of 0 bytes
(the last one or any since the last checkpoint), it reads a shorter table without an error.

Guarantees: a commit is acknowledged only once its files are on the disk and their checksums are
written; lost, cut or altered files of an acknowledged commit raise `LakeError`. A commit that was
never acknowledged, and of which a power cut left only a part, is withdrawn: its writer repeats it.
An acknowledged commit and one that a process is writing are never withdrawn: one process at a time
acknowledges or withdraws commits of a table.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import polars as pl
from deltalake import DeltaTable

from pipeline.errors import LakeError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import (
    FileState,
    fault_text,
    file_state,
    is_panic,
    machine_error,
    read_regular,
    remembered_sha256,
    storage_errors,
    sync,
)
from pipeline.stores.lake.checksums import Checksums, Line
from pipeline.stores.lake.connection import lake_errors
from pipeline.stores.lake.row_digest import MAINTENANCE, ROWS, are_among, read_files, row_digest
from pipeline.stores.locks import LocksConfig, locked

_COMMIT: Final = re.compile(r"(\d{20})\.json")
CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\.parquet")
LOG: Final = "_delta_log"

_BACKUP: Final = "restore the lake from a backup"
_ACCEPT: Final = f"{_BACKUP}, or accept them with `nightjar repair sums`"
REPAIR_SUMS: Final = "run `nightjar repair sums`, or restore the lake from a backup"


class CommitIntegrity:
    """The commits of one table and their checksums.

    Parameters
    ----------
    root
        The lake's folder.
    table
        Name of the table.

    Attributes
    ----------
    sums
        The file ``_sums/<table>.jsonl``, one line per version.
    """

    def __init__(self, root: Path, table: str) -> None:
        self._root = root
        self._table = table
        self._path = root / table
        self._log = self._path / LOG
        self.sums = Checksums(root / "_sums" / f"{table}.jsonl")

    @property
    def exists(self) -> bool:
        """True if the table has a commit; a crashed writer may leave a folder without one."""
        return bool(self._versions())

    def newest(self) -> tuple[int, FileState, int] | None:
        """Return the newest version, the state of its log entry, and the newest checkpoint.

        They change with every commit, and before `gc` removes a part of the log.
        """
        version = max(self._versions(), default=-1)
        try:
            state = file_state(self._path / commit_name(version))
        except FileNotFoundError:
            return None
        return version, state, max(self._versions(CHECKPOINT), default=-1)

    def acknowledged(self) -> int:
        """Return the last acknowledged version; -1 if there is none."""
        return self.sums.read().acknowledged

    def end_commit(self, version: int) -> None:
        """Acknowledge a commit that this process has just made."""
        failpoint("committed")
        self.acknowledge(version)
        failpoint("fsynced")

    def acknowledge(self, version: int) -> None:
        """Fsync the files of a commit, then write their checksums.

        Does nothing if another process has acknowledged the version already.
        """
        if version <= self.acknowledged():
            return
        with self.changing():
            # Again: another process may have acknowledged it while this one waited.
            if version > self.acknowledged():
                self._acknowledge(version)

    def _acknowledge(self, version: int) -> None:
        log = (commit_name(version), checkpoint_name(version))
        files = [*self._added(version), *(name for name in log if (self._path / name).exists())]
        paths = [self._path / file for file in files]
        # Files first, then their folders: an entry of a folder must not point to unwritten data.
        pointer = self._log / "_last_checkpoint"
        sync(*paths, *([pointer] if pointer.exists() else []))
        sync(*sorted({path.parent for path in paths} | {self._path, self._root}))
        sums = {file: remembered_sha256(self._path / file) for file in files}
        self.sums.append(Line(version, sums))

    def acknowledge_last_commit(self, version: int) -> None:
        """Write the checksums of the last commit if its writer crashed before it wrote them.

        Each writer calls this first, so a crash leaves at most one version without checksums.

        Raises
        ------
        LakeError
            ``lake.sums_lost``: more than one version has no checksums. They are not written now,
            because the files may have changed since their commit; ``lake.commit_altered``: the
            files of the last commit have.
        """
        for missing in self._unacknowledged(version):
            self._check_rows(missing)
            self.acknowledge(missing)

    def _check_rows(self, version: int) -> None:
        """Raise if a commit without checksums does not hold the rows that its writer had."""
        actions = self._actions(version)
        noted = next((a["commitInfo"].get(ROWS) for a in actions if "commitInfo" in a), None)
        removed = [urllib.parse.unquote(a["remove"]["path"]) for a in actions if "remove" in a]
        if noted is None:
            self._fail(
                "lake.commit_altered",
                f"version {version} was not committed by Nightjar, so it may lack rows",
                _ACCEPT,
            )
        library = noted.partition(" ")[0]
        if library not in (MAINTENANCE, pl.__version__):
            self._fail(
                "lake.commit_altered",
                f"version {version} has no checksums, and its rows cannot be compared with their "
                f"digest, because polars {library} has made it",
                _ACCEPT,
            )
        with lake_errors(self._table):
            rows = read_files(self._path, self._table, self._added(version))
            holds = (
                are_among(rows, read_files(self._path, self._table, removed))
                if noted == MAINTENANCE
                else noted == row_digest(rows)
            )
        if not holds:
            self._fail(
                "lake.commit_altered",
                f"version {version} has no checksums, and its files hold other rows than were "
                "committed",
                _ACCEPT,
            )

    def _unacknowledged(self, version: int) -> list[int]:
        missing = list(range(self.acknowledged() + 1, version + 1))
        if len(missing) > 1:
            versions = f"{missing[0]} to {missing[-1]}"
            self._fail(
                "lake.sums_lost", f"the checksums of versions {versions} are lost", REPAIR_SUMS
            )
        return missing

    def check(self) -> None:
        """Check the last commit with its files, and the log that a reader of it needs.

        That log is the last checkpoint and the commits since.

        Raises
        ------
        LakeError
            A file is lost, cut or altered; the message names table and version.
        """
        # Before the log: another process may commit between the two reads.
        line = next(reversed(self.sums.read().lines), None)
        last = max(self._versions(), default=-1)
        if line is not None and line.version > last:
            self._fail("lake.log_lost", f"the log of version {line.version} is lost")
        if last < 0:
            return
        if self._unfinished() is not None:
            self._withdraw()
            self.check()
            return
        for missing in self._unacknowledged(last):
            self._check_rows(missing)
        self._added(last)
        self.check_log(last)
        if line is not None and line.version == last:
            self.compare(last, line.files)

    def _unfinished(self) -> int | None:
        """Return the last version if a power cut left only a part of it."""
        # In this order: another process may commit or acknowledge between the two reads.
        acknowledged, last = self.acknowledged(), max(self._versions(), default=-1)
        is_new = last == acknowledged + 1
        return last if is_new and not self._is_complete(last) else None

    def _is_complete(self, version: int) -> bool:
        """Return whether log, checkpoint and data files of a commit can be read."""
        # A writer at work is not affected: others see its files only once they are whole.
        try:
            added = self._added(version)
            self._check_sizes(version, added)
        except LakeError as error:
            if error.id == "lake.unavailable":  # the disk, which may be readable again later
                raise
            return False
        checkpoint = self._path / checkpoint_name(version)
        paths = [*(self._path / file for file in added), *filter(Path.exists, [checkpoint])]
        # A power cut can leave zeros in a file that has its size.
        with lake_errors(self._table):
            return all(map(_is_readable, paths))

    def _withdraw(self) -> None:
        """Remove the log entry of the last commit if a power cut left only a part of it."""
        with self.changing():
            # Again: another process may have withdrawn it, and its writer may have repeated it.
            version = self._unfinished()
            if version is None:
                return
            # The checkpoint first: without the log entry nothing would show that it is unfinished.
            for name in (checkpoint_name(version), commit_name(version)):
                with storage_errors("storage.cannot_remove", f"cannot remove {self._path / name}"):
                    (self._path / name).unlink(missing_ok=True)
            self.remove_wrong_hint()
            sync(self._log)

    def changing(self) -> AbstractContextManager[None]:
        """Hold the lock of the checksums: commits are acknowledged and withdrawn under it."""
        name = f"commits-{self._table}"
        path = self._root / ".locks" / f"{name}.lock"
        return locked(path, f"the lock {name}", wait_seconds=LocksConfig().wait_seconds)

    def check_log(self, version: int) -> None:
        """Check the log that a reader of a version needs; raises `LakeError` for damage."""
        checkpoint = max((v for v in self._versions(CHECKPOINT) if v <= version), default=-1)
        for summed in self.sums.read().lines:
            if checkpoint <= summed.version <= version:
                log = {f: s for f, s in summed.files.items() if f.startswith(f"{LOG}/")}
                self.compare(summed.version, log)

    def verify(self, version: int, files: Collection[str]) -> None:
        """Compare data files of a version with their checksums.

        Parameters
        ----------
        version
            Version that was opened before this call.
        files
            Some of its data files, relative to the table.

        Raises
        ------
        LakeError
            ``lake.file_lost``, ``lake.file_altered``, ``lake.file_cut``; ``lake.file_unsummed``
            for a file without a checksum, unless it belongs to the last commit and its writer
            crashed before the acknowledgement.
        """
        summed = self.sums.read()
        wanted, sums = set(files), summed.sums
        # The log has the size of a file that has no checksum yet, which shows that a file is cut. A
        # writer acknowledges the version before its own, so at most the newest one lacks checksums.
        new = self._added(version) if summed.acknowledged == version - 1 else {}
        self._check_sizes(version, {f: new[f] for f in new.keys() & wanted - sums.keys()})
        for file in sorted(wanted - sums.keys() - new.keys()):
            if (self._path / file).exists():
                self._fail(
                    "lake.file_unsummed",
                    f"a file of version {version} has no checksum ({file})",
                    REPAIR_SUMS,
                )
            self._fail(
                "lake.file_lost",
                f"a file of version {version} is lost ({file})",
                self._next_step(file),
            )
        self.compare(version, {file: sums[file] for file in sorted(wanted & sums.keys())})

    def _check_sizes(self, version: int, files: Mapping[str, int]) -> None:
        """Check the sizes of files that have no checksum yet."""
        for file, size in files.items():
            path = self._path / file
            if not path.is_file() or path.stat().st_size != size:
                self._fail("lake.file_cut", f"a file of version {version} is lost or cut ({file})")

    def compare(self, version: int, sums: Mapping[str, str]) -> None:
        """Compare files with their checksums.

        Parameters
        ----------
        version
            Version that the messages name.
        sums
            SHA-256 in hex by file, relative to the table.

        Raises
        ------
        LakeError
            ``lake.file_lost``, ``lake.file_altered``: the first such file.
        """
        for file, expected in sums.items():
            try:
                actual = remembered_sha256(self._path / file)
            except OSError:
                self._fail(
                    "lake.file_lost",
                    f"a file of version {version} is lost ({file})",
                    self._next_step(file),
                )
            if actual != expected:
                self._fail(
                    "lake.file_altered",
                    f"a file of version {version} was altered ({file})",
                    self._next_step(file),
                )

    def checkpoint(self, version: int) -> None:
        """Make a version readable without the log before it, after checking that log."""
        # Damage that a checkpoint copies would get a valid checksum with it.
        self.check_log(version)
        name = checkpoint_name(version)
        # A checkpoint without a checksum is that of a killed process, and may be cut.
        if not (self._path / name).exists() or name not in self.sums.read().sums:
            DeltaTable(self._path, version=version).create_checkpoint()
            sync(self._path / name, self._log)
            line = Line(version, {name: remembered_sha256(self._path / name)})
            with self.changing():
                self.sums.rewrite(extra=[line])

    def remove_wrong_hint(self) -> None:
        """Remove `_last_checkpoint` if it does not name the newest checkpoint.

        The file only spares a listing of the log, but with a wrong one the library cannot open the
        table.
        """
        hint = self._log / "_last_checkpoint"
        try:
            named = int(json.loads(read_regular(hint))["version"])
        except (OSError, ValueError, TypeError, LookupError):
            named = -1
        if named != max(self._versions(CHECKPOINT), default=-1):
            # On a disk that cannot be written the library reports the file itself.
            with suppress(OSError):
                hint.unlink()

    def base(self, before: datetime) -> int:
        """Return the newest acknowledged checkpoint older than an instant (UTC); -1 for none."""
        sums = self.sums.read().sums
        # The age is that of the file, not of its data: a history that is replayed today has age 0.
        versions = (
            version
            for version in self._versions(CHECKPOINT)
            if checkpoint_name(version) in sums
            and (self._path / checkpoint_name(version)).stat().st_mtime < before.timestamp()
        )
        return max(versions, default=-1)

    def holds(self, version: int) -> bool:
        """Return whether the log still contains a version."""
        return (self._path / checkpoint_name(version)).exists() or version in self._versions()

    def removed_after(self, version: int) -> set[str]:
        """Return the data files that commits after a version removed from the table."""
        return {
            urllib.parse.unquote(action["remove"]["path"])
            for commit in self._versions()
            if commit > version
            for action in self._actions(commit)
            if "remove" in action
        }

    def is_compaction_only(self, version: int, until: int) -> bool:
        """Return whether the commits in ``(version, until]`` change no rows.

        Parameters
        ----------
        version, until
            The older and the newer version.

        Returns
        -------
        bool
            False as well if the log does not contain all of these commits.
        """
        try:
            actions = [a for v in range(version + 1, until + 1) for a in self._actions(v)]
        except LakeError:
            return False
        # Delta marks files that a compaction only rearranged with `dataChange` = false.
        moved = [action.get("add") or action.get("remove") for action in actions]
        # New metadata can change the columns without changing a file.
        named = all("metaData" not in action for action in actions)
        return named and all(not file["dataChange"] for file in moved if file is not None)

    def log_before(self, base: int, kept: Collection[int]) -> list[str]:
        """List the log entries that no remaining version needs, the newest first.

        Parameters
        ----------
        base
            All versions from this checkpoint on stay readable.
        kept
            Older versions that stay readable; each has a checkpoint.
        """
        last = max(self._versions(), default=-1)
        # The newest commit stays even below a checkpoint: `check` compares it at each start.
        entries = [(v, commit_name(v)) for v in self._versions() if v <= base and v != last]
        checkpoints = (v for v in self._versions(CHECKPOINT) if v < base and v not in kept)
        entries += [(v, checkpoint_name(v)) for v in checkpoints]
        return [name for _, name in sorted(entries, reverse=True)]

    def _versions(self, pattern: re.Pattern[str] = _COMMIT) -> list[int]:
        names = os.listdir(self._log) if self._log.is_dir() else []  # noqa: PTH208
        return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]

    def _actions(self, version: int) -> list[dict[str, Any]]:
        """Return the actions of a commit."""
        path = self._path / commit_name(version)
        try:
            actions = [json.loads(line) for line in read_regular(path).decode().splitlines()]
        except FileNotFoundError:
            self._fail("lake.log_lost", f"the log of version {version} is lost")
        except OSError as error:
            raise LakeError(
                "lake.unavailable",
                f"lake table {self._table}: cannot read {path}: {fault_text(error)}",
            ) from error
        except ValueError:
            actions = []
        if not actions:
            self._fail(
                "lake.log_cut", f"the log of version {version} is cut or empty ({path.name})"
            )
        return actions

    def _added(self, version: int) -> dict[str, int]:
        """Return the data files of a commit, relative to the table, with their sizes."""
        added = [action["add"] for action in self._actions(version) if "add" in action]
        try:
            return {urllib.parse.unquote(add["path"]): int(add["size"]) for add in added}
        except (LookupError, TypeError, ValueError):
            name = commit_name(version)
            self._fail("lake.log_cut", f"the log of version {version} is damaged ({name})")

    def _next_step(self, file: str) -> str:
        """Return the next step for a lost or altered file."""
        if CHECKPOINT.fullmatch(file.rpartition("/")[2]):
            return "run `nightjar repair checkpoints`"
        if self._table == "events" and not file.startswith(f"{LOG}/"):
            return "run `nightjar repair batch`, or restore the lake from a backup"
        return _BACKUP

    def _fail(self, id: str, problem: str, next_step: str = _BACKUP) -> NoReturn:
        raise LakeError(id, f"lake table {self._table}: {problem}; {next_step}")


def _is_readable(path: Path) -> bool:
    """Return whether a Parquet file can be read; raises errors of the machine."""
    try:
        pl.read_parquet(path, glob=False, hive_partitioning=False)
    except BaseException as error:
        is_damage = isinstance(error, (OSError, pl.exceptions.PolarsError)) or is_panic(error)
        if not is_damage or machine_error(error) is not None:
            raise
        return False
    return True


def commit_name(version: int) -> str:
    """Return the path of a commit's log entry, relative to the table."""
    return f"{LOG}/{version:020}.json"


def checkpoint_name(version: int) -> str:
    """Return the path of a checkpoint, relative to the table."""
    return f"{LOG}/{version:020}.checkpoint.parquet"
