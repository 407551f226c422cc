"""Stored form of a bad row: enough to find and understand it, without ids of users.

Guarantees: ids of users and events are masked; of a row that cannot be split into fields only its
line, length and hash are stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.sources.streams import Broken

_MASKED: Final = (c.USER_ID, c.EVENT_ID)
_MASK: Final = "***"


def bad_rows(text: pl.DataFrame, reasons: pl.Series) -> pl.DataFrame:
    """Return `AT_LINE`, `raw` and `reasons` of rows; `raw` is JSON without ids of users and events.

    Parameters
    ----------
    text
        `AT_LINE` and String columns.
    reasons
        ``(n_rows,)`` List(String).
    """
    # An event id may contain a user id, so both are masked.
    masked = text.with_columns(
        pl.when(pl.col(name).is_not_null()).then(pl.lit(_MASK)).alias(name)
        for name in _MASKED
        if name in text.columns
    ).select(pl.struct(pl.exclude(AT_LINE)).struct.json_encode())
    return pl.DataFrame([text[AT_LINE], masked.to_series().alias(c.RAW), reasons.alias(c.REASONS)])


def quarantine_rows(
    bad: pl.DataFrame, broken: Sequence[Broken], *, at: datetime, source: str, batch_id: str
) -> pl.DataFrame:
    """Return rows of `columns.QUARANTINE`, sorted by line.

    Parameters
    ----------
    bad
        Result of `bad_rows`.
    broken
        Rows that cannot be split into fields.
    at
        Instant of the ingest, in UTC.
    source, batch_id
        File name and sha256 of the file.
    """
    # The hash finds the row in the original file, and shows nothing of its content.
    fingerprints = pl.DataFrame(
        [
            (row.line, json.dumps({"length": row.length, "sha256": row.sha256}), [row.reason])
            for row in broken
        ],
        schema={AT_LINE: pl.Int64, c.RAW: pl.String, c.REASONS: pl.List(pl.String)},
        orient="row",
    )
    rows = pl.concat([bad.select(AT_LINE, c.RAW, c.REASONS), fingerprints]).sort(AT_LINE)
    return rows.select(
        c.RAW,
        c.REASONS,
        pl.lit(source).alias(c.SOURCE),
        pl.col(AT_LINE).alias(c.LINE),
        pl.lit(at).cast(c.INSTANT).alias(c.INGESTED_AT),
        pl.lit(batch_id).alias(c.BATCH_ID),
    )
