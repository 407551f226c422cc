"""Text rows -> rows of the lake, with every row accounted for.

Here: `config`; `times`, instants out of text; `events`, typing, judging, derived ids and
duplicates; `catalogue`, the same for items and users, and their upsert; `quarantine`, what is
kept of a bad row.
Not here: reading files (`sources`), pseudonyms, locks and commits (`stores`), rules (`validate`),
what new rows ask for (`monitoring.policy`).
"""

from pipeline.data.ingest.catalogue import upsert, validate_catalogue
from pipeline.data.ingest.config import IngestConfig
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
    validate_events,
    with_origin,
    with_pseudonyms,
)
from pipeline.data.ingest.quarantine import quarantine_rows

__all__ = [
    "CONTENT",
    "IDENTITY",
    "IngestConfig",
    "ValidatedRows",
    "by_file",
    "conflict_rows",
    "conflicting",
    "derive_ids",
    "event_rows",
    "on_days",
    "quarantine_rows",
    "split_duplicates",
    "upsert",
    "validate_catalogue",
    "validate_events",
    "with_origin",
    "with_pseudonyms",
]
