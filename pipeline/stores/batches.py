"""The batch ledger: each file's rows reach the lake exactly once, whatever is killed when.

The protocol, under the lake's lock ``ingest``: the rows of one or several files of a table are
spooled (fsynced, then renamed into place) → an `intent` row a file in `batches`, in one commit →
quarantine → the table, each with the transaction ("ingest", seq of the last of the files), which
the lake writes once → a `done` row a file, in one commit → the spool goes. Intents that a crash
left open are carried out from their spool, so the outcome is that of a calm run, versions included.
Without an intent nothing has happened, and the files are simply taken in again. An attempt that was
overtaken (it slept while its lock was taken away) finds rows that are not its own, and writes
nothing more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.columns import BatchStatus
from pipeline.errors import ConcurrencyError, StorageError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import storage_errors, sync
from pipeline.stores.lake import Lake

APP: Final = "ingest"
MERGED: Final = ("items", "users")
"""Tables that a file replaces as a whole; events are appended."""


@dataclass(frozen=True)
class Batch:
    """One file's outcome, as the ledger keeps it; its fields are columns of `batches`.

    Attributes
    ----------
    batch_id
        sha256 of the file's bytes.
    rows
        ``accepted + quarantined + duplicates + tombstoned + skipped``.
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
    ingested_at: datetime


class Batches:
    """The table `batches` and the spool of a lake; every method wants the lock ``ingest`` held."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._spool = lake.root / "_spool"
        version = lake.version("batches")
        self._at = -1 if version is None else version
        self._done: tuple[int, pl.DataFrame] | None = None

    def recover(self) -> int:
        """Carry out what a crash left open; return how many files that were."""
        ledger = self._lake.read("batches")
        ended = ledger.filter(pl.col(c.STATUS) != BatchStatus.INTENT)
        still_open = ledger.join(ended, on=c.SEQ, how="anti").sort(c.SEQ)
        if still_open.height:
            # Whoever goes on carries out first, so they are of one commit.
            self._carry_out(still_open)
        self._remove_orphans()
        return still_open.height

    def seen(self, table: str, batch_id: str) -> bool:
        """Tell whether the file's bytes were taken in before.

        For items and users only if nothing was merged since: the latest file wins, so an older one
        that comes again has something to say.
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
        """Take files of one table in, all of them or none.

        Parameters
        ----------
        files
            In their order; of `items` and `users` the last one wins.
        rows
            New rows of `events`; for `items` and `users` the whole table; None where nothing
            changes.
        quarantine
            Rows of `columns.QUARANTINE`.
        """
        last = self._lake.read("batches", columns=[c.SEQ])[c.SEQ].max()
        first = (last if isinstance(last, int) else 0) + 1
        frames = {"quarantine": quarantine if quarantine.height else None, files[0].table: rows}
        number = first + len(files) - 1
        self._spool_frames(number, {name: f for name, f in frames.items() if f is not None})
        intents = pl.DataFrame(
            [{c.SEQ: seq, **vars(batch)} for seq, batch in enumerate(files, start=first)],
            schema=c.BATCHES,
        )
        self._note(intents, BatchStatus.INTENT)
        if not (self._spool / str(number)).is_dir():
            # Its files must not be archived; the next start finds an intent that nobody can keep.
            raise ConcurrencyError(
                "ingest.overtaken",
                f"another ingest has gone on and emptied {self._spool}; start again",
            )
        self._carry_out(intents)
        # Its own alone: whoever was overtaken must not take away what another one needs.
        self._remove_orphans(str(number))

    def last_at(self, version: int | None = None) -> int:
        """Return the number of the last file that is in a version of `events`, 0 before any."""
        return self._lake.last_txn("events", APP, version=version) or 0

    def arrived_since(self, seq: int) -> dict[str, int]:
        """Return the files of events with a higher number: their keys, and that number."""
        later = (pl.col(c.SEQ) > seq) & (pl.col(c.TABLE) == "events")
        arrived = self._lake.read("batches", columns=[c.BATCH_ID, c.SEQ], where=later)
        return dict(arrived.sort(c.SEQ).iter_rows())

    def _carry_out(self, intents: pl.DataFrame) -> None:
        seq, table = _number(intents), intents[c.TABLE][0]
        spool = self._spool / str(seq)
        status = BatchStatus.DONE if spool.is_dir() else BatchStatus.VOID
        if status is BatchStatus.DONE:
            self._unspool(spool, "quarantine", seq)
            failpoint("quarantine_written")
            failpoint("before_commit")
            self._unspool(spool, table, seq)
        self._note(intents, status)

    def _unspool(self, spool: Path, table: str, seq: int) -> None:
        """Write what the spool holds for a table; the number lets the lake write it once."""
        path = spool / f"{table}.parquet"
        if not path.exists():
            return
        try:
            frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                "ingest.spool_damaged", f"{path} is damaged: an open ingest cannot be finished"
            ) from error
        write = self._lake.replace if table in MERGED else self._lake.append
        write(table, frame, txn=(APP, seq))

    def _note(self, rows: pl.DataFrame, status: BatchStatus) -> None:
        """Add rows with a status right behind those that this attempt knows."""
        frame = rows.with_columns(pl.lit(status.value).alias(c.STATUS))
        # The number makes two writers who start from one version conflict.
        number = 2 * _number(rows) + (status is not BatchStatus.INTENT)
        self._at = self._lake.append("batches", frame, txn=(APP, number), after=self._at)

    def _spool_frames(self, seq: int, frames: dict[str, pl.DataFrame]) -> None:
        target = self._spool / str(seq)
        with storage_errors("cannot_write", self._spool):
            try:
                self._spool.mkdir(parents=True, exist_ok=True)
                draft = Path(tempfile.mkdtemp(prefix=".", dir=self._spool))
                for name, frame in frames.items():
                    path = draft / f"{name}.parquet"
                    frame.write_parquet(path, compression="lz4", statistics=False)
                    sync(path)
                sync(draft)
                draft.rename(target)
                sync(self._spool)
            except OSError:
                if not target.is_dir():
                    raise
                # Each start sweeps, so it is of somebody who is at work.
                raise ConcurrencyError(
                    "ingest.overtaken",
                    f"another ingest writes {target}, so this one writes nothing; start again",
                ) from None

    def _remove_orphans(self, names: str = "*") -> None:
        for left in self._spool.glob(names):
            shutil.rmtree(left, ignore_errors=True)


def _number(rows: pl.DataFrame) -> int:
    """Return the number of a commit: that of its last file."""
    return int(rows[c.SEQ].to_numpy().max())
