"""Compaction of a table: fewer files, a short log, and no files that no version needs.

Guarantees:

* Pinned versions stay readable, and so do all versions since the newest checkpoint that is older
  than a given instant. Reading another one raises.
* Transaction numbers and checksums stay valid.
* After a crash the table has the same rows, and the next call continues.

deltalake's `vacuum` is not used: it reads the clock, writes commits of its own, and does not
maintain the checksums.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable

from pipeline.base import format_instant
from pipeline.failpoints import failpoint
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.lake.connection import lake_errors, options
from pipeline.stores.lake.delta import Lake
from pipeline.stores.lake.row_digest import MAINTENANCE, ROWS
from pipeline.stores.lake.tables import PARTITIONS, check_partition

_SMALL: Final = 32 << 20
"""Size in bytes below which files of a partition are merged."""
_TEMPORARY: Final = re.compile(r"#\d+$|\.tmp$")


@dataclass(frozen=True)
class Cleared:
    """Removed data files, removed entries of the log, and the bytes of both."""

    files: int = 0
    log: int = 0
    bytes: int = 0


class Compaction:
    """Compaction of one table; the caller holds the lock of its writers."""

    def __init__(self, lake: Lake, table: str) -> None:
        self._lake = lake
        self._table = table
        self._path = lake.root / table
        self._commits = CommitIntegrity(lake.root, table)

    def drop_before(self, column: str, instant: datetime) -> int:
        """Delete the rows that are older than an instant.

        Parameters
        ----------
        column
            Column of the rows' instants.
        instant
            In UTC; rows at this instant stay.

        Returns
        -------
        int
            Number of deleted rows.
        """
        self._verify(self._lake.files(self._table))
        return self._drop(f"{column} < '{format_instant(instant)}'")

    def partitions(self) -> dict[str, datetime]:
        """Return the partitions of the newest version, and when each was last written (UTC)."""
        prefix = f"{PARTITIONS[self._table]}="
        newest: dict[str, datetime] = {}
        with lake_errors(self._table):
            for file in self._lake.files(self._table):
                value = file.partition("/")[0].removeprefix(prefix)
                written = datetime.fromtimestamp((self._path / file).stat().st_mtime, UTC)
                newest[value] = max(written, newest.get(value, written))
        return newest

    def drop_partitions(self, values: Collection[str]) -> int:
        """Delete whole partitions, and return the number of their rows."""
        if not values:
            return 0
        column = PARTITIONS[self._table]
        check_partition(self._table, column, pl.Series(sorted(values)))
        named = ", ".join(f"'{value}'" for value in sorted(values))
        return self._drop(f"{column} IN ({named})")

    def compact(self) -> tuple[int, int]:
        """Merge small files of each partition; return the number of files before and after."""
        handle = self._lake.open_for_writing(self._table)
        if handle is None:
            return 0, 0
        with lake_errors(self._table, self._path):
            before = len(self._lake.files(self._table))
            self._verify(self._crowded())
            handle.optimize.compact(target_size=_SMALL, **_options())
            self._acknowledge(handle)
            failpoint("compacted")
        return before, len(self._lake.files(self._table))

    def clear(self, pinned: Collection[int], before: datetime) -> Cleared:
        """Remove the data files and log entries that no readable version needs.

        The pinned versions stay readable. So do the newest checkpoint that is older than `before`
        and all versions after it.

        Parameters
        ----------
        pinned
            Versions that stay readable at any age.
        before
            In UTC. Data files that were written at or after this instant stay.

        Raises
        ------
        LakeError
            The log of a pinned version, or of the newest one, is damaged; nothing is removed.
        """
        handle = self._lake.open_for_writing(self._table)
        if handle is None:
            return Cleared()
        with lake_errors(self._table, self._path):
            self._commits.checkpoint(handle.version())
            base = self._commits.base(before)
            kept = sorted(v for v in pinned if v < base and self._commits.holds(v))
            needed = self._lake.files(self._table) | self._commits.removed_after(base)
            for version in kept:
                self._commits.checkpoint(version)
                needed |= self._lake.files(self._table, version)
            failpoint("checkpointed")
            log = self._commits.log_before(base, kept)
            data = sorted(self._old(before) - needed) if base >= 0 else []
            with self._commits.changing():
                self._commits.sums.rewrite(without={*log, *data})
            failpoint("sums_written")
            # The log first, from the newest version back: all files that the rest of the log
            # names still exist.
            freed = sum(self._remove(name) for name in log)
            failpoint("log_cleared")
            freed += sum(self._remove(name) for name in data)
            for folder in self._path.iterdir():  # empty folders of deleted partitions
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        return Cleared(len(data), len(log), freed)

    def _drop(self, predicate: str) -> int:
        handle = self._lake.open_for_writing(self._table)
        if handle is None:
            return 0
        with lake_errors(self._table, self._path):
            report: dict[str, Any] = handle.delete(predicate, **_options())
            self._acknowledge(handle)
        return int(report["num_deleted_rows"])

    def _crowded(self) -> list[str]:
        """Return the small files of partitions with several of them."""
        files = self._lake.files(self._table)
        small = [name for name in files if (self._path / name).stat().st_size < _SMALL]
        count = Counter(name.rpartition("/")[0] for name in small)
        return [name for name in small if count[name.rpartition("/")[0]] > 1]

    def _verify(self, files: Iterable[str]) -> None:
        """Compare files with their checksums: a rewritten damaged file would get a valid one."""
        sums = self._commits.sums.read().sums
        self._commits.compare(
            self._commits.acknowledged(), {n: sums[n] for n in files if n in sums}
        )

    def _acknowledge(self, handle: DeltaTable) -> None:
        version = handle.version()
        if version > self._commits.acknowledged():
            # Another writer may have committed after this call began, and then crashed.
            self._commits.acknowledge_last_commit(version - 1)
            self._commits.end_commit(version)

    def _old(self, before: datetime) -> set[str]:
        """List the files, relative to the table, that were written before an instant."""
        # Of the log only temporary files of crashed writers.
        return {
            path.relative_to(self._path).as_posix()
            for path in self._path.rglob("*")
            if (path.parent.name != "_delta_log" or _TEMPORARY.search(path.name))
            and path.is_file()
            and path.stat().st_mtime < before.timestamp()
        }

    def _remove(self, name: str) -> int:
        path = self._path / name
        size = path.stat().st_size
        path.unlink()
        return size


def _options() -> dict[str, Any]:
    """Return the options of a commit that is given up after a conflict."""
    return options(notes={ROWS: MAINTENANCE}, retries=0)
