"""What a source of files is, in a few lines of config, and what no file may exceed."""

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
"""The columns of each table that a file can fill."""
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "events": (c.USER_ID, c.ITEM_ID, c.KIND, c.TIMESTAMP),
    "items": (c.ITEM_ID,),
    "users": (c.USER_ID,),
}
"""Those that must come from a column or a constant."""
FEATURE_TABLES: Final = ("items", "users")
"""Tables whose further columns are kept as features."""


class MappingError(DataError):
    """The file may be right: its source's config lacks what is needed to read it.

    Nothing is recorded, and the file stays where it is for a corrected config.
    """


class Limits(Frozen):
    """What no file may exceed; input is hostile until it was read."""

    max_file_bytes: int = Field(default=2 << 30, ge=1, description="Bytes of a file.")
    max_text_bytes: int = Field(
        default=4 << 30, ge=1, description="Bytes of a file after decompression."
    )
    max_expansion: int = Field(
        default=200, ge=1, description="Bytes after decompression for each byte before."
    )
    max_row_bytes: int = Field(default=1 << 20, ge=64, le=2 << 20, description="Bytes of one row.")
    max_table_bytes: int = Field(
        default=2 << 30,
        ge=1,
        description="Bytes that the rows of a file may take in memory, once they are read; about "
        "ten million events with short ids fit into the default.",
    )
    max_bad_rows: int = Field(
        default=200_000,
        ge=0,
        description="Rows of a file that may be bad; one with more is set aside as a whole, "
        "and its good rows with it.",
    )
    max_columns: int = Field(default=256, ge=1, description="Columns of a file.")
    max_depth: int = Field(default=32, ge=1, description="Depth of nested values in JSON.")
    max_memory_bytes: int = Field(
        default=448 << 20,
        ge=1 << 28,
        description="Memory that the process which reads files may allocate, its stacks included; "
        "what it really uses stays below 500 MB.",
    )
    max_seconds: int = Field(default=600, ge=1, description="Time that reading one file may take.")


class Source(Frozen):
    """Where files of one kind come from and how they are read.

    A column of ours that is named neither in `columns` nor in `constants` is taken from the
    file's column of the same name, if there is one.
    """

    table: TableName = Field(default="events", description="Table that the rows go to.")
    path: str = Field(
        default="*",
        min_length=1,
        description="Names of the files below landing/<table>/, with * and ?.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our column = the file's column."
    )
    constants: dict[str, str] = Field(
        default_factory=dict, description="Our column = a value for all rows."
    )
    timezone: str | None = Field(
        default=None,
        description="Zone of times that carry none, such as UTC or Europe/Berlin; of an hour "
        "that a clock change repeats, the first is meant.",
    )
    timestamp_unit: Literal["s", "ms", "us"] | None = Field(
        default=None, description="Unit of times that are numbers since 1970 in UTC."
    )
    timestamp_format: str | None = Field(
        default=None,
        description="Form of the times, such as %d.%m.%Y %H:%M, where it is not ISO 8601.",
    )
    skip_when: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="The file's column = values of rows that are no event; an empty text stands "
        "for a missing value.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Source:
        twice = sorted(set(self.columns) & set(self.constants))
        if twice:
            raise ValueError(f"{twice[0]} is both a column and a constant")
        if self.table not in FEATURE_TABLES:
            known = COLUMNS[self.table]
            unknown = sorted((set(self.columns) | set(self.constants)) - set(known))
            if unknown:
                raise ValueError(
                    f"{self.table} have no column {unknown[0]}; they have {', '.join(known)}"
                )
        if self.timestamp_unit and (self.timestamp_format or self.timezone):
            raise ValueError("times with a unit are numbers: they have no format and no timezone")
        if self.timezone is not None and not _is_zone(self.timezone):
            raise ValueError(f"{self.timezone!r} is no time zone; write UTC or Europe/Berlin")
        return self


def _is_zone(name: str) -> bool:
    # Asked of the library that will use it: Python's own list may be absent on a small system.
    try:
        pl.Series([datetime(2020, 1, 1)]).dt.replace_time_zone(name)  # noqa: DTZ001
    except pl.exceptions.PolarsError:
        return False
    return True
