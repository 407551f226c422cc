"""The lake's tables: schemas, partitions, and which columns may leave a trace in the log."""

from __future__ import annotations

from collections.abc import Mapping
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
OPEN_ENDED: Final = ("items", "users")
"""Tables that keep further columns beside those of their schema."""
STATISTICS: Final = (c.TIMESTAMP, c.INGESTED_AT, c.SEQ, c.GENERATION, c.AS_OF)
"""Columns whose bounds may stand in the log; an id never does."""


def schema_of(table: str) -> pl.Schema:
    """Return a table's schema; a table that the lake does not have is a `LakeError`."""
    try:
        return SCHEMAS[table]
    except KeyError:
        raise LakeError(
            "lake.unknown_table", f"the lake has no table {table}; it has {', '.join(SCHEMAS)}"
        ) from None


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame in the table's column order; another shape is a `LakeError`."""
    schema = schema_of(table)
    wrong = [name for name, dtype in schema.items() if frame.schema.get(name) != dtype]
    extra = [name for name in frame.columns if name not in schema]
    if wrong or (extra and table not in OPEN_ENDED):
        named = ", ".join(wrong + extra)
        raise LakeError(
            "lake.schema", f"lake table {table}: columns that do not fit its schema: {named}"
        )
    return frame.select([*schema.names(), *extra])


def check_partition(table: str, column: str, values: pl.Series) -> None:
    """Refuse partition values that would need escaping: they become names of folders."""
    if values.null_count():
        raise LakeError("lake.null_partition", f"lake table {table}: rows without {column}")
    if values.dtype == pl.String and not values.str.contains(r"^[A-Za-z0-9][A-Za-z0-9._-]*$").all():
        raise LakeError(
            "lake.partition_name",
            f"lake table {table}: a {column} with characters that no folder name has",
        )


def properties(table: str) -> dict[str, str]:
    """Return Delta's properties of a new table: which columns' bounds the log may hold."""
    schema = schema_of(table)
    allowed = [name for name in STATISTICS if name in schema]
    if not allowed:
        return {"delta.dataSkippingNumIndexedCols": "0"}
    return {"delta.dataSkippingStatsColumns": ",".join(allowed)}
