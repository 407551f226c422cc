"""Parquet -> text columns, row group by row group.

Times become ISO 8601 with their zone, or without one where the file has none; lists and structs
become JSON. "Line" is the row's number, from 1. A row whose text is too long is broken, alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import BinaryIO

import polars as pl

from pipeline.data.sources.config import Limits
from pipeline.data.sources.streams import Block, Broken, check_header
from pipeline.errors import DataError, UnsafeInputError

_ROWS = 20_000
_BUFFER = 1 << 20
_LENGTH = "#length"
_CELLS = 2_000_000
"""Cells of a batch: of many columns fewer rows are taken at once."""


def parse_parquet(stream: BinaryIO, name: str, limits: Limits) -> Iterator[Block]:
    """Yield the rows; at least one block, which may be empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not stream.read(1):
        raise DataError("source.empty", "is empty", where=name)
    stream.seek(0)
    try:
        file = pq.ParquetFile(stream, page_checksum_verification=True, buffer_size=_BUFFER)
        columns = _check(file, name, limits)
        yield Block(
            pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), pl.Series([], dtype=pl.Int64)
        )
        row = 1
        size = max(1, min(_ROWS, _CELLS // max(1, len(columns))))
        for batch in file.iter_batches(batch_size=size, use_threads=False):
            # Nobody has looked at these bytes yet: text that is no UTF-8 breaks what comes after.
            batch.validate(full=True)
            frame = pl.DataFrame(batch)
            texts = frame.select(_text(column, name) for column in frame.iter_columns())
            lines = pl.Series(range(row, row + frame.height), dtype=pl.Int64)
            yield _bounded(Block(texts, lines), limits)
            row += frame.height
    except MemoryError:
        raise  # one of the library's own is of both families
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise DataError(
            "source.not_parquet", "is no Parquet file, or it is cut or damaged", where=name
        ) from None


def _check(file: object, name: str, limits: Limits) -> list[str]:
    metadata = file.metadata  # type: ignore[attr-defined]
    columns = list(file.schema_arrow.names)  # type: ignore[attr-defined]
    check_header(columns, max(len(columns), metadata.num_columns), name, limits)
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    # A run of equal values costs nothing in the file, but a pointer a row once it is read.
    claimed = max(sum(sizes), metadata.num_rows * 8)
    if claimed > limits.max_text_bytes:
        raise UnsafeInputError("source.too_large", f"unfolds to {claimed:,} bytes", where=name)
    return columns


def _bounded(block: Block, limits: Limits) -> Block:
    """Take out the rows whose text is too long."""
    length = pl.sum_horizontal(pl.all().str.len_bytes().fill_null(0).cast(pl.Int64))
    lengths = block.frame.select(length.alias(_LENGTH)).to_series()
    long = lengths > limits.max_row_bytes
    if not long.any():
        return block
    broken = [
        Broken(line, size, hashlib.sha256(repr(row).encode()).hexdigest(), "row_too_long")
        for line, size, row in zip(
            block.lines.filter(long),
            lengths.filter(long),
            block.frame.filter(long).iter_rows(),
            strict=True,
        )
    ]
    return Block(block.frame.filter(~long), block.lines.filter(~long), broken)


def _text(column: pl.Series, name: str) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            return column.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f")
        return column.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        values = [None if v is None else json.dumps(v, default=str) for v in column.to_list()]
        return pl.Series(column.name, values, dtype=pl.String)
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        raise DataError(
            "source.not_text_column", f"column {column.name!r} cannot be read as text", where=name
        ) from None
