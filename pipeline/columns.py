"""Names, dtypes and enumerations of all tables.

Guarantees: no other module of `pipeline` or `dags` writes these strings (a test walks the syntax
trees); times are in microseconds and UTC.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import polars as pl

EVENT_ID: Final = "event_id"
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
KIND: Final = "kind"
VALUE: Final = "value"
TIMESTAMP: Final = "timestamp"
PUBLICATION_ID: Final = "publication_id"
POSITION: Final = "position"
INGESTED_AT: Final = "ingested_at"
SOURCE: Final = "source"
BATCH_ID: Final = "batch_id"
EVENT_DAY: Final = "event_day"
"""Partition of `events`: the UTC day of `timestamp`."""

TITLE: Final = "title"
CATEGORIES: Final = "categories"
PRICE: Final = "price"
AVAILABLE: Final = "available"
CREATED_AT: Final = "created_at"
SEGMENT: Final = "segment"

RAW: Final = "raw"
REASONS: Final = "reasons"
LINE: Final = "line"

SEQ: Final = "seq"
STATUS: Final = "status"
TABLE: Final = "table"
FILE: Final = "file"
ROWS: Final = "rows"
ACCEPTED: Final = "accepted"
QUARANTINED: Final = "quarantined"
DUPLICATES: Final = "duplicates"
TOMBSTONED: Final = "tombstoned"
SKIPPED: Final = "skipped"
VAULT_ID: Final = "vault_id"
VAULT_USERS: Final = "vault_users"

GENERATION: Final = "generation"
BASE: Final = "base"
MODEL_VERSION: Final = "model_version"
RUN_ID: Final = "run_id"
RECIPE: Final = "recipe"
AS_OF: Final = "as_of"
LIVE_FROM: Final = "live_from"
CATALOGUE_VERSION: Final = "catalogue_version"
RULES_HASH: Final = "rules_hash"
SUMS: Final = "sums"
LEDGER_LINES: Final = "ledger_lines"
LEDGER_SUM: Final = "ledger_sum"

SCORE: Final = "score"
SLOT: Final = "slot"
PROPENSITY: Final = "propensity"
REASON: Final = "reason"
KNOWN: Final = "known"
"""Of the served model: whether the user is in its window, or gets the list of its features."""

# Delta Lake stores timestamps in microseconds.
INSTANT: Final = pl.Datetime("us", "UTC")


class Kind(StrEnum):
    """Kinds of events that need no configuration; those before RETURN rise in strength."""

    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add_to_cart"
    RATING = "rating"
    PURCHASE = "purchase"
    RETURN = "return"


class Slot(StrEnum):
    """Origin of an entry of a recommendation list."""

    MODEL = "model"
    # Reserved for exploration; nothing writes it yet.
    EXPLORE = "explore"
    FALLBACK = "fallback"


class BatchStatus(StrEnum):
    """Progress of one file; the last row of its `seq` counts."""

    INTENT = "intent"
    DONE = "done"
    VOID = "void"


FALLBACK_USER: Final = "*"
"""`user_id` of the fallback list, which is shown to users without a list of their own."""

EVENTS: Final = pl.Schema(
    {
        EVENT_ID: pl.String(),
        USER_ID: pl.String(),
        ITEM_ID: pl.String(),
        KIND: pl.String(),
        VALUE: pl.Float64(),
        TIMESTAMP: INSTANT,
        # Claims of the event: they are compared with the attribution and never used for it.
        PUBLICATION_ID: pl.String(),
        POSITION: pl.Int32(),
        INGESTED_AT: INSTANT,
        SOURCE: pl.String(),
        BATCH_ID: pl.String(),
        # Duplicates are looked for within one day, so a pass reads few partitions.
        EVENT_DAY: pl.Date(),
    }
)
ITEMS: Final = pl.Schema(
    {
        ITEM_ID: pl.String(),
        TITLE: pl.String(),
        CATEGORIES: pl.List(pl.String()),
        PRICE: pl.Float64(),
        AVAILABLE: pl.Boolean(),
        CREATED_AT: INSTANT,
    }
)
"""Further columns of a source are kept beside these, as text."""
USERS: Final = pl.Schema({USER_ID: pl.String(), SEGMENT: pl.String()})
"""Further columns of a source are kept beside these, as text."""
QUARANTINE: Final = pl.Schema(
    {
        RAW: pl.String(),
        REASONS: pl.List(pl.String()),
        SOURCE: pl.String(),
        LINE: pl.Int64(),
        INGESTED_AT: INSTANT,
        BATCH_ID: pl.String(),
    }
)
BATCHES: Final = pl.Schema(
    {
        SEQ: pl.Int64(),
        BATCH_ID: pl.String(),
        STATUS: pl.String(),
        TABLE: pl.String(),
        SOURCE: pl.String(),
        FILE: pl.String(),
        ROWS: pl.Int64(),
        ACCEPTED: pl.Int64(),
        QUARANTINED: pl.Int64(),
        DUPLICATES: pl.Int64(),
        TOMBSTONED: pl.Int64(),
        SKIPPED: pl.Int64(),
        # The vault that gave the pseudonyms, and its users when the rows were written: a vault with
        # fewer is older than the lake.
        VAULT_ID: pl.String(),
        VAULT_USERS: pl.Int64(),
        INGESTED_AT: INSTANT,
    }
)
"""Rows of one file: `intent` before its events are written, `done` (or `void`) after."""
PUBLICATIONS: Final = pl.Schema(
    {
        PUBLICATION_ID: pl.String(),
        GENERATION: pl.Int64(),
        BASE: pl.String(),
        MODEL_VERSION: pl.String(),
        RUN_ID: pl.String(),
        RECIPE: pl.String(),
        AS_OF: INSTANT,
        LIVE_FROM: INSTANT,
        CATALOGUE_VERSION: pl.Int64(),
        # Reserved for re-ranking rules: always the hash of no rules.
        RULES_HASH: pl.String(),
        SUMS: pl.String(),
        # The ledger just before this row: a ledger with fewer lines is older than the lake.
        LEDGER_LINES: pl.Int64(),
        LEDGER_SUM: pl.String(),
    }
)
RECOMMENDATIONS: Final = pl.Schema(
    {
        PUBLICATION_ID: pl.String(),
        USER_ID: pl.String(),
        POSITION: pl.Int32(),
        ITEM_ID: pl.String(),
        SCORE: pl.Float32(),
        SLOT: pl.String(),
        PROPENSITY: pl.Float64(),
        REASON: pl.String(),
    }
)
