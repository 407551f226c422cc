"""The lake: Delta tables of a workspace, the one user of deltalake.

Promises: a commit that was acknowledged is on the disk (data, log and folders are fsynced) and has
its sha256 sums beside the log; a replayed transaction writes nothing; a broken last commit is an
error with a sentence, never a shorter table; no statistics of id columns enter the log. A panic of
the library leaves here as a `LakeError`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import write_deltalake as write_delta
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline import columns as c
from pipeline.errors import ConcurrencyError, LakeError

SCHEMAS: Final[Mapping[str, pl.Schema]] = {
    "events": c.EVENTS,
    "items": c.ITEMS,
    "users": c.USERS,
    "quarantine": c.QUARANTINE,
    "batches": c.BATCHES,
    "publications": c.PUBLICATIONS,
    "recommendations": c.RECOMMENDATIONS,
}
PARTITIONS: Final[Mapping[str, str]] = {
    "events": c.EVENT_DAY,
    "recommendations": c.PUBLICATION_ID,
}
OPEN_ENDED: Final = ("items", "users")
"""Tables that keep further columns beside those of their schema."""
STATISTICS: Final = (c.TIMESTAMP, c.INGESTED_AT, c.SEQ, c.GENERATION, c.AS_OF)
"""Columns whose bounds may stand in the log; an id never does."""


class Lake:
    """The Delta tables under one folder.

    Parameters
    ----------
    root
        The folder; made at the first write. Call `check_tail` once before trusting a lake that
        another process wrote.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def version(self, table: str) -> int | None:
        """Return the number of the newest commit; None where the table was never written."""
        handle = self._open(table)
        return None if handle is None else int(handle.version())

    def last_txn(self, table: str, app: str) -> int | None:
        """Return the highest number that `app` committed to the table, None for never."""
        handle = self._open(table)
        return None if handle is None else _last_txn(handle, app)

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Return the rows, in no promised order (sort before anything that depends on it).

        Parameters
        ----------
        version
            The commit to read; None is the newest. A commit that is not there raises `LakeError`.
        columns
            Only these, in this order.
        where
            Rows to keep; a condition on the partition column skips whole files.

        Returns
        -------
        pl.DataFrame
            With the dtypes of `pipeline.columns`; empty where the table was never written.
        """
        handle = self._open(table, version)
        if handle is None:
            frame = pl.DataFrame(schema=_schema_of(table)).lazy()
        else:
            frame = self._scan(table, handle)
        if where is not None:
            frame = frame.filter(where)
        if columns is not None:
            frame = frame.select(columns)
        with _door(table):
            return frame.collect()

    def empty(self, table: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return no rows, in the shape of `read`."""
        frame = pl.DataFrame(schema=_schema_of(table))
        return frame if columns is None else frame.select(columns)

    def append(self, table: str, frame: pl.DataFrame, *, txn: tuple[str, int] | None = None) -> int:
        """Add rows and return the version that holds them.

        Parameters
        ----------
        frame
            Rows with exactly the columns of the table (`items` and `users` may have more).
        txn
            (application, number): a number that is not above the application's last one was
            committed before, so nothing is written.
        """
        extra = table in OPEN_ENDED
        return self._write(table, frame, txn, mode="append", schema="merge" if extra else None)

    def replace(
        self, table: str, frame: pl.DataFrame, *, txn: tuple[str, int] | None = None
    ) -> int:
        """Put `frame` in the place of the whole table; `txn` as in `append`."""
        return self._write(table, frame, txn, mode="overwrite", schema="overwrite")

    def replace_where(self, table: str, frame: pl.DataFrame, column: str, value: str) -> int:
        """Put `frame` in the place of one partition; doing it twice changes nothing more."""
        if PARTITIONS.get(table) != column:
            raise LakeError(f"lake table {table}: is not partitioned by {column}")
        if frame.filter(pl.col(column).ne_missing(pl.lit(value))).height:
            raise LakeError(f"lake table {table}: rows of another {column} than the one replaced")
        _plain(table, column, pl.Series([value]))
        predicate = f"{column} = '{value}'"
        return self._write(table, frame, None, mode="overwrite", predicate=predicate)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name`, or raise `ConcurrencyError` at once; death frees it."""
        folder = self.root / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LakeError(f"the lock {name} cannot be made: {_words(error)}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
                raise ConcurrencyError(
                    f"the lock {name} is held by process {holder}; wait for it and start again"
                ) from None
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def check_tail(self) -> None:
        """Check the last commit of each table, by its sums where it was acknowledged.

        Raises
        ------
        LakeError
            A last commit that is missing, cut or altered, or whose files are; the sentence names
            table and version.
        """
        for table in SCHEMAS:
            self._check_tail(table)

    def verify(self, table: str, version: int | None = None) -> None:
        """Compare every data file of one version with its sum; reads the whole table's bytes."""
        handle = self._open(table, version)
        if handle is None:
            return
        sums: dict[str, str] = {}
        for line in _lines(self._sums_path(table)):
            sums.update(line["files"])
        with _door(table):
            live = self._files_of(handle)
        self._compare(table, int(handle.version()), {p: sums[p] for p in live if p in sums})

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        _schema_of(table)
        path = self.root / table
        if not (path / "_delta_log").is_dir():
            if version is not None:
                raise LakeError(f"lake table {table}: version {version} is not there")
            return None
        try:
            with _door(table):
                return DeltaTable(path, version=version)
        except LakeError:
            if version is None:
                raise
            raise LakeError(f"lake table {table}: version {version} cannot be read") from None

    def _files_of(self, handle: DeltaTable) -> list[str]:
        """List the data files of a version, relative to the table."""
        paths = pl.DataFrame(handle.get_add_actions())["path"].to_list()
        return sorted(urllib.parse.unquote(path) for path in paths)

    def _scan(self, table: str, handle: DeltaTable) -> pl.LazyFrame:
        # `pl.scan_delta` loses a root with a space or an accent in its name.
        with _door(table):
            schema = pl.Schema(handle.schema().to_arrow())
            files = self._files_of(handle)
        if not files:
            return pl.DataFrame(schema=schema).lazy()
        partition = PARTITIONS.get(table)
        return pl.scan_parquet(
            [self.root / table / file for file in files],
            glob=False,
            hive_partitioning=partition is not None,
            hive_schema=None if partition is None else {partition: schema[partition]},
            schema={name: dtype for name, dtype in schema.items() if name != partition},
            missing_columns="insert",
        ).select(schema.names())

    def _write(
        self,
        table: str,
        frame: pl.DataFrame,
        txn: tuple[str, int] | None,
        *,
        mode: str,
        schema: str | None = None,
        predicate: str | None = None,
    ) -> int:
        frame = _conform(table, frame)
        handle = self._open(table)
        if handle is not None:
            self._catch_up(table, int(handle.version()))
            last = None if txn is None else _last_txn(handle, txn[0])
            if txn is not None and last is not None and txn[1] <= last:
                return int(handle.version())
        partition = PARTITIONS.get(table)
        if partition is not None:
            _plain(table, partition, frame[partition])
            frame = frame.sort(partition, maintain_order=True)
        path = self.root / table
        options: dict[str, Any] = {
            "mode": mode,
            "partition_by": partition,
            "schema_mode": schema,
            "configuration": _properties(table) if handle is None else None,
            "commit_properties": CommitProperties(
                app_transactions=None if txn is None else [Transaction(*txn)]
            ),
            # Old versions are what replays and audits read: the library must not expire them.
            "post_commithook_properties": PostCommitHookProperties(cleanup_expired_logs=False),
        }
        if predicate is not None:
            options["predicate"] = predicate
        with _door(table):
            path.mkdir(parents=True, exist_ok=True)
            write_delta(handle if handle is not None else str(path), frame, **options)
            version = int((handle if handle is not None else DeltaTable(path)).version())
            self._acknowledge(table, version)
        return version

    def _catch_up(self, table: str, version: int) -> None:
        """Acknowledge commits whose writer was killed before it could."""
        known = _last_line(self._sums_path(table))
        with _door(table):
            for missing in range(known["version"] + 1 if known else 0, version + 1):
                self._acknowledge(table, missing)

    def _acknowledge(self, table: str, version: int) -> None:
        """Fsync all that the commit wrote, then write its sums; only then it counts."""
        path = self.root / table
        files = self._files(table, version)
        folders = {path / Path(file).parent for file in files} | {path, self.root}
        pointer = path / "_delta_log" / "_last_checkpoint"
        _sync([path / file for file in files] + ([pointer] if pointer.exists() else []))
        _sync(sorted(folders))
        line = {"version": version, "files": {file: _sha256(path / file) for file in files}}
        sums = self._sums_path(table)
        sums.parent.mkdir(exist_ok=True)
        is_new = not sums.exists()
        with sums.open("ab") as stream:
            # A line cut by a crash must not swallow this one.
            stream.write(b"\n" * (stream.tell() > 0) + json.dumps(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            _sync([sums.parent, self.root])

    def _files(self, table: str, version: int) -> list[str]:
        """List the files of one commit, relative to the table: its data, its log, a checkpoint."""
        log = self.root / table / "_delta_log"
        entry = log / f"{version:020}.json"
        try:
            actions = [json.loads(line) for line in entry.read_text("utf-8").splitlines()]
        except FileNotFoundError:
            raise LakeError(f"lake table {table}: the log of version {version} is lost") from None
        except ValueError:
            actions = []
        if not actions:
            raise LakeError(
                f"lake table {table}: the log of version {version} is cut or empty ({entry.name})"
            )
        added = [urllib.parse.unquote(a["add"]["path"]) for a in actions if "add" in a]
        logs = [entry.name, f"{version:020}.checkpoint.parquet"]
        return added + [f"_delta_log/{name}" for name in logs if (log / name).exists()]

    def _check_tail(self, table: str) -> None:
        log = self.root / table / "_delta_log"
        if not log.is_dir():
            return
        names = (re.fullmatch(r"(\d{20})\.json", path.name) for path in log.iterdir())
        last = max((int(match[1]) for match in names if match), default=-1)
        acknowledged = _last_line(self._sums_path(table))
        if acknowledged is not None and acknowledged["version"] > last:
            raise LakeError(
                f"lake table {table}: the log of version {acknowledged['version']} is lost"
            )
        if last < 0:
            raise LakeError(f"lake table {table}: the log of version 0 is lost")
        files = self._files(table, last)
        if acknowledged is not None and acknowledged["version"] == last:
            self._compare(table, last, acknowledged["files"])
            return
        # Written but not acknowledged (the writer was killed): whole, or it is an error.
        for file in files:
            path = self.root / table / file
            if not path.is_file() or path.stat().st_size == 0:
                raise LakeError(f"lake table {table}: a file of version {last} is lost ({file})")
        with _door(table):
            pl.scan_delta(DeltaTable(self.root / table, version=last)).head(1).collect()

    def _compare(self, table: str, version: int, sums: Mapping[str, str]) -> None:
        for file, expected in sums.items():
            path = self.root / table / file
            try:
                found = _sha256(path)
            except OSError:
                raise LakeError(
                    f"lake table {table}: a file of version {version} is lost ({file})"
                ) from None
            if found != expected:
                raise LakeError(
                    f"lake table {table}: a file of version {version} was altered ({file})"
                )

    def _sums_path(self, table: str) -> Path:
        return self.root / "_sums" / f"{table}.jsonl"


def _schema_of(table: str) -> pl.Schema:
    try:
        return SCHEMAS[table]
    except KeyError:
        raise LakeError(f"the lake has no table {table}; it has {', '.join(SCHEMAS)}") from None


def _conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame in the table's column order; another shape is a `LakeError`."""
    schema = _schema_of(table)
    wrong = [name for name, dtype in schema.items() if frame.schema.get(name) != dtype]
    extra = [name for name in frame.columns if name not in schema]
    if wrong or (extra and table not in OPEN_ENDED):
        named = ", ".join(wrong + extra)
        raise LakeError(f"lake table {table}: columns that do not fit its schema: {named}")
    return frame.select([*schema.names(), *extra])


def _plain(table: str, column: str, values: pl.Series) -> None:
    """Refuse partition values that would need escaping: they become names of folders."""
    if values.null_count():
        raise LakeError(f"lake table {table}: rows without {column}")
    if values.dtype == pl.String and not values.str.contains(r"^[A-Za-z0-9][A-Za-z0-9._-]*$").all():
        raise LakeError(f"lake table {table}: a {column} with characters that no folder name has")


def _properties(table: str) -> dict[str, str]:
    schema = _schema_of(table)
    allowed = [name for name in STATISTICS if name in schema]
    if not allowed:
        return {"delta.dataSkippingNumIndexedCols": "0"}
    return {"delta.dataSkippingStatsColumns": ",".join(allowed)}


def _last_txn(handle: DeltaTable, app: str) -> int | None:
    last = handle.transaction_version(app)
    return None if last is None else int(last)


@contextmanager
def _door(table: str) -> Iterator[None]:
    """Turn what the libraries raise, panics included, into a `LakeError`."""
    try:
        yield
    except LakeError:
        raise
    except CommitFailedError as error:
        raise ConcurrencyError(
            f"lake table {table}: another writer came first: {_words(error)}"
        ) from error
    except (OSError, DeltaError, pl.exceptions.PolarsError, ValueError) as error:
        raise LakeError(f"lake table {table}: {_words(error)}") from error
    except BaseException as error:
        # Rust panics are no `Exception`, and their class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise LakeError(f"lake table {table}: a file is broken: {_words(error)}") from None


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


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


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines; one that a crash cut was never acknowledged."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _last_line(path: Path) -> dict[str, Any] | None:
    """Return the last whole line, reading backwards: the file grows with every commit."""
    if not path.exists():
        return None
    size = path.stat().st_size
    reach = 1 << 16
    with path.open("rb") as stream:
        while True:
            start = max(0, size - reach)
            stream.seek(start)
            lines = stream.read().split(b"\n")
            for line in reversed(lines if start == 0 else lines[1:]):
                try:
                    return dict(json.loads(line))
                except ValueError:
                    continue
            if start == 0:
                return None
            reach *= 8
