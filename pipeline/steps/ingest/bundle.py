"""Bundles of files that are committed together: from validated rows to the rows of one commit.

Guarantees: each file gets the same counts as if it had been ingested by itself, after the files
before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

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
    with_event_ids,
    with_origin,
    with_pseudonyms,
)
from pipeline.data.ingest.ids import doubtful
from pipeline.data.ingest.quarantine import quarantine_rows
from pipeline.steps.ingest.discovery import DiscoveredFile
from pipeline.steps.ingest.landing import Mark
from pipeline.steps.ingest.read_file import Text
from pipeline.steps.ingest.results import FileResult, RowCounts
from pipeline.stores.batches import Batch
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class FileRead:
    """A file that was read and validated, but not committed yet."""

    discovered: DiscoveredFile
    seen: Mark
    digest: str
    text: Text
    judged: ValidatedRows


@dataclass(frozen=True)
class Bundle:
    """Content of a commit.

    Attributes
    ----------
    batches, results
        One per file.
    rows
        Rows of the table; None if nothing changes.
    quarantine
        Rows of `columns.QUARANTINE`.
    """

    batches: list[Batch]
    results: list[FileResult]
    rows: pl.DataFrame | None
    quarantine: pl.DataFrame


_Ends: TypeAlias = tuple[int, int, pl.DataFrame]
"""Of one file: the number of accepted rows, the number of duplicates, and the bad rows."""


def combine(ws: Workspace, files: Sequence[FileRead], *, at: datetime, replace: bool) -> Bundle:
    """Combine files of one table into one commit.

    Parameters
    ----------
    ws
        Workspace.
    files
        Validated files of one table, at least one, in the order of their ingest.
    at
        Instant of the ingest, UTC.
    replace
        Items only: each file is the full catalogue.

    Returns
    -------
    Rows of the table and of the quarantine, and the counts of each file.
    """
    if files[0].discovered.source.table == "events":
        rows, ends = _events(ws, files, at)
    else:
        rows, ends = _catalogue(ws, files, replace=replace)
    batches, results, bad = [], [], []
    for file, (accepted, duplicates, bad_rows) in zip(files, ends, strict=True):
        source = file.discovered.name
        quarantine = quarantine_rows(
            bad_rows, file.text.broken, at=at, source=source, batch_id=file.digest
        )
        batch = Batch(
            batch_id=file.digest,
            table=file.discovered.source.table,
            source=source,
            file=file.discovered.file,
            rows=file.text.rows,
            accepted=accepted,
            quarantined=quarantine.height,
            duplicates=duplicates,
            tombstoned=0,
            skipped=file.text.skipped,
            vault_id=ws.vault.id,
            vault_users=len(ws.vault),
            ingested_at=at,
        )
        by_reason = RowCounts(
            reasons=count_reasons(quarantine),
            emptied=count_reasons(file.judged.emptied),
            changed=file.judged.changed,
            doubtful=doubtful(file.judged.good),
        )
        batches.append(batch)
        results.append(FileResult.taken(batch, by_reason, file.text.ignored_columns))
        bad.append(quarantine)
    return Bundle(batches, results, rows, pl.concat(bad))


def count_reasons(rows: pl.DataFrame) -> Counter[str]:
    """Return reason -> rows with it, sorted by reason."""
    return Counter(sorted(rows[c.REASONS].explode(empty_as_null=False)))


def _events(
    ws: Workspace, files: Sequence[FileRead], at: datetime
) -> tuple[pl.DataFrame | None, list[_Ends]]:
    users = pl.concat([file.judged.good[c.USER_ID] for file in files])
    # The vault commits pseudonyms before the lake commits the rows that use them, so that a crash
    # leaves no row with an unassigned pseudonym.
    pseudonyms = ws.vault.pseudonyms(users.unique().to_list())
    parts = []
    for file in files:
        events = with_pseudonyms(file.judged.good, pseudonyms)
        if ws.config.privacy.derive_event_ids:
            events = with_event_ids(events, ws.vault.event_id)
        events = derive_ids(events)
        parts.append(with_origin(events, source=file.discovered.name, batch_id=file.digest))
    identified = pl.concat(parts, how="diagonal")  # each file has its own order of columns
    # Identity is (event_id, event_day): only the partitions of these days can hold duplicates.
    known = ws.lake.read("events", columns=IDENTITY, partitions=on_days(identified))
    fresh, repeats = split_duplicates(identified, known)
    conflicts = repeats.clear()  # the content of stored events is read only if ids are repeated
    if repeats.height:
        stored = ws.lake.read("events", columns=CONTENT, partitions=on_days(repeats))
        conflicts = conflicting(repeats, pl.concat([stored, fresh.select(CONTENT)]))
    accepted, repeated = _rows_of_files(fresh), _rows_of_files(repeats)
    conflicts_of, ends = by_file(conflicts), []
    for file in files:
        # A conflict is a repeated id with other content: it is counted as bad, not as a duplicate.
        conflict = conflicts_of.get(file.digest, conflicts.clear())
        bad = pl.concat([file.judged.bad, conflict_rows(conflict)])
        ends.append((accepted[file.digest], repeated[file.digest] - conflict.height, bad))
    return (event_rows(fresh, at=at) if fresh.height else None), ends


def _rows_of_files(rows: pl.DataFrame) -> Counter[str]:
    return Counter(dict(rows[c.BATCH_ID].value_counts().iter_rows()))


def _catalogue(
    ws: Workspace, files: Sequence[FileRead], *, replace: bool
) -> tuple[pl.DataFrame | None, list[_Ends]]:
    table = files[0].discovered.source.table
    before = ws.lake.read(table)
    now, ends = before, []
    for file in files:
        good = file.judged.good
        if table == "users":
            pseudonyms = ws.vault.pseudonyms(good[c.USER_ID].unique().to_list())
            good = with_pseudonyms(good, pseudonyms)
        now, duplicates = upsert(table, now, good, replace=replace)
        ends.append((good.height - duplicates, duplicates, file.judged.bad))
    # The lake returns rows in any order; an equal table is not written again, unless a later file
    # has undone an earlier one: a table without the number of accepted rows counts as damaged.
    same = now.equals(before.sort(now.columns[0])) and not any(accepted for accepted, *_ in ends)
    return (None if same else now), ends
