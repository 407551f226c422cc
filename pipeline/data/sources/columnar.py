"""Parquet files -> text columns, batch by batch.

Guarantees: times become ISO 8601 in UTC, or without a zone if the file has none; lists and structs
become JSON; UUIDs get their dashes; a float so large that it stands for several integers is in
scientific notation; the line is the row's number from 1; a row whose text is too long is broken,
and the others are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import polars as pl

from pipeline.data.sources.config import EXACT, Limits
from pipeline.data.sources.file_columns import FileColumns
from pipeline.data.sources.streams import Block, Broken, check_header
from pipeline.errors import DataError, UnsafeInputError

_ROWS = 20_000
_BUFFER = 1 << 20
_LENGTH = "#length"
_EXACT: dict[type[pl.DataType], int] = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: EXACT}
_CELLS = 2_000_000
"""Maximum number of cells per batch: a file with many columns is read in fewer rows at once."""


def parse_parquet(stream: BinaryIO, name: str, limits: Limits) -> Iterator[Block]:
    """Parse a Parquet file.

    Parameters
    ----------
    stream
        The file's bytes; seekable.
    name
        The file's name, for errors.
    limits
        Limits of columns, row length and total size.

    Yields
    ------
    At least one block; the first is empty and has the file's columns.

    Raises
    ------
    DataError
        `source.empty`, `source.not_parquet`, `source.duplicate_column`, `source.not_text_column`.
    UnsafeInputError
        `source.too_many_columns`, `source.too_large`.
    """
    # Imported here, since other formats do not need it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not stream.read(1):
        raise DataError("source.empty", "is empty; deliver it again with content", where=name)
    stream.seek(0)
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True, buffer_size=_BUFFER)
        columns = list(file.schema_arrow.names)
        check_header(columns, max(len(columns), file.metadata.num_columns), name, limits)
        header = FileColumns.of_header(columns)
        uuids = {field.name for field in file.schema_arrow if field.type == pa.uuid()}
        _check_size(file.metadata, name, limits)
        yield Block(
            pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), pl.Series([], dtype=pl.Int64)
        )
        row = 1
        size = max(1, min(_ROWS, _CELLS // max(1, len(columns))))
        for batch in file.iter_batches(batch_size=size, use_threads=False):
            # The bytes of texts are unchecked so far: invalid UTF-8 would fail only later.
            batch.validate(full=True)
            frame = pl.DataFrame(batch)
            texts = frame.select(
                _uuids(column)
                if column.name in uuids
                else _text(column, header.label(column.name), name)
                for column in frame.iter_columns()
            )
            lines = pl.Series(range(row, row + frame.height), dtype=pl.Int64)
            yield _bounded(Block(texts, lines), limits)
            row += frame.height
    except MemoryError:
        raise  # pyarrow's own MemoryError is an ArrowException, too
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise DataError(
            "source.not_parquet",
            "is not a Parquet file, or is cut short or damaged; deliver the file again",
            where=name,
        ) from None


def _check_size(metadata: Any, name: str, limits: Limits) -> None:
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    # A run of equal values takes no space in the file, but a pointer per row in memory.
    claimed = max(sum(sizes), metadata.num_rows * 8)
    if claimed > limits.max_text_bytes:
        raise UnsafeInputError(
            "source.too_large",
            f"expands to {claimed:,} bytes, more than {limits.max_text_bytes:,}; divide the file, "
            "or raise ingest.limits.max_text_bytes",
            where=name,
        )


def _bounded(block: Block, limits: Limits) -> Block:
    """Move the rows whose text is too long to the broken ones."""
    length = pl.sum_horizontal(pl.all().str.len_bytes().fill_null(0).cast(pl.Int64))
    lengths = block.frame.select(length.alias(_LENGTH)).to_series()
    long = lengths > limits.max_row_bytes
    if not long.any():
        return block
    broken = [
        Broken(line, size, "row_too_long")
        for line, size in zip(block.lines.filter(long), lengths.filter(long), strict=True)
    ]
    return Block(block.frame.filter(~long), block.lines.filter(~long), broken)


def _text(column: pl.Series, label: str, name: str) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            return column.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f")
        return column.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
    if isinstance(dtype, pl.List | pl.Array | pl.Struct | pl.Map):
        values = [None if v is None else json.dumps(v, default=str) for v in column.to_list()]
        return pl.Series(column.name, values, dtype=pl.String)
    try:
        text = column.cast(pl.String)
        if isinstance(dtype, pl.Decimal):
            return text.str.replace(r"\.0+$", "")  # 12345.00 is the integer 12345
        if dtype.is_float():
            large = (column.abs() >= _EXACT[dtype.base_type()]) & column.is_finite()
            for place in large.fill_null(False).arg_true():
                text[int(place)] = f"{column[int(place)]:.16E}"
        return text
    except pl.exceptions.PolarsError:
        raise DataError(
            "source.not_text_column",
            f"column {label!r} of type {dtype} cannot be read as text; convert or remove it",
            where=name,
        ) from None


def _uuids(column: pl.Series) -> pl.Series:
    digits = column.bin.encode("hex")
    return digits.str.replace("^(.{8})(.{4})(.{4})(.{4})", "$1-$2-$3-$4-")
