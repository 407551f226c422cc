"""Config of the sources of files, and the limits of a file."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import polars as pl
from pydantic import Field, model_validator

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.errors import DataError

TableName = Literal["events", "items", "users"]

EVENT_COLUMNS: Final = (
    c.EVENT_ID,
    c.USER_ID,
    c.ITEM_ID,
    c.KIND,
    c.VALUE,
    c.TIMESTAMP,
    c.PUBLICATION_ID,
    c.POSITION,
)
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "events": EVENT_COLUMNS,
    "items": tuple(c.ITEMS),
    "users": tuple(c.USERS),
}
"""Table -> columns that a file can provide."""
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "events": (c.USER_ID, c.ITEM_ID, c.KIND, c.TIMESTAMP),
    "items": (c.ITEM_ID,),
    "users": (c.USER_ID,),
}
"""Table -> columns that must come from a column or a constant."""
EXACT: Final = 2**53
"""Floats of 64 bits below this one hold each integer; larger ones stand for several."""
FEATURE_TABLES: Final = ("items", "users")
"""Tables whose additional columns are kept as features."""


class MappingError(DataError):
    """The config of the source does not fit the file, which itself may be valid.

    Nothing is recorded, and the file stays in its place until the config is corrected.
    """


class Limits(Frozen):
    """Limits of a file and of the process that reads it, against hostile input."""

    max_file_bytes: int = Field(
        default=2 << 30, ge=1, description="Maximum size of a file in bytes."
    )
    max_text_bytes: int = Field(
        default=4 << 30, ge=1, description="Maximum size in bytes after decompression."
    )
    max_expansion: int = Field(
        default=200, ge=1, description="Maximum ratio of the sizes after and before decompression."
    )
    # At most the size of a block: `streams.blocks` refuses longer rows in any case.
    max_row_bytes: int = Field(
        default=1 << 20, ge=64, le=2 << 20, description="Maximum size of one row in bytes."
    )
    max_table_bytes: int = Field(
        default=2 << 30,
        ge=1,
        description="Maximum memory in bytes for the rows of a file; the default is enough for "
        "about ten million events with short ids.",
    )
    max_bad_rows: int = Field(
        default=200_000,
        ge=0,
        description="Maximum number of bad rows of a file; a file with more is rejected as a "
        "whole, including its good rows.",
    )
    max_columns: int = Field(default=256, ge=1, description="Maximum number of columns.")
    max_depth: int = Field(default=32, ge=1, description="Maximum depth of nested values in JSON.")
    max_memory_bytes: int = Field(
        default=448 << 20,
        ge=1 << 28,
        description="Maximum memory in bytes that the reading process may allocate, stacks "
        "included; its measured use stays below 500 MB.",
    )
    max_seconds: int = Field(
        default=600, ge=1, description="Maximum time in seconds to read one file."
    )


class Source(Frozen):
    """Origin and format of one kind of files.

    A table column that is named neither in `columns` nor in `constants` is read from the file's
    column of the same name, if there is one.
    """

    table: TableName = Field(default="events", description="Table that the rows are added to.")
    path: str = Field(
        default="*",
        min_length=1,
        description="Pattern of file names below landing/<table>/, with * and ?.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Table column = the file's column."
    )
    constants: dict[str, str] = Field(
        default_factory=dict, description="Table column = one value for all rows."
    )
    timezone: str | None = Field(
        default=None,
        description="Time zone of times without one, such as UTC or Europe/Berlin. In an hour that "
        "a clock change repeats, the first occurrence is used.",
    )
    timestamp_unit: Literal["s", "ms", "us"] | None = Field(
        default=None, description="Unit of times that are numbers, counted from 1970 in UTC."
    )
    timestamp_format: str | None = Field(
        default=None,
        description="Format of times that are not ISO 8601, such as %d.%m.%Y %H:%M.",
    )
    skip_when: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="The file's column = values of rows to skip; an empty text matches a missing "
        "value.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Source:
        twice = sorted(set(self.columns) & set(self.constants))
        if twice:
            raise ValueError(f"{twice[0]} is both a column and a constant; remove one of them")
        # Further columns of items and users become features, so their names are free.
        if self.table not in FEATURE_TABLES:
            allowed = COLUMNS[self.table]
            unknown = sorted((set(self.columns) | set(self.constants)) - set(allowed))
            if unknown:
                raise ValueError(
                    f"{self.table} have no column {unknown[0]}; allowed: {', '.join(allowed)}"
                )
        # A number counted from 1970 in UTC is an instant already.
        if self.timestamp_unit and (self.timestamp_format or self.timezone):
            raise ValueError("timestamp_unit excludes timestamp_format and timezone; remove them")
        if self.timezone is not None and not _is_zone(self.timezone):
            raise ValueError(f"{self.timezone!r} is not a time zone; write UTC or Europe/Berlin")
        return self


def _is_zone(name: str) -> bool:
    # Checked with polars, which will use it: Python's zoneinfo may lack its data on a small system.
    try:
        pl.Series([datetime(2020, 1, 1)]).dt.replace_time_zone(name)  # noqa: DTZ001
    except pl.exceptions.PolarsError:
        return False
    return True
