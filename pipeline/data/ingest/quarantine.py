"""What is kept of a bad row: enough to find and understand it, nothing that names a person."""

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


def masked_json(text: pl.DataFrame) -> pl.Series:
    """Return each row as JSON, the ids of people and of their events masked."""
    columns = [name for name in text.columns if name != AT_LINE]
    shown = [
        pl.when(pl.col(name).is_not_null()).then(pl.lit(_MASK)).alias(name)
        if name in _MASKED
        else pl.col(name)
        for name in columns
    ]
    return text.select(pl.struct(shown).struct.json_encode().alias(c.RAW)).to_series()


def quarantine_rows(
    bad: pl.DataFrame, broken: Sequence[Broken], *, at: datetime, source: str, batch_id: str
) -> pl.DataFrame:
    """Return rows of `columns.QUARANTINE`, sorted by line.

    Parameters
    ----------
    bad
        Rows that were judged: `AT_LINE`, `raw`, `reasons`.
    broken
        Rows that could not be split: line, length and sum are all that is kept.
    """
    fingerprints = pl.DataFrame(
        [
            (one.line, json.dumps({"length": one.length, "sha256": one.sha256}), [one.reason])
            for one in broken
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
