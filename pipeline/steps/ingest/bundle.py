"""Files of one table that are taken in together: from judged rows to what one commit holds.

Promises: each file comes to the same counts as if it had been taken in by itself, after those
before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.catalogue import upsert
from pipeline.data.ingest.events import (
    CONTENT,
    IDENTITY,
    ValidatedRows,
    by_file,
    conflict_rows,
    conflicting,
    derive_ids,
    event_rows,
    on_days,
    split_duplicates,
    with_origin,
    with_pseudonyms,
)
from pipeline.data.ingest.quarantine import quarantine_rows
from pipeline.steps.ingest.discovery import DiscoveredFile
from pipeline.steps.ingest.landing import Mark
from pipeline.steps.ingest.read_file import Text
from pipeline.steps.ingest.results import FileResult
from pipeline.stores.batches import Batch
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class FileRead:
    """A file that was read and judged, and not yet committed."""

    discovered: DiscoveredFile
    seen: Mark
    digest: str
    text: Text
    judged: ValidatedRows


@dataclass(frozen=True)
class Bundle:
    """What a commit holds: a line a file, the table's rows (None: no change), the bad ones."""

    batches: list[Batch]
    results: list[FileResult]
    rows: pl.DataFrame | None
    quarantine: pl.DataFrame


@dataclass(frozen=True)
class _Ends:
    """Where the rows of one file end: good ones, repeated ones, and all bad ones."""

    accepted: int
    duplicates: int
    bad: pl.DataFrame


def bundled(ws: Workspace, files: Sequence[FileRead], *, at: datetime, replace: bool) -> Bundle:
    """Put files of one table together; `replace` as in `ingest`."""
    if files[0].discovered.source.table == "events":
        rows, ends = _events(ws, files, at)
    else:
        rows, ends = _catalogue(ws, files, replace=replace)
    batches, results, bad = [], [], []
    for file, end in zip(files, ends, strict=True):
        source = file.discovered.name
        quarantine = quarantine_rows(
            end.bad, file.text.broken, at=at, source=source, batch_id=file.digest
        )
        batch = Batch(
            batch_id=file.digest,
            table=file.discovered.source.table,
            source=source,
            file=file.discovered.file,
            rows=file.text.rows,
            accepted=end.accepted,
            quarantined=quarantine.height,
            duplicates=end.duplicates,
            tombstoned=0,
            skipped=file.text.skipped,
            ingested_at=at,
        )
        reasons = Counter(quarantine[c.REASONS].explode(empty_as_null=False).to_list())
        batches.append(batch)
        results.append(
            FileResult.taken(batch, dict(sorted(reasons.items())), file.text.ignored_columns)
        )
        bad.append(quarantine)
    return Bundle(batches, results, rows, pl.concat(bad))


def _events(
    ws: Workspace, files: Sequence[FileRead], at: datetime
) -> tuple[pl.DataFrame | None, list[_Ends]]:
    users = pl.concat([file.judged.good[c.USER_ID] for file in files])
    people = ws.vault.pseudonyms(users.unique().to_list())
    identified = pl.concat(
        (
            with_origin(
                derive_ids(with_pseudonyms(file.judged.good, people)),
                source=file.discovered.name,
                batch_id=file.digest,
            )
            for file in files
        ),
        how="diagonal",  # each file has its own order of columns
    )
    known = ws.lake.read("events", columns=IDENTITY, where=on_days(identified))
    fresh, repeats = split_duplicates(identified, known)
    conflicts = repeats.clear()
    if repeats.height:
        stored = ws.lake.read("events", columns=CONTENT, where=on_days(repeats))
        conflicts = conflicting(repeats, pl.concat([stored, fresh.select(CONTENT)]))
    new, again, other = by_file(fresh), by_file(repeats), by_file(conflicts)
    ends = []
    for file in files:
        conflict = other.get(file.digest, conflicts.clear())
        repeated = again.get(file.digest, repeats.clear()).height
        bad = pl.concat([file.judged.bad, conflict_rows(conflict)])
        accepted = new.get(file.digest, fresh.clear()).height
        ends.append(_Ends(accepted, repeated - conflict.height, bad))
    return (event_rows(fresh, at=at) if fresh.height else None), ends


def _catalogue(
    ws: Workspace, files: Sequence[FileRead], *, replace: bool
) -> tuple[pl.DataFrame | None, list[_Ends]]:
    table = files[0].discovered.source.table
    before = ws.lake.read(table)
    now, ends = before, []
    for file in files:
        good = file.judged.good
        if table == "users":
            people = ws.vault.pseudonyms(good[c.USER_ID].unique().to_list())
            good = with_pseudonyms(good, people)
        now, duplicates = upsert(table, now, good, replace=replace)
        ends.append(_Ends(good.height - duplicates, duplicates, file.judged.bad))
    return (None if now.equals(before.sort(now.columns[0])) else now), ends
