"""Committing to Delta tables.

Guarantees:

* An acknowledged commit is on the disk (data, log and folders are fsynced) with its checksums.
* A repeated transaction writes nothing.
* The log contains no statistics of id columns.
* Each table names the lake in which it was created, so that a table of another lake is noticed.
* A panic of the library is raised as a `LakeError`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable, WriterProperties
from deltalake import write_deltalake as write_delta

from pipeline.errors import ConcurrencyError, LakeError
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.lake.connection import lake_errors, options
from pipeline.stores.lake.reading import LakeReader
from pipeline.stores.lake.row_digest import ROWS, SLICE, row_digest
from pipeline.stores.lake.tables import (
    OPEN_ENDED,
    PARTITIONS,
    PRIVATE,
    check_partition,
    conform,
    properties,
)
from pipeline.stores.locks import LocksConfig, locked

_OPEN_ROWS: Final = 400_000
"""Number of rows, over all files of a commit, that the library holds before it compresses them."""


class Lake(LakeReader):
    """The Delta tables under one folder.

    Parameters
    ----------
    root
        As in `LakeReader`; created by the first write.
    wait_seconds
        Longest time to wait for a lock.
    """

    def __init__(self, root: Path, wait_seconds: float = LocksConfig().wait_seconds) -> None:
        super().__init__(root)
        self._wait_seconds = wait_seconds

    def append(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        txn: tuple[str, int] | None = None,
        numbers: Mapping[str, int] | None = None,
        after: int | None = None,
    ) -> int:
        """Append rows.

        Parameters
        ----------
        table
            Name of the table.
        frame
            Rows with exactly the columns of the table (`items` and `users` may have more).
        txn
            (application, number). A number up to the application's last one was committed before,
            so nothing is written.
        numbers
            Numbers of further applications, which are written with the commit and not compared.
        after
            Version that the table must still have; -1 if it was never written.

        Returns
        -------
        int
            Version with the rows.

        Raises
        ------
        ConcurrencyError
            ``lake.conflict``: another process has written since.
        LakeError
            ``lake.schema``, ``lake.null_partition``, ``lake.partition_name``
        """
        # A file of items or users may bring a new column; `conform` refuses one in other tables.
        schema = "merge" if table in OPEN_ENDED else None
        how = {"mode": "append", "schema_mode": schema}
        return self._write(table, frame, how, txn, numbers, after)

    def replace(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        txn: tuple[str, int] | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> int:
        """Replace all rows of a table.

        Parameters
        ----------
        table
            Name of the table.
        frame, txn, numbers
            As in `append`.

        Returns
        -------
        int
            Version with the rows.
        """
        how = {"mode": "overwrite", "schema_mode": "overwrite"}
        return self._write(table, frame, how, txn, numbers)

    def replace_where(self, table: str, frame: pl.DataFrame, value: str) -> int:
        """Replace the rows of one partition. A repetition leaves the same rows.

        Parameters
        ----------
        table
            A partitioned table.
        frame
            Rows of this partition only.
        value
            Value of the partition column.

        Returns
        -------
        int
            Version with the rows.

        Raises
        ------
        LakeError
            ``lake.other_partition``, ``lake.partition_name``
        """
        return self.replace_partitions(table, frame, [value])

    def replace_partitions(
        self,
        table: str,
        frame: pl.DataFrame,
        values: Collection[str],
        *,
        txn: tuple[str, int] | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> int:
        """Replace the rows of some partitions, whose old files are not read.

        Parameters
        ----------
        table
            A partitioned table.
        frame
            Rows of these partitions only.
        values
            Values of the partition column, as text; at least one.
        txn, numbers
            As in `append`.

        Returns
        -------
        int
            Version with the rows.

        Raises
        ------
        LakeError
            ``lake.other_partition``, ``lake.partition_name``
        """
        column, wanted = PARTITIONS[table], sorted(values)
        # A null is in no list, so that the filter finds it only as a missing value.
        inside = pl.col(column).cast(pl.String).is_in(wanted).fill_null(False)
        if frame.filter(~inside).height:
            raise LakeError(
                "lake.other_partition",
                f"lake table {table}: the rows have another {column} than {', '.join(wanted)}; "
                "this is a defect of Nightjar: report it",
            )
        # The values become part of SQL text below: the check allows no quote.
        check_partition(table, column, pl.Series(wanted))
        named = ", ".join(f"'{value}'" for value in wanted)
        how = {"mode": "overwrite", "predicate": f"{column} IN ({named})"}
        return self._write(table, frame, how, txn, numbers)

    def lock(
        self, name: str, *, wait: bool = False, shared: bool = False
    ) -> AbstractContextManager[None]:
        """Hold a lock of the lake; it is free once the process has ended.

        Parameters
        ----------
        name
            Name of the lock.
        wait
            Wait until the lock is free; only for work that takes seconds.
        shared
            As in `locks.locked`.

        Raises
        ------
        ConcurrencyError
            ``lock.held``
        """
        path = self.root / ".locks" / f"{name}.lock"
        seconds = self._wait_seconds if wait else 0
        return locked(path, f"the lock {name}", wait_seconds=seconds, shared=shared)

    def acknowledge(self, *tables: str) -> None:
        """Force the last commits to the disk if their writers were killed before they did so.

        Call it before something lasting is derived from rows that another process wrote: a power
        cut could take an unacknowledged commit.
        """
        for table in tables:
            self.open_for_writing(table)

    def open_for_writing(self, table: str) -> DeltaTable | None:
        """Return the newest version of a table; None if the table does not exist.

        The last commit is acknowledged first if its writer crashed before it did so.
        """
        handle = self._open(table)
        if handle is not None:
            with lake_errors(table):
                CommitIntegrity(self.root, table).acknowledge_last_commit(handle.version())
        return handle

    def _write(
        self,
        table: str,
        frame: pl.DataFrame,
        how: Mapping[str, Any],
        txn: tuple[str, int] | None,
        numbers: Mapping[str, int] | None,
        after: int | None = None,
    ) -> int:
        """Commit a frame; `how` has further arguments of `write_deltalake`."""
        frame = conform(table, frame)
        tail = CommitIntegrity(self.root, table)
        handle = self._open(table)
        now = -1 if handle is None else handle.version()
        if after is not None and now != after:
            raise ConcurrencyError(
                "lake.conflict",
                f"lake table {table} is at version {now}, not at {after}: another process has "
                "written; start again",
            )
        if handle is not None:
            # Before the transaction number is compared: a retry returns the commit of a crashed
            # writer, which may not be on the disk yet.
            with lake_errors(table):
                tail.acknowledge_last_commit(now)
            last = None if txn is None else handle.transaction_version(txn[0])
            # delta-rs does not reject a number that was committed before.
            if txn is not None and last is not None and txn[1] <= last:
                return now
        partition = PARTITIONS.get(table)
        if partition is not None:
            check_partition(table, partition, frame[partition])
            if not frame[partition].is_sorted():
                frame = frame.sort(partition, maintain_order=True)
        path = self.root / table
        with lake_errors(table, path):
            path.mkdir(0o700 if table in PRIVATE else 0o777, parents=True, exist_ok=True)
            write_delta(
                str(path) if handle is None else handle,
                _stream(frame) if frame.height else frame,
                partition_by=partition,
                configuration=properties(table) if handle is None else None,
                # Delta keeps no properties of others, and has no further use of this text.
                description=(self.id or None) if handle is None else None,
                writer_properties=_properties_for(frame, partition),
                **how,
                **options(
                    {**(numbers or {}), **({} if txn is None else dict([txn]))},
                    notes={ROWS: row_digest(frame)},
                ),
            )
            version = (DeltaTable(path) if handle is None else handle).version()
            tail.end_commit(version)
        return version


def _stream(frame: pl.DataFrame) -> Any:
    """Return a frame as an Arrow stream of slices, of which the library converts one at a time."""
    import pyarrow as pa  # takes memory and time, which reading commands can save

    level = pl.CompatLevel.newest()
    tables = (part.to_arrow(compat_level=level) for part in frame.iter_slices(SLICE))
    batches = (batch for table in tables for batch in table.to_batches())
    schema = frame.clear().to_arrow(compat_level=level).schema
    return pa.RecordBatchReader.from_batches(schema, batches)


def _properties_for(frame: pl.DataFrame, partition: str | None) -> WriterProperties:
    """Return properties by which the files of all partitions together hold few rows in memory."""
    files = 1 if partition is None else frame[partition].n_unique()
    rows = max(1000, _OPEN_ROWS // max(files, 1))
    return WriterProperties(compression="SNAPPY", max_row_group_size=rows)
