"""Restoration of events from `archive/`: rows of ingested files that the lake has lost.

A batch has lost rows if the sound files of the lake hold fewer of its events than `batches` counts
as accepted. Its file is read again, and the partitions (days) of lost rows and of damaged files are
written anew in one commit.

Guarantees:

* Restored rows have the pseudonyms, the batch and the instant of their first ingest. Each batch
  then has exactly the number of rows that `batches` counts, or nothing is written.
* A batch whose file is not in the archive is named, and nothing is written.
* A repair of a table without damage changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.ingest.events import (
    IDENTITY,
    ValidatedRows,
    derive_ids,
    event_rows,
    split_duplicates,
    validate_events,
    with_event_ids,
    with_origin,
    with_pseudonyms,
)
from pipeline.data.sources.config import Source
from pipeline.errors import ConfigError, StorageError
from pipeline.steps.ingest.discovery import DiscoveredFile
from pipeline.steps.ingest.read_file import read_text, sum_of
from pipeline.stores.batches import LOST, Batches
from pipeline.stores.disk import storage_errors
from pipeline.stores.lake import Lake, Restoration
from pipeline.stores.vault import Vault
from pipeline.workspace.agreement import compare_vault
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace

_TABLE: Final = "events"
_NAMED: Final = 20

Batch = Mapping[str, Any]
"""Row of `Batches.lost`."""


@dataclass(frozen=True)
class BatchesRepaired:
    """Result of a repair.

    Attributes
    ----------
    batches
        Restored rows by batch.
    days
        Days whose partitions were written anew.
    files
        Damaged and lost data files that the new version does not need.
    """

    batches: dict[str, int]
    days: tuple[str, ...]
    files: tuple[str, ...]

    def text(self) -> str:
        """Return the result as lines."""
        if not self.days:
            return "nothing to repair: each batch has all of its events"
        lines = [f"{name}: {rows:,} events restored" for name, rows in self.batches.items()]
        lines += [f"{file}: replaced" for file in self.files]
        return "\n".join([*lines, f"{len(self.days):,} days written anew"])


def repair_batches(
    ws: Workspace, wanted: Sequence[str], *, progress: Progress = silent
) -> BatchesRepaired:
    """Restore the events of batches from the archive.

    Parameters
    ----------
    ws
        Workspace.
    wanted
        Ids of batches; if empty, all that have lost events.
    progress
        Receives short texts.

    Returns
    -------
    Restored rows, and the files that they replace.

    Raises
    ------
    ConfigError
        `repair.unknown_batch`
    StorageError
        `repair.archive_missing`, `repair.others_lost`, `repair.rows_differ`,
        `repair.users_unknown`; and `LakeError` if the log of the table is damaged.
    ConcurrencyError
        `lock.held`: an ingest is running.
    """
    lake = ws.damaged_lake
    with lake.lock("ingest"):
        batches = Batches(lake)
        batches.recover()
        lake.open_for_writing(_TABLE)  # a killed repair may not have acknowledged its commit
        restoration = Restoration(lake.root, _TABLE)
        progress("compare the files of events with their checksums")
        files = lake.files(_TABLE)
        damaged = restoration.damaged_files(files)
        sound = files - set(damaged)
        short = batches.lost(restoration.rows(sound, [c.BATCH_ID]))
        chosen = _choose(lake, short, wanted, damaged)
        if not damaged and not chosen:
            return BatchesRepaired({}, (), ())
        paths = _archived(ws, chosen)
        known = restoration.rows(sound, IDENTITY)
        restored: list[pl.DataFrame] = []
        vault = _vault(ws, lake)
        with _reader(ws) as read:
            for number, batch in enumerate(chosen, start=1):
                progress(f"read batch {number} of {len(chosen)}")
                rows = _lost_rows(ws, vault, batch, read(paths[batch[c.BATCH_ID]], batch), known)
                known = pl.concat([known, rows.select(IDENTITY)])
                restored.append(rows)
        new = pl.concat([lake.empty(_TABLE), *restored])
        days = {_day(file) for file in damaged} | set(new[c.EVENT_DAY].cast(pl.String))
        kept = restoration.rows([file for file in sound if _day(file) in days])
        progress(f"write {len(days):,} days")
        # Otherwise a table from an older backup would keep an older number than `batches`.
        numbers = batches.number_behind()
        lake.replace_partitions(_TABLE, pl.concat([kept, new]), days, numbers=numbers)
    counts = {batch[c.BATCH_ID]: r.height for batch, r in zip(chosen, restored, strict=True)}
    return BatchesRepaired(counts, tuple(sorted(days)), damaged)


def _day(file: str) -> str:
    """Return the partition of a data file: ``event_day=2026-03-01/part-0.parquet``."""
    return file.partition("/")[0].partition("=")[2]


def _choose(
    lake: Lake, short: Sequence[Batch], wanted: Sequence[str], damaged: Collection[str]
) -> Sequence[Batch]:
    """Return the batches to restore; refuse ids that are unknown, or too few for the damage."""
    if not wanted:
        return short
    unknown = sorted(set(wanted) - set(lake.read("batches", columns=[c.BATCH_ID])[c.BATCH_ID]))
    if unknown:
        raise ConfigError(
            "repair.unknown_batch",
            f"the lake has no batch {unknown[0]}; ingest its file with `nightjar ingest`",
        )
    others = [batch[c.BATCH_ID] for batch in short if batch[c.BATCH_ID] not in wanted]
    if damaged and others:
        raise StorageError(
            "repair.others_lost",
            f"the damaged file {min(damaged)} may hold events of further batches, which would be "
            f"lost with it: {_names(others)}; name them, too, or name no batch",
        )
    return [batch for batch in short if batch[c.BATCH_ID] in wanted]


def _archived(ws: Workspace, batches: Sequence[Batch]) -> dict[str, Path]:
    """Return the archived file of each batch, after comparing its bytes with the id."""
    folder = ws.home / "archive"
    with storage_errors("storage.cannot_read", f"cannot read {folder}"):
        there = sorted(folder.iterdir()) if folder.is_dir() else []
    by_id = {path.name.partition(".")[0]: path for path in there}
    limits, missing = ws.config.ingest.limits, []
    for name in (batch[c.BATCH_ID] for batch in batches):
        if name not in by_id or sum_of(by_id[name], limits) != name:
            missing.append(name)
    if missing:
        raise StorageError(
            "repair.archive_missing",
            f"events of {len(missing)} batches are lost, and {folder} does not have their files: "
            f"{_names(missing)}; put each file there under its sha256 with its suffix, such as "
            f"{missing[0][:8]}….csv, or restore the lake from a backup",
        )
    return by_id


def _names(batches: Sequence[str]) -> str:
    more = len(batches) - _NAMED
    return ", ".join(batches[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _reader(ws: Workspace) -> Iterator[Callable[[Path, Batch], ValidatedRows]]:
    """Provide a function that reads and validates an archived file as its first ingest did."""
    config, limits, folder = ws.config.ingest, ws.config.ingest.limits, ws.home / "scratch"
    # Files have raw ids: the next ingest empties this folder if the repair is killed.
    with storage_errors("storage.cannot_write", f"cannot write {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        Child(max_memory_bytes=limits.max_memory_bytes, max_seconds=limits.max_seconds) as child,
    ):

        def read(path: Path, batch: Batch) -> ValidatedRows:
            name = batch[c.SOURCE]
            # A file that matched no source was read with the defaults of its table.
            source = ws.config.sources.get(name) or Source.model_validate({"table": _TABLE})
            file = DiscoveredFile(path, name, source)
            judge = partial(validate_events, source=source, config=config, at=batch[c.INGESTED_AT])
            with read_text(child, file, batch[c.BATCH_ID], limits, Path(scratch)) as text:
                return ValidatedRows.joined(
                    (judge(part) for part in text.parts),
                    name=file.file,
                    broken=len(text.broken),
                    most=limits.max_bad_rows,
                )

        yield read


def _vault(ws: Workspace, lake: Lake) -> Vault:
    """Open the vault after comparing it with the lake, which is damaged."""
    compare_vault(lake, ws.vault_file)
    return Vault(ws.vault_file, ws.vault_key)


def _lost_rows(
    ws: Workspace, vault: Vault, batch: Batch, judged: ValidatedRows, known: pl.DataFrame
) -> pl.DataFrame:
    """Return the events of a batch that the lake has lost."""
    name, users = batch[c.BATCH_ID], judged.good[c.USER_ID].unique().to_list()
    pseudonyms = vault.lookup(users)
    if len(pseudonyms) < len(users):
        raise StorageError(
            "repair.users_unknown",
            f"{len(users) - len(pseudonyms):,} users of batch {name} are not in the vault "
            f"{vault.path}; restore the vault from a backup of the same time as the lake",
        )
    events = with_pseudonyms(judged.good, pseudonyms)
    if ws.config.privacy.derive_event_ids:
        events = with_event_ids(events, vault.event_id)
    events = with_origin(derive_ids(events), source=batch[c.SOURCE], batch_id=name)
    fresh, _ = split_duplicates(events, known)
    lost = batch[LOST]
    if fresh.height != lost:
        raise StorageError(
            "repair.rows_differ",
            f"batch {name} has lost {lost:,} events, but its file now gives {fresh.height:,}: the "
            f"settings of its source {batch[c.SOURCE]} are not those of its ingest; restore them "
            "in nightjar.toml, or restore the lake from a backup",
        )
    return event_rows(fresh, at=batch[c.INGESTED_AT])
