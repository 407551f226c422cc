"""The batch ledger: rows of ingested files reach the lake exactly once.

Protocol, under the lake's lock ``ingest``:

1. The rows of one or several files of a table are spooled: written, fsynced, renamed into place.
   The name of a spooled file has its checksum.
2. One commit to `batches` adds an `intent` row per file.
3. The rows are written to quarantine, then to the table. Both commits carry the transaction
   ("ingest", seq of the last file), so the lake writes them once, and the number of all files up to
   it (`files_number`).
4. One commit to `batches` adds a `done` row per file.
5. The spool is removed.

Guarantees:

* A crash after step 2 is completed from the spool by `recover`. The lake is then the same as
  without the crash, versions included.
* A crash before step 2 changes nothing; the files are ingested again.
* A number that `commit` gives out is new to all tables, or nothing more is written.
* A process that was overtaken (suspended while another one took its lock) finds foreign rows in
  `batches` and writes nothing more.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.columns import BatchStatus
from pipeline.errors import ConcurrencyError, LakeError, StorageError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import fault_text, sha256, storage_errors, sync
from pipeline.stores.lake import Lake

APP: Final = "ingest"
FILES: Final = "ingest.files"
"""Application whose last number in a table is the `files_number` at its last commit of `APP`."""
LOST: Final = "lost"
MERGED: Final = ("items", "users")
"""Tables that each file replaces as a whole; rows of `events` are appended."""


@dataclass(frozen=True)
class Batch:
    """The outcome of one file; its fields are columns of `batches`.

    Attributes
    ----------
    batch_id
        SHA-256 of the file's bytes.
    rows
        ``accepted + quarantined + duplicates + tombstoned + skipped``.
    vault_id
        Id of the vault that gave the pseudonyms; "" without one.
    vault_users
        Users in the vault, those of the rows included.
    """

    batch_id: str
    table: str
    source: str
    file: str
    rows: int
    accepted: int
    quarantined: int
    duplicates: int
    tombstoned: int
    skipped: int
    vault_id: str
    vault_users: int
    ingested_at: datetime


class Batches:
    """The table `batches` and the spool of a lake; the caller holds the lock ``ingest``."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._spool = lake.root / "_spool"
        version = lake.version("batches")
        self._at = -1 if version is None else version
        self._done: tuple[int, pl.DataFrame] | None = None

    def recover(self) -> int:
        """Complete the intents that a crash left open, and return the number of their files."""
        ledger = self._lake.read("batches")
        # Rows, and the removal of the spool, must not outlast the commit that they follow from.
        self._lake.acknowledge("batches")
        ended = ledger.filter(pl.col(c.STATUS) != BatchStatus.INTENT)
        open_intents = ledger.join(ended, on=c.SEQ, how="anti").sort(c.SEQ)
        if open_intents.height:
            # Every ingest starts with `recover`, so all open intents belong to one commit.
            self._carry_out(open_intents)
        self._remove_orphans()
        return open_intents.height

    def seen(self, table: str, batch_id: str) -> bool:
        """Return whether a file with the same bytes was ingested before.

        Parameters
        ----------
        table
            Of items and users only the latest file counts: an older file that arrives again
            replaces the table again.
        batch_id
            SHA-256 of the file's bytes.
        """
        if self._done is None or self._done[0] != self._at:
            done = pl.col(c.STATUS) == BatchStatus.DONE
            columns = [c.SEQ, c.BATCH_ID, c.TABLE]
            self._done = self._at, self._lake.read("batches", where=done, columns=columns)
        files = self._done[1].filter(pl.col(c.TABLE) == table)
        if table in MERGED:
            files = files.filter(pl.col(c.SEQ) == pl.col(c.SEQ).max())
        return batch_id in files[c.BATCH_ID]

    def commit(
        self, files: Sequence[Batch], rows: pl.DataFrame | None, quarantine: pl.DataFrame
    ) -> None:
        """Ingest files of one table, all or none.

        Parameters
        ----------
        files
            In order of arrival; of `items` and `users` the last one wins.
        rows
            New rows of `events`; for `items` and `users` the whole table; None if the table
            does not change.
        quarantine
            Rows with the schema `columns.QUARANTINE`.

        Raises
        ------
        ConcurrencyError
            ``ingest.overtaken``: another ingest has replaced this one.
        StorageError
            ``storage.cannot_write``, ``ingest.spool_damaged``; ``lake.number_taken``: a table is
            newer than `batches`.
        """
        last = self._lake.read("batches", columns=[c.SEQ])[c.SEQ].max()
        first = (last if isinstance(last, int) else 0) + 1
        frames = {"quarantine": quarantine if quarantine.height else None, files[0].table: rows}
        number = first + len(files) - 1
        written = {name: frame for name, frame in frames.items() if frame is not None}
        self._refuse_taken(first, written)
        self._spool_frames(number, written)
        intents = pl.DataFrame(
            [{c.SEQ: seq, **vars(batch)} for seq, batch in enumerate(files, start=first)],
            schema=c.BATCHES,
        )
        self._note(intents, BatchStatus.INTENT)
        if not (self._spool / str(number)).is_dir():
            # The files must not be archived: their rows are gone. `recover` voids the intent.
            raise ConcurrencyError(
                "ingest.overtaken",
                f"another ingest has emptied {self._spool}; start this one again",
            )
        self._carry_out(intents, written)
        # Only its own folder: an overtaken process must not remove the spool of another one.
        self._remove_orphans(str(number))

    def newest_ingest(self) -> datetime | None:
        """Return the latest `ingested_at` of a file, in UTC; None before the first file."""
        newest = self._lake.read("batches", columns=[c.INGESTED_AT])[c.INGESTED_AT].max()
        return newest if isinstance(newest, datetime) else None

    def lost(self, events: pl.DataFrame) -> list[dict[str, Any]]:
        """Return the files of which events are missing.

        Parameters
        ----------
        events
            Column `batch_id` of the events that can be read.

        Returns
        -------
        Rows of `columns.BATCHES` in the order of their ingest, with the number of missing events
        as `LOST`.
        """
        present = events.group_by(c.BATCH_ID).len(LOST)
        joined = self._done_events().join(present, on=c.BATCH_ID, how="left")
        lost = pl.col(c.ACCEPTED) - pl.col(LOST).fill_null(0)
        short = joined.with_columns(lost.alias(LOST)).filter(pl.col(LOST) > 0)
        return list(short.sort(c.SEQ).iter_rows(named=True))

    def number_behind(self) -> dict[str, int]:
        """Return the numbers of the last file of events if the table does not have them yet."""
        last = max(self._done_events()[c.SEQ], default=0)
        return {} if last <= self.last_at() else self._numbers(last)

    def _numbers(self, seq: int) -> dict[str, int]:
        """Return the transaction numbers of a commit by application."""
        files = self._lake.read("batches", columns=[c.SEQ, c.BATCH_ID])
        return {APP: seq, FILES: files_number(files, seq)}

    def _done_events(self) -> pl.DataFrame:
        done = (pl.col(c.STATUS) == BatchStatus.DONE) & (pl.col(c.TABLE) == "events")
        return self._lake.read("batches", where=done)

    def last_at(self, version: int | None = None) -> int:
        """Return the `seq` of the last file in a version of `events`; 0 if there is none."""
        return self._lake.last_txn("events", APP, version=version) or 0

    def last_known(self, table: str, at: datetime) -> int:
        """Return the `seq` of the last file of a table before the first that arrived later.

        Parameters
        ----------
        table
            Table of the files.
        at
            Instant; a file that was ingested at it has arrived.
        """
        done = (pl.col(c.STATUS) == BatchStatus.DONE) & (pl.col(c.TABLE) == table)
        files = self._lake.read("batches", columns=[c.SEQ, c.INGESTED_AT], where=done)
        later = files.filter(pl.col(c.INGESTED_AT) > at)[c.SEQ]
        # By the number of the first later one: a clock may have been set back in between.
        return min(later) - 1 if len(later) else max(files[c.SEQ], default=0)

    def arrived_since(self, seq: int) -> dict[str, int]:
        """Return ``{batch_id: seq}`` of the files of events with a higher `seq`."""
        later = (pl.col(c.SEQ) > seq) & (pl.col(c.TABLE) == "events")
        arrived = self._lake.read("batches", columns=[c.BATCH_ID, c.SEQ], where=later)
        return dict(arrived.sort(c.SEQ).iter_rows())

    def _refuse_taken(self, first: int, tables: Iterable[str]) -> None:
        """Raise if a table has a number that is given out: its rows would count as written."""
        for table in tables:
            taken = self._lake.last_txn(table, APP) or 0
            # If another ingest has overtaken this one, `_note` raises.
            if taken >= first and self._lake.version("batches") == self._at:
                raise LakeError(
                    "lake.number_taken",
                    f"lake table {table} has rows up to file {taken}, but batches ends at file "
                    f"{first - 1}: batches is older; restore the folder lake as a whole from one "
                    "backup",
                )

    def _carry_out(
        self, intents: pl.DataFrame, frames: Mapping[str, pl.DataFrame] | None = None
    ) -> None:
        seq, table = _number(intents), intents[c.TABLE][0]
        spool = self._spool / str(seq)
        status = BatchStatus.DONE if spool.is_dir() else BatchStatus.VOID
        if status is BatchStatus.DONE:
            _refuse_incomplete(spool, intents)
            self._unspool(spool, "quarantine", seq, frames)
            failpoint("quarantine_written")
            failpoint("before_commit")
            self._unspool(spool, table, seq, frames)
        self._note(intents, status)

    def _unspool(
        self, spool: Path, table: str, seq: int, frames: Mapping[str, pl.DataFrame] | None = None
    ) -> None:
        """Write the spooled rows of a table; `seq` lets the lake write them once."""
        for path in spool.glob(f"{table}.*.parquet"):
            # The process that spooled the rows still has them; a second copy would double memory.
            frame = _spooled(path) if frames is None else frames[table]
            write = self._lake.replace if table in MERGED else self._lake.append
            write(table, frame, txn=(APP, seq), numbers=self._numbers(seq))

    def _note(self, rows: pl.DataFrame, status: BatchStatus) -> None:
        """Append rows with a status to the version of `batches` that this process has read."""
        frame = rows.with_columns(pl.lit(status.value).alias(c.STATUS))
        # With a transaction number two writers that start from one version conflict. It is even
        # for an intent and odd for its end, so that each is written once.
        number = 2 * _number(rows) + (status is not BatchStatus.INTENT)
        self._at = self._lake.append("batches", frame, txn=(APP, number), after=self._at)

    def _spool_frames(self, seq: int, frames: dict[str, pl.DataFrame]) -> None:
        target = self._spool / str(seq)
        sentence = f"cannot write {self._spool}"
        with storage_errors("storage.cannot_write", sentence):
            try:
                self._spool.mkdir(parents=True, exist_ok=True)
                draft = Path(tempfile.mkdtemp(prefix=".", dir=self._spool))
                for name, frame in frames.items():
                    path = draft / f"{name}.parquet"
                    frame.write_parquet(path, compression="lz4", statistics=False)
                    sync(path)
                    path.rename(draft / f"{name}.{sha256(path)}.parquet")
                sync(draft)
                draft.rename(target)
                sync(self._spool)
            except pl.exceptions.PolarsError as error:  # polars hides the reason of the system
                reason = fault_text(error, self._spool)
                raise StorageError("storage.cannot_write", f"{sentence}: {reason}") from error
            except OSError:
                if not target.is_dir():
                    raise
                # Every ingest empties the spool first, so another one at work wrote this folder.
                raise ConcurrencyError(
                    "ingest.overtaken", f"another ingest is writing {target}; start this one again"
                ) from None

    def _remove_orphans(self, names: str = "*") -> None:
        for folder in self._spool.glob(names):
            shutil.rmtree(folder, ignore_errors=True)


def _spooled(path: Path) -> pl.DataFrame:
    """Return the rows of a spooled file; raise if it is damaged."""
    try:
        if sha256(path) not in path.name:
            raise ValueError(path.name)
        return pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "ingest.spool_damaged",
            f"{path} is damaged, so an open ingest cannot be completed; restore the file, or "
            f"remove the folder {path.parent} and ingest the same files again",
        ) from error


def _refuse_incomplete(spool: Path, intents: pl.DataFrame) -> None:
    """Raise if a spooled file is missing: its rows would count as written."""
    rows = {
        "quarantine": intents[c.QUARANTINED].sum(),
        intents[c.TABLE][0]: intents[c.ACCEPTED].sum(),
    }
    for table, number in rows.items():
        if number and not any(spool.glob(f"{table}.*.parquet")):
            raise StorageError(
                "ingest.spool_damaged",
                f"{spool} lacks the rows of {table}, so an open ingest cannot be completed; remove "
                "this folder and ingest the same files again",
            )


def files_number(batches: pl.DataFrame, seq: int) -> int:
    """Return a number that identifies the files up to one: other files give another number.

    Parameters
    ----------
    batches
        Columns `seq` and `batch_id` of the table.
    seq
        The last file.

    Returns
    -------
    The first 60 bits of a SHA-256.
    """
    files = batches.filter(pl.col(c.SEQ) <= seq).unique(c.SEQ).sort(c.SEQ)
    digest = hashlib.sha256("".join(files[c.BATCH_ID]).encode())
    return int(digest.hexdigest()[:15], 16)


def _number(rows: pl.DataFrame) -> int:
    """Return the number of a commit: the `seq` of its last file."""
    return int(rows[c.SEQ].to_numpy().max())
