"""From a file's columns to ours: names, constants, skipped rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.data.sources.config import COLUMNS, FEATURE_TABLES, REQUIRED, MappingError, Source
from pipeline.data.sources.streams import Block

# No feature can have these names: `_plain` takes the sign away.
AT_LINE: Final = "#line"
"""Column of the text frames: 1-based line of the row."""
_SKIP: Final = "#skip"


@dataclass(frozen=True)
class Mapped:
    """A block under our names.

    Attributes
    ----------
    frame
        `AT_LINE` and the String columns of the table (and features); a missing value is null.
    skipped
        Rows that `skip_when` dropped.
    """

    frame: pl.DataFrame
    skipped: int


def map_block(block: Block, source: Source) -> Mapped:
    """Rename, fill constants and drop what is no event; a column that is absent becomes null."""
    theirs = block.frame.columns
    names = {**assigned(theirs, source), **features(theirs, source)}
    chosen = [
        pl.when(pl.col(column) != "").then(pl.col(column)).alias(ours)
        for ours, column in names.items()
    ]
    constants = [
        pl.lit(value if value else None, pl.String).alias(ours)
        for ours, value in source.constants.items()
    ]
    absent = [
        pl.lit(None, pl.String).alias(ours)
        for ours in (() if source.table in FEATURE_TABLES else COLUMNS[source.table])
        if ours not in names and ours not in source.constants
    ]
    frame = block.frame.select(
        block.lines.alias(AT_LINE),
        *chosen,
        *constants,
        *absent,
        _skipped(theirs, source).alias(_SKIP),
    )
    kept = frame.filter(~pl.col(_SKIP)).drop(_SKIP)
    return Mapped(kept, frame.height - kept.height)


def check_columns(theirs: Iterable[str], source: Source, name: str) -> None:
    """Raise `MappingError` if a column that the source needs is not in the file."""
    theirs = list(theirs)
    wanted = {
        **{ours: ours for ours in REQUIRED[source.table] if ours not in source.constants},
        **source.columns,
    }
    for ours, column in wanted.items():
        if column not in theirs:
            role = f" (for {ours})" if ours != column else ""
            raise MappingError(f"has no column {column!r}{role}; {_has(theirs)}", where=name)
    for column in source.skip_when:
        if column not in theirs:
            raise MappingError(
                f"has no column {column!r} (for skip_when); {_has(theirs)}", where=name
            )


def assigned(theirs: Iterable[str], source: Source) -> dict[str, str]:
    """Return our column -> the file's, for those columns of the table that the file fills."""
    present = set(theirs)
    names = {
        ours: source.columns.get(ours, ours)
        for ours in (*COLUMNS[source.table], *source.columns)
        if ours not in source.constants
    }
    return {ours: column for ours, column in names.items() if column in present}


def features(theirs: Iterable[str], source: Source) -> dict[str, str]:
    """Return the name in the lake -> the file's, for further columns that are kept."""
    if source.table not in FEATURE_TABLES:
        return {}
    used = set(assigned(theirs, source).values())
    return {_plain(column): column for column in theirs if column not in used and column.strip()}


def ignored(theirs: Iterable[str], source: Source) -> tuple[str, ...]:
    """Return the file's columns that nobody asked for and that are not kept."""
    theirs = list(theirs)
    used = {*assigned(theirs, source).values(), *features(theirs, source).values()}
    return tuple(column for column in theirs if column not in used | set(source.skip_when))


def _skipped(theirs: Iterable[str], source: Source) -> pl.Expr:
    present = set(theirs)
    skip = pl.lit(False)
    for column, values in source.skip_when.items():
        if column in present:
            skip = skip | pl.col(column).fill_null("").is_in(list(values))
    return skip


def check_features(theirs: Iterable[str], source: Source, name: str) -> None:
    """Raise `MappingError` for columns that the lake could not tell apart."""
    if source.table not in FEATURE_TABLES:
        return
    used = set(assigned(theirs, source).values())
    taken = {ours.casefold(): ours for ours in COLUMNS[source.table]}
    for ours in (*source.columns, *source.constants):
        taken[ours.casefold()] = ours
    for column in theirs:
        key = _plain(column).casefold()
        if column in used or not column.strip():
            continue
        if key in taken:
            raise MappingError(
                f"column {column!r} cannot be told from {taken[key]!r}; map one of them",
                where=name,
            )
        taken[key] = column


def _plain(column: str) -> str:
    return re.sub(r"\W+", "_", column.strip()).strip("_") or "column"


def _has(theirs: list[str]) -> str:
    shown = ", ".join(theirs[:20])
    return f"it has {shown}{', …' if len(theirs) > 20 else ''}" if theirs else "it has none"
