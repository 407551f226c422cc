"""The lake's tables: schemas, partition columns, and columns with statistics in the log.

Guarantees: a missing column, a wrong dtype or a null partition raises; an unknown column raises
except in `OPEN_ENDED` tables; the log holds no minimum or maximum of an id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.errors import LakeError

SCHEMAS: Final[Mapping[str, pl.Schema]] = {
    "events": c.EVENTS,
    "items": c.ITEMS,
    "users": c.USERS,
    "quarantine": c.QUARANTINE,
    "batches": c.BATCHES,
    "publications": c.PUBLICATIONS,
    "recommendations": c.RECOMMENDATIONS,
}
PARTITIONS: Final[Mapping[str, str]] = {
    "events": c.EVENT_DAY,
    "recommendations": c.PUBLICATION_ID,
}
PRIVATE: Final = ("quarantine",)
"""Tables with raw values, whose folder only the owner can enter."""
OPEN_ENDED: Final = ("items", "users")
"""Tables that may have further columns than those of their schema."""
STATISTICS: Final = (c.TIMESTAMP, c.INGESTED_AT, c.SEQ, c.GENERATION, c.AS_OF)
"""Columns whose minimum and maximum the log may contain; never those of an id."""


def schema_of(table: str) -> pl.Schema:
    """Return a table's schema; ``lake.unknown_table`` for another name."""
    try:
        return SCHEMAS[table]
    except KeyError:
        raise LakeError(
            "lake.unknown_table", f"unknown lake table {table}. Allowed: {', '.join(SCHEMAS)}"
        ) from None


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with the table's column order.

    Parameters
    ----------
    table
        Name of the table.
    frame
        Rows with its columns, in any order.

    Raises
    ------
    LakeError
        ``lake.schema``: a column is missing, has another dtype or is unknown.
    """
    schema = schema_of(table)
    wrong = [name for name, dtype in schema.items() if frame.schema.get(name) != dtype]
    extra = [name for name in frame.columns if name not in schema]
    if wrong or (extra and table not in OPEN_ENDED):
        named = ", ".join(wrong + extra)
        raise LakeError(
            "lake.schema",
            f"lake table {table}: columns do not fit its schema: {named}; this is a defect of "
            "Nightjar: report it",
        )
    return frame.select([*schema.names(), *extra])


def check_partition(table: str, column: str, values: pl.Series) -> None:
    """Refuse values that cannot be folder names without escaping.

    Parameters
    ----------
    table
        Name of the table.
    column
        Its partition column.
    values
        Values of that column.

    Raises
    ------
    LakeError
        ``lake.null_partition``, ``lake.partition_name``
    """
    # The regular expression below would pass a null, because `all` ignores nulls.
    if values.null_count():
        raise LakeError(
            "lake.null_partition",
            f"lake table {table}: {values.null_count():,} rows have no {column}; this is a defect "
            "of Nightjar: report it",
        )
    if values.dtype != pl.String:
        return
    wrong = values.filter(~values.str.contains(r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))
    if len(wrong):
        raise LakeError(
            "lake.partition_name",
            f"lake table {table}: {column} {wrong[0]!r} has other characters than letters, digits, "
            ". _ -; this is a defect of Nightjar: report it",
        )


def partition_values(table: str, files: Sequence[str]) -> pl.Series:
    """Return the value of the partition column of data files.

    Parameters
    ----------
    table
        A partitioned table.
    files
        Paths relative to the table, such as ``event_day=2026-03-01/part-0.parquet``.

    Returns
    -------
    One value per file, named and typed as the column.
    """
    column = PARTITIONS[table]
    values = [file.partition("/")[0].removeprefix(f"{column}=") for file in files]
    texts = pl.Series(column, values, pl.String)
    return texts.str.to_date() if SCHEMAS[table][column] == pl.Date else texts


def properties(table: str) -> dict[str, str]:
    """Return Delta's properties of a new table: the columns with statistics in the log."""
    schema = schema_of(table)
    # Delta collects statistics of the first columns by default, and ids are among them.
    allowed = [name for name in STATISTICS if name in schema]
    if not allowed:
        return {"delta.dataSkippingNumIndexedCols": "0"}
    return {"delta.dataSkippingStatsColumns": ",".join(allowed)}
