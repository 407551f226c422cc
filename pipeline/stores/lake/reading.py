"""Reading Delta tables.

Guarantees: a read returns rows of files whose checksums it has compared, log included; a damaged
one raises `LakeError`; a damaged last commit never reads as a shorter table.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from pipeline.errors import LakeError
from pipeline.stores.disk import FileState
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.lake.connection import lake_errors
from pipeline.stores.lake.tables import PARTITIONS, SCHEMAS, partition_values, schema_of


def _version_gone(table: str, version: int) -> LakeError:
    """Return the error for a version of a table that cannot be read any more."""
    return LakeError(
        "lake.version_vacuumed",
        f"lake table {table}: version {version} cannot be read: `nightjar gc` has removed "
        "it, or its log is lost; use a newer run, or restore the lake from a backup",
    )


class LakeReader:
    """Reads the Delta tables under one folder.

    Parameters
    ----------
    root
        The folder; may be missing. Call `check_tail` once before reading a lake that another
        process wrote.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        # Opening a table takes milliseconds, and every command compares all of them.
        self._identities: dict[str, tuple[str, str]] = {}
        self._newest: dict[str, tuple[tuple[int, FileState, int], DeltaTable]] = {}

    def version(self, table: str) -> int | None:
        """Return the newest version of a table; None if it was never written."""
        handle = self._open(table)
        return None if handle is None else handle.version()

    @property
    def id(self) -> str:
        """Random id of the lake, which its copies share; "" before the first ingest."""
        return self._identity("batches")[0]

    def owner(self, table: str) -> str:
        """Return the id of the lake in which a table was created; "" if the table has none."""
        return self._identity(table)[1]

    def _identity(self, table: str) -> tuple[str, str]:
        """Return Delta's id of a table and its description; empty for a table that is missing."""
        if table not in self._identities:
            self._open(table)
        return self._identities.get(table, ("", ""))

    def last_txn(self, table: str, app: str, *, version: int | None = None) -> int | None:
        """Return the highest transaction number of an application.

        Parameters
        ----------
        app
            The application of `append`'s `txn`.
        version
            By default the newest; its data files may be gone.

        Returns
        -------
        None if the application has not committed.
        """
        return self.last_txns(table, app, version=version)[0]

    def last_txns(
        self, table: str, *apps: str, version: int | None = None
    ) -> tuple[int | None, ...]:
        """Return the highest transaction numbers of applications in one version.

        Parameters
        ----------
        *apps, version
            As in `last_txn`.
        """
        handle = self._open(table, version)
        return tuple(None if handle is None else handle.transaction_version(app) for app in apps)

    def version_of(self, table: str, app: str, number: int) -> int | None:
        """Return the newest version with the transactions of an application up to a number.

        Parameters
        ----------
        app
            The application of `append`'s `txn`.
        number
            Later transactions do not count.

        Returns
        -------
        None if the table did not exist yet.

        Raises
        ------
        LakeError
            ``lake.version_vacuumed``: the version, or one of its files, is gone.
        """
        low, high = -1, self.version(table)
        if high is None:
            return None
        if (self.last_txn(table, app) or 0) <= number:
            return high
        # The version at `high` is too new, and that at `low` is not, or is gone.
        while high - low > 1:
            middle = (low + high) // 2
            try:
                new = (self.last_txn(table, app, version=middle) or 0) > number
            except LakeError:
                new = False
            low, high = (low, middle) if new else (middle, high)
        if low < 0:
            return None
        if not all((self.root / table / file).exists() for file in self.files(table, low)):
            raise _version_gone(table, low)
        return low

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
        partitions: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Read a table. The order of rows is undefined: sort where it matters.

        Parameters
        ----------
        version
            By default the newest.
        columns
            Columns to read, in this order; by default all.
        where
            Rows to keep.
        partitions
            Condition on the partition column alone: other files are neither read nor compared with
            their checksums.

        Returns
        -------
        Rows with the dtypes of `pipeline.columns`; none if the table was never written.

        Raises
        ------
        LakeError
            ``lake.no_version``, ``lake.version_vacuumed``, ``lake.unavailable``,
            ``lake.file_broken``, and as `verify`.
        """
        handle = self._open(table, version)
        frame = self.empty(table).lazy()
        if handle is not None:
            frame = self._scan(table, handle, partitions)
        # The filter comes first, because it may use a column that is not selected.
        if where is not None:
            frame = frame.filter(where)
        if columns is not None:
            frame = frame.select(columns)
        with lake_errors(table):
            return frame.collect()

    def empty(self, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return an empty frame with the columns of `read`.

        Parameters
        ----------
        columns
            Columns, in this order; by default all.
        """
        frame = pl.DataFrame(schema=schema_of(table))
        return frame if columns is None else frame.select(columns)

    def check_tail(self) -> None:
        """Check the last commit of each table, against its checksums if it was acknowledged.

        Raises
        ------
        LakeError
            The last commit or one of its files is lost, cut or altered; the message names table
            and version.
        """
        for table in SCHEMAS:
            CommitIntegrity(self.root, table).check()

    def verify(self, table: str, version: int | None = None) -> None:
        """Compare every data file of a version with its checksum; reads the whole table.

        Parameters
        ----------
        version
            By default the newest.

        Raises
        ------
        LakeError
            As `CommitIntegrity.verify`.
        """
        handle = self._open(table, version)
        if handle is not None:
            files = self._files_of(table, handle)
            CommitIntegrity(self.root, table).verify(handle.version(), files)

    def files(self, table: str, version: int | None = None) -> set[str]:
        """Return the data files of a version, as paths relative to the table.

        Parameters
        ----------
        version
            By default the newest.
        """
        handle = self._open(table, version)
        return set() if handle is None else set(self._files_of(table, handle))

    def same_rows(self, table: str, first: int | None, second: int | None) -> bool:
        """Return whether two versions have the same rows, judged by the commits between them.

        Parameters
        ----------
        first, second
            Versions; None for a table that did not exist.

        Returns
        -------
        False as well if the log no longer contains the commits between them.
        """
        if first is None or second is None:
            return first == second
        return CommitIntegrity(self.root, table).is_compaction_only(*sorted((first, second)))

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        schema_of(table)
        if not CommitIntegrity(self.root, table).exists:
            if version is not None:
                raise LakeError(
                    "lake.no_version",
                    f"lake table {table}: version {version} does not exist, and no other version; "
                    "restore the lake from a backup",
                )
            return None
        try:
            return self._open_once(table, version)
        except LakeError:
            # `gc` may have replaced the log by a checkpoint while this process was reading it.
            CommitIntegrity(self.root, table).remove_wrong_hint()
            return self._open_once(table, version)

    def _open_once(self, table: str, version: int | None) -> DeltaTable:
        commits = CommitIntegrity(self.root, table)
        # Before the log is read: a commit in between has another version.
        newest = commits.newest()
        known = self._newest.get(table)
        # A write moves the handle on, so that its version is not that of the log entry any more.
        if (
            known is not None
            and known[0] == newest
            and known[1].version() == newest[0]
            and version in (None, newest[0])
        ):
            handle = known[1]
        else:
            handle = self._read_log(table, version)
            if newest is not None and handle.version() == newest[0]:
                self._newest[table] = newest, handle
        # Each time: the log may have been altered since.
        commits.check_log(handle.version())
        metadata = handle.metadata()
        self._identities[table] = str(metadata.id), metadata.description or ""
        return handle

    def _read_log(self, table: str, version: int | None) -> DeltaTable:
        try:
            with lake_errors(table):
                return DeltaTable(self.root / table, version=version)
        except LakeError:
            if version is None:
                raise
            raise _version_gone(table, version) from None

    def _files_of(self, table: str, handle: DeltaTable) -> list[str]:
        """List the data files of a version, relative to the table."""
        with lake_errors(table):
            paths = pl.DataFrame(handle.get_add_actions())["path"].to_list()
        # Delta's log stores paths as URIs, with special characters percent-encoded.
        return sorted(urllib.parse.unquote(path) for path in paths)

    def _scan(self, table: str, handle: DeltaTable, partitions: pl.Expr | None) -> pl.LazyFrame:
        """Scan the files of the selected partitions, after comparing them with their checksums."""
        # `pl.scan_delta` loses a root with a space or an accent in its name.
        with lake_errors(table):
            schema = pl.Schema(handle.schema().to_arrow())
        files = self._files_of(table, handle)
        partition = PARTITIONS.get(table)
        if partitions is not None and partition is not None:
            wanted = partition_values(table, files).to_frame().select(partitions).to_series()
            files = pl.Series(files, dtype=pl.String).filter(wanted).to_list()
        if not files:
            return pl.DataFrame(schema=schema).lazy()
        CommitIntegrity(self.root, table).verify(handle.version(), files)
        return pl.scan_parquet(
            [self.root / table / file for file in files],
            # A bracket or an asterisk in the path of the workspace must not act as a pattern.
            glob=False,
            # Delta keeps the partition column in the names of folders, not in the files.
            hive_partitioning=partition is not None,
            hive_schema=None if partition is None else {partition: schema[partition]},
            schema={name: dtype for name, dtype in schema.items() if name != partition},
            # Older files lack columns that a later write has added.
            missing_columns="insert",
        ).select(schema.names())
