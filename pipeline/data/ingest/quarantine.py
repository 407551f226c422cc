"""Stored form of a bad row: enough to find and understand it, without ids of users.

Guarantees: of a row only its bad values are stored, at most 32 characters of each; ids of users and
events, and values that look like an e-mail address or a phone number, are masked. Of a row that
cannot be split into fields only its line and length are stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.config import EVENT_COLUMNS
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.sources.streams import Broken

_MASKED: Final = (c.USER_ID, c.EVENT_ID)
MASK: Final = "***"
"""Shown in place of a value that may identify a person."""
_LONGEST: Final = 32
_CHECKED: Final = (*EVENT_COLUMNS, c.PRICE, c.AVAILABLE, c.CREATED_AT)
"""Columns with whose names reasons begin; no name is a prefix of another one."""
_DATE: Final = (
    r"^\s*((19|20)\d\d[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](19|20)\d\d)"
    r"([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?(\D|$)"
)
"""A date at the start of a value, and the time after it."""
_PHONE: Final = r"\d([^\p{L}\p{N}]{0,3}\d){6}"
"""Seven digits, however they are grouped."""


def bad_rows(text: pl.DataFrame, reasons: pl.Series) -> pl.DataFrame:
    """Return `AT_LINE`, `raw` and `reasons` of rows; `raw` is a JSON object of the bad values.

    Parameters
    ----------
    text
        `AT_LINE` and String columns.
    reasons
        ``(n_rows,)`` List(String) of names like ``value_unparsable``, which begin with the column.
    """
    rows = text.with_columns(reasons.alias(c.REASONS))
    parts = [_bad_value(name) for name in _CHECKED if name in text.columns]
    fields = pl.concat_str(parts, separator=",", ignore_nulls=True)
    raw = pl.concat_str(pl.lit("{"), fields, pl.lit("}")).alias(c.RAW)
    return rows.select(AT_LINE, raw, c.REASONS)


def _bad_value(name: str) -> pl.Expr:
    """Return a column's value as a field of a JSON object; null in rows without a reason for it."""
    value = pl.col(name)
    plain = value.str.normalize("NFKC")  # other forms of digits and of @ become the usual ones
    private = plain.str.contains("@") | plain.str.replace(_DATE, "").str.contains(_PHONE)
    # An event id may contain a user id, so both are masked.
    masked = pl.lit(True) if name in _MASKED else private
    shown = pl.when(value.is_not_null() & masked).then(pl.lit(MASK)).otherwise(value)
    field = pl.struct(shown.str.head(_LONGEST).alias(name)).struct.json_encode()
    is_reason = pl.col(c.REASONS).list.eval(pl.element().str.starts_with(f"{name}_")).list.any()
    return pl.when(is_reason).then(field.str.strip_prefix("{").str.strip_suffix("}"))


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
    # The line number locates the row in the archived file. A hash would reveal a short row
    # to anyone who guesses it.
    lines_only = pl.DataFrame(
        [(row.line, json.dumps({"length": row.length}), [row.reason]) for row in broken],
        schema={AT_LINE: pl.Int64, c.RAW: pl.String, c.REASONS: pl.List(pl.String)},
        orient="row",
    )
    rows = pl.concat([bad.select(AT_LINE, c.RAW, c.REASONS), lines_only]).sort(AT_LINE)
    return rows.select(
        c.RAW,
        c.REASONS,
        pl.lit(source).alias(c.SOURCE),
        pl.col(AT_LINE).alias(c.LINE),
        pl.lit(at).cast(c.INSTANT).alias(c.INGESTED_AT),
        pl.lit(batch_id).alias(c.BATCH_ID),
    )


def with_files(rows: pl.DataFrame, batches: pl.DataFrame) -> pl.DataFrame:
    """Return rows of quarantine with the name and number of the newest file of their bytes.

    Parameters
    ----------
    rows
        Rows of `columns.QUARANTINE`.
    batches
        `BATCH_ID`, `FILE` and `SEQ` of all files.
    """
    newest = batches.sort(c.SEQ).unique(c.BATCH_ID, keep="last")
    return rows.join(newest, on=c.BATCH_ID)


def of_file(rows: pl.DataFrame, file: str) -> pl.DataFrame:
    """Return the rows of a file, given by its name or sha256.

    Parameters
    ----------
    rows
        Result of `with_files`.
    """
    return rows.filter((pl.col(c.FILE) == file) | (pl.col(c.BATCH_ID) == file))


def by_reason(rows: pl.DataFrame, examples: int) -> pl.DataFrame:
    """Return rows per file and reason, with the lines and bad values of the first ones.

    Parameters
    ----------
    rows
        Result of `with_files`.
    examples
        Greatest number of lines in a group.

    Returns
    -------
    `SEQ`, `FILE`, `BATCH_ID`, `REASONS`, ``rows``, `LINE`, `RAW`; the newest file first, its most
    frequent reason first; a row with several reasons is in each.
    """
    return (
        rows.explode(c.REASONS)
        .sort(c.LINE)
        .group_by(c.SEQ, c.FILE, c.BATCH_ID, c.REASONS)
        .agg(pl.len().alias("rows"), pl.col(c.LINE, c.RAW).head(examples))
        .sort(c.SEQ, "rows", c.REASONS, descending=[True, True, False])
    )
