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
    columns = block.frame.columns
    names = {**assigned(columns, source), **features(columns, source)}
    chosen = [
        pl.when(pl.col(column) != "").then(pl.col(column)).alias(target)
        for target, column in names.items()
    ]
    constants = [
        pl.lit(value if value else None, pl.String).alias(target)
        for target, value in source.constants.items()
    ]
    absent = [
        pl.lit(None, pl.String).alias(target)
        for target in (() if source.table in FEATURE_TABLES else COLUMNS[source.table])
        if target not in names and target not in source.constants
    ]
    frame = block.frame.select(
        block.lines.alias(AT_LINE),
        *chosen,
        *constants,
        *absent,
        _skipped(columns, source).alias(_SKIP),
    )
    kept = frame.filter(~pl.col(_SKIP)).drop(_SKIP)
    return Mapped(kept, frame.height - kept.height)


def check_columns(columns: Iterable[str], source: Source, name: str) -> None:
    """Raise `MappingError` if a column that the source needs is not in the file."""
    columns = list(columns)
    wanted = {
        **{target: target for target in REQUIRED[source.table] if target not in source.constants},
        **source.columns,
    }
    for target, column in wanted.items():
        if column not in columns:
            role = f" (for {target})" if target != column else ""
            raise MappingError(
                "mapping.no_column", f"has no column {column!r}{role}; {_has(columns)}", where=name
            )
    for column in source.skip_when:
        if column not in columns:
            raise MappingError(
                "mapping.no_skip_column",
                f"has no column {column!r} (for skip_when); {_has(columns)}",
                where=name,
            )


def assigned(columns: Iterable[str], source: Source) -> dict[str, str]:
    """Return our column -> the file's, for those columns of the table that the file fills."""
    present = set(columns)
    names = {
        target: source.columns.get(target, target)
        for target in (*COLUMNS[source.table], *source.columns)
        if target not in source.constants
    }
    return {target: column for target, column in names.items() if column in present}


def features(columns: Iterable[str], source: Source) -> dict[str, str]:
    """Return the name in the lake -> the file's, for further columns that are kept."""
    if source.table not in FEATURE_TABLES:
        return {}
    used = set(assigned(columns, source).values())
    return {_plain(column): column for column in columns if column not in used and column.strip()}


def ignored(columns: Iterable[str], source: Source) -> tuple[str, ...]:
    """Return the file's columns that nobody asked for and that are not kept."""
    columns = list(columns)
    used = {*assigned(columns, source).values(), *features(columns, source).values()}
    return tuple(column for column in columns if column not in used | set(source.skip_when))


def _skipped(columns: Iterable[str], source: Source) -> pl.Expr:
    present = set(columns)
    skip = pl.lit(False)
    for column, values in source.skip_when.items():
        if column in present:
            skip = skip | pl.col(column).fill_null("").is_in(list(values))
    return skip


def check_features(columns: Iterable[str], source: Source, name: str) -> None:
    """Raise `MappingError` for columns that the lake could not tell apart."""
    if source.table not in FEATURE_TABLES:
        return
    used = set(assigned(columns, source).values())
    taken = {target.casefold(): target for target in COLUMNS[source.table]}
    for target in (*source.columns, *source.constants):
        taken[target.casefold()] = target
    for column in columns:
        key = _plain(column).casefold()
        if column in used or not column.strip():
            continue
        if key in taken:
            raise MappingError(
                "mapping.ambiguous_column",
                f"column {column!r} cannot be told from {taken[key]!r}; map one of them",
                where=name,
            )
        taken[key] = column


def _plain(column: str) -> str:
    return re.sub(r"\W+", "_", column.strip()).strip("_") or "column"


def _has(columns: list[str]) -> str:
    shown = ", ".join(columns[:20])
    return f"it has {shown}{', …' if len(columns) > 20 else ''}" if columns else "it has none"
