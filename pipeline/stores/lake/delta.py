"""Committing to Delta tables.

Guarantees:

* An acknowledged commit is on the disk (data, log and folders are fsynced) with its checksums.
* A repeated transaction writes nothing.
* The log contains no statistics of id columns.
* Each table names the lake in which it was created, so that a table of another lake is noticed.
* A panic of the library is raised as a `LakeError`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from arro3.core import RecordBatchReader
from deltalake import DeltaTable, Schema
from deltalake import write_deltalake as write_delta
from deltalake.transaction import AddAction, create_table_with_add_actions

from pipeline.errors import ConcurrencyError, LakeError
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.lake.connection import lake_errors, options
from pipeline.stores.lake.reading import LakeReader
from pipeline.stores.lake.row_digest import ROWS, row_digest
from pipeline.stores.lake.tables import (
    OPEN_ENDED,
    PARTITIONS,
    PRIVATE,
    check_partition,
    conform,
    properties,
)
from pipeline.stores.locks import LocksConfig, locked


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
        about = options(
            {**(numbers or {}), **({} if txn is None else dict([txn]))},
            notes={ROWS: row_digest(frame)},
        )
        created: dict[str, Any] = {}
        if handle is None:
            # Delta keeps no properties of others, and has no further use of this text.
            created = {"configuration": properties(table), "description": self.id or None}
        with lake_errors(table, path):
            path.mkdir(0o700 if table in PRIVATE else 0o777, parents=True, exist_ok=True)
            if partition is not None and how["mode"] == "append" and frame.height:
                _append_partitions(path, handle, frame, partition, created, about)
            else:
                write_delta(
                    str(path) if handle is None else handle,
                    frame,
                    partition_by=partition,
                    **created,
                    **how,
                    **about,
                )
            version = (DeltaTable(path) if handle is None else handle).version()
            # All since, in their order, should another process have committed in between.
            for committed in range(now + 1, version + 1):
                tail.end_commit(committed)
        return version


def _append_partitions(
    path: Path,
    handle: DeltaTable | None,
    frame: pl.DataFrame,
    column: str,
    created: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Write one file per partition, then commit all of them; `created` is for a new table."""
    # The library's own writer holds a file of each partition open: with ten years of days a
    # gigabyte, however few rows they have.
    added, start = [], 0
    for rows, value in frame[column].rle().struct.unnest().iter_rows():
        folder = path / f"{column}={value}"
        folder.mkdir(exist_ok=True)
        file = folder / f"part-{uuid4()}.snappy.parquet"
        part = frame[start : start + rows].drop(column)
        part.write_parquet(file, compression="snappy", statistics=False)
        state, start = file.stat(), start + rows
        added.append(
            AddAction(
                path=str(file.relative_to(path)),
                size=state.st_size,
                partition_values={column: str(value)},
                modification_time=state.st_mtime_ns // 1_000_000,
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            )
        )
    if handle is not None:
        handle.create_write_transaction([*added], "append", handle.schema(), column, **about)
        handle.update_incremental()
        return
    schema = Schema.from_arrow(RecordBatchReader.from_stream(frame.clear()).schema)
    create_table_with_add_actions(str(path), schema, added, partition_by=column, **created, **about)
