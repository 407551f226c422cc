"""Mapping of a file's columns to those of the lake: names, constants, skipped rows.

Guarantees: rows keep their order and line numbers; an empty text becomes null; two columns with one
name in the lake raise `mapping.ambiguous_column`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import polars as pl

from pipeline.data.sources.config import COLUMNS, FEATURE_TABLES, REQUIRED, MappingError, Source
from pipeline.data.sources.file_columns import FileColumns
from pipeline.data.sources.streams import Block

# No feature can have these names, since `lake_columns` replaces the sign #.
AT_LINE: Final = "#line"
"""Column of the text frames: 1-based line number of the row."""
_SKIP: Final = "#skip"


def map_block(block: Block, source: Source, names: Mapping[str, str]) -> pl.DataFrame:
    """Rename the columns of a block, add constants and drop the rows of `skip_when`.

    Parameters
    ----------
    block
        Rows of the file.
    source
        Its config.
    names
        Result of `lake_columns`.

    Returns
    -------
    `AT_LINE` and String columns of the table and features; a missing value is null, and so is a
    column of events that the file lacks.
    """
    columns = set(block.frame.columns)
    chosen = {target: column for target, column in names.items() if column in columns}
    needed = () if source.table in FEATURE_TABLES else COLUMNS[source.table]
    literals = source.constants | {
        target: "" for target in needed if target not in chosen and target not in source.constants
    }
    skipped = [
        pl.col(column).fill_null("").is_in(list(values))
        for column, values in source.skip_when.items()
        if column in columns
    ]
    # An empty text is a missing value, whatever the format.
    frame = block.frame.select(
        block.lines.alias(AT_LINE),
        *(
            pl.when(pl.col(column) != "").then(pl.col(column)).alias(target)
            for target, column in chosen.items()
        ),
        *(pl.lit(value or None, pl.String).alias(target) for target, value in literals.items()),
        pl.any_horizontal(pl.lit(False), *skipped).alias(_SKIP),
    )
    return frame.filter(~pl.col(_SKIP)).drop(_SKIP)


def check_columns(columns: FileColumns, source: Source, name: str) -> None:
    """Refuse a file that lacks a column that its source needs.

    Parameters
    ----------
    columns
        The file's columns.
    source
        Its config.
    name
        The file's name, for errors.

    Raises
    ------
    MappingError
        `mapping.no_column`.
    """
    required = (target for target in REQUIRED[source.table] if target not in source.constants)
    wanted = {target: target for target in required} | source.columns
    skipped = (("skip_when", column) for column in source.skip_when)
    for target, column in (*wanted.items(), *skipped):
        if column not in columns.names:
            next_step = f'map it: [sources.NAME] columns = {{ {target} = "…" }} or constants'
            if columns.like_data:
                next_step = "add a header line to the file"
            elif target == "skip_when":
                next_step = "correct skip_when of the source"
            raise MappingError(
                "mapping.no_column",
                f"has no column {column!r} (for {target}); it has {columns}; {next_step}",
                where=name,
            )


def lake_columns(columns: FileColumns, source: Source, name: str) -> dict[str, str]:
    """Return lake column -> file column, for all columns that are kept.

    Parameters
    ----------
    columns
        The file's columns.
    source
        Its config. Further columns of items and users are kept as features.
    name
        The file's name, for errors.

    Raises
    ------
    MappingError
        `mapping.ambiguous_column`: two columns would have the same name in the lake.
    """
    names = {
        target: source.columns.get(target, target)
        for target in (*COLUMNS[source.table], *source.columns)
        if target not in source.constants
    }
    names = {target: column for target, column in names.items() if column in columns.names}
    if source.table not in FEATURE_TABLES:
        return names
    used = set(names.values())
    targets = (*COLUMNS[source.table], *source.columns, *source.constants)
    # The lake cannot distinguish names that differ only in case.
    taken = {target.casefold(): target for target in targets}
    for column in columns.names:
        # A constant replaces the column of its name.
        if column in used or column in source.constants or not column.strip():
            continue
        target = re.sub(r"\W+", "_", column.strip()).strip("_") or "column"
        if target.casefold() in taken:
            raise MappingError(
                "mapping.ambiguous_column",
                f"column {columns.label(column)!r} has the same name as "
                f"{taken[target.casefold()]!r} in the lake; "
                "rename one of them, or map it in `columns` of the source",
                where=name,
            )
        taken[target.casefold()] = columns.label(column)
        names[target] = column
    return names
