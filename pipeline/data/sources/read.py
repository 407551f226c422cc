"""Reading of a stream as text rows with the column names of the lake.

Guarantees: rows of the file = rows yielded + skipped + broken; a block that exceeds a limit raises
instead of being yielded; CSV and Parquet files that lack a needed column raise before the first row
is yielded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final

import polars as pl

from pipeline.data.sources.columnar import parse_parquet
from pipeline.data.sources.config import Limits, Source
from pipeline.data.sources.delimited import parse_csv
from pipeline.data.sources.file_columns import FileColumns
from pipeline.data.sources.jsonl import parse_jsonl
from pipeline.data.sources.mapping import check_columns, lake_columns, map_block
from pipeline.data.sources.streams import Block, Broken, blocks
from pipeline.errors import DataError, UnsafeInputError

_CODECS: Final = {".gz": "gzip", ".zst": "zstd"}
_CELL_BYTES: Final = 16
"""Memory of a value in a String column besides its own bytes."""
_FORMATS: Final = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass
class Summary:
    """Counts of a file's rows, and its rows that cannot be parsed; complete after `read`.

    Attributes
    ----------
    rows
        All rows: yielded, skipped and broken ones.
    skipped
        Rows dropped by `skip_when`.
    broken
        Rows that cannot be split into fields.
    ignored_columns
        Columns of the file that are neither mapped nor kept as features; by their numbers
        (``#3``) where `FileColumns` does not name them.
    """

    rows: int = 0
    skipped: int = 0
    broken: list[Broken] = field(default_factory=list)
    ignored_columns: tuple[str, ...] = ()


def format_of(name: str) -> tuple[str, str | None]:
    """Return (format, codec) from a file name; `DataError` `source.unknown_format` otherwise."""
    stem, codec = name.lower(), None
    for suffix, compression in _CODECS.items():
        if stem.endswith(suffix):
            stem, codec = stem.removesuffix(suffix), compression
    for suffix, form in _FORMATS.items():
        if stem.endswith(suffix) and not (form == "parquet" and codec):
            return form, codec
    raise DataError(
        "source.unknown_format",
        f"has an unknown suffix; rename it to one of {', '.join(_FORMATS)}; text may also end in "
        ".gz or .zst",
        where=name,
    )


def read(
    stream: BinaryIO, name: str, source: Source, limits: Limits, summary: Summary
) -> Iterator[pl.DataFrame]:
    """Read the rows of a file as text, block by block.

    Parameters
    ----------
    stream
        The file's bytes; seekable.
    name
        The file's name; its suffixes determine the format.
    source
        Mapping of columns, constants, rows to skip.
    limits
        Limits of the file.
    summary
        Updated with each block.

    Yields
    ------
    pl.DataFrame
        `AT_LINE` (Int64, 1-based; a header is line 1) and String columns; missing values are null.
        For `events` all columns that a file can provide; for `items` and `users` those of the
        file, with additional columns as features.

    Raises
    ------
    DataError
        `source.empty`, `source.unknown_format`, `source.wrong_format`, and those of the parsers:
        damaged, cut short or not text. A file with a header and no rows is valid.
    MappingError
        `mapping.no_column`, `mapping.no_column`, `mapping.ambiguous_column`.
    UnsafeInputError
        `source.too_many_bad_rows`, `source.too_large`, `source.too_many_columns` and others: a
        limit is exceeded.
    """
    grows = format_of(name)[0] == "jsonl"  # the other formats begin with all columns
    columns = FileColumns((), frozenset())
    names: dict[str, str] = {}
    size = 0
    for block in _blocks(stream, name, limits):
        columns = _with_block(columns, block.frame, grows=grows)
        if columns.names and not grows:
            check_columns(columns, source, name)
        names = lake_columns(columns, source, name)
        frame = map_block(block, source, names)
        summary.rows += block.lines.len() + len(block.broken)
        summary.skipped += block.lines.len() - frame.height
        summary.broken.extend(block.broken)
        if len(summary.broken) > limits.max_bad_rows:
            # Without any readable row the format is wrong, and not the rows.
            _refuse_unreadable(columns.names, name, summary.broken[0].reason)
            raise UnsafeInputError(
                "source.too_many_bad_rows",
                f"has more than {limits.max_bad_rows:,} rows that cannot be read; correct the "
                "file, or raise ingest.limits.max_bad_rows",
                where=name,
            )
        # All rows of a file are later in memory together, so their total size is bounded.
        size += frame.height * frame.width * _CELL_BYTES + int(frame.estimated_size())
        if size > limits.max_table_bytes:
            raise UnsafeInputError(
                "source.too_large",
                f"has rows of more than {limits.max_table_bytes:,} bytes; divide the file, or "
                "raise ingest.limits.max_table_bytes",
                where=name,
            )
        yield frame
    if summary.rows == 0 and not columns.names:
        raise DataError("source.empty", "is empty; deliver it again with content", where=name)
    if summary.rows == len(summary.broken) > 0:
        _refuse_unreadable(columns.names, name, summary.broken[0].reason)
    check_columns(columns, source, name)
    used = {*names.values(), *source.skip_when}
    summary.ignored_columns = tuple(
        columns.label(column) for column in columns.names if column not in used
    )


def _with_block(columns: FileColumns, frame: pl.DataFrame, *, grows: bool) -> FileColumns:
    """Add the columns of a block; the first block with columns decides which are named."""
    if not columns.names:
        return FileColumns.of_keys(frame) if grows else FileColumns.of_header(frame.columns)
    names = tuple(dict.fromkeys((*columns.names, *frame.columns)))
    return replace(columns, names=names)


def _refuse_unreadable(columns: Collection[str], name: str, reason: str) -> None:
    if not columns:
        raise DataError(
            "source.wrong_format",
            f"does not have the format of its suffix: no line can be read (first: {reason}); "
            "correct the suffix or the file",
            where=name,
        )


def _blocks(stream: BinaryIO, name: str, limits: Limits) -> Iterator[Block]:
    form, codec = format_of(name)
    if form == "parquet":
        return parse_parquet(stream, name, limits)
    text = blocks(stream, codec, name, limits)
    parse = parse_csv if form == "csv" else parse_jsonl
    return parse(text, name, limits)
