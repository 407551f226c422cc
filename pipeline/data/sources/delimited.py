"""CSV files -> text columns, by numpy and polars, or by the csv module for unusual quotes.

A quote opens a field only at the field's start, and is doubled inside it; a quoted field may
contain line feeds. Blank lines are skipped.

Guarantees: a row with another number of fields than the header, with broken quotes, or equal to
the header is broken, and reading continues at the next line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.data.sources.config import Limits
from pipeline.data.sources.streams import Block, Broken, check_header
from pipeline.errors import DataError

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_AFTER_FIELD = np.frombuffer(b",\r\n", dtype=np.uint8)
_FIELDS = "wrong_number_of_fields"
_QUOTES = "broken_quotes"
_TOO_LONG = "row_too_long"
_HEADER = "header_repeated"
_ROWS = 20_000
"""Maximum number of rows held as Python lists; a frame needs a tenth of the memory."""


def parse_csv(blocks: Iterator[bytes], name: str, limits: Limits) -> Iterator[Block]:
    """Parse a CSV file.

    Parameters
    ----------
    blocks
        Text in whole lines, from `streams.blocks`.
    name
        The file's name, for errors.
    limits
        Limits of columns, row length and bad rows.

    Yields
    ------
    The rows below the header; at least one block, which may be empty.

    Raises
    ------
    DataError
        `source.no_header`, `source.header_quotes`, `source.line_ends`,
        `source.duplicate_column`, `source.broken_row`.
    UnsafeInputError
        `source.too_many_columns`.
    """
    first = next(blocks)
    end = first.index(b"\n") + 1
    columns = _header(first[:end], name, limits)
    line = 2
    block = first[end:]
    while True:
        last = next(blocks, None)
        data = np.frombuffer(block, dtype=np.uint8)
        quotes = np.flatnonzero(data == ord('"'))
        if len(quotes) and not _well_quoted(data, quotes):
            rows, rest = _parse_any_quotes(block, columns, line, limits, final=last is None)
        else:
            rows, rest = _parse_simple_quotes(data, quotes, columns, line, limits, name=name), b""
        yield _without_headers(rows, columns, first[:end].strip())
        if last is None:
            return
        line += block.count(b"\n") - rest.count(b"\n")
        block = rest + last


def _header(line: bytes, name: str, limits: Limits) -> list[str]:
    if b"\r" in line.rstrip():
        raise DataError(
            "source.line_ends", "lines must end with a line feed; convert the file", where=name
        )
    try:
        row = next(csv.reader([line.decode()], strict=True), [])
    except csv.Error:
        raise DataError(
            "source.header_quotes",
            "the header's quotes are broken; correct line 1",
            where=name,
        ) from None
    columns = [column.strip() for column in row]
    if not any(columns):
        raise DataError(
            "source.no_header",
            "has no header: its first line is blank; write the column names in line 1",
            where=name,
        )
    check_header(columns, len(columns), name, limits)
    return columns


def _without_headers(rows: Block, columns: list[str], header: bytes) -> Block:
    """Move rows that repeat the header to the broken ones, as in concatenated files."""
    frame = rows.frame
    if not (frame[columns[0]] == columns[0]).any():
        return rows
    again = frame.select(pl.all_horizontal(pl.col(name) == name for name in columns)).to_series()
    broken = [Broken.of(header, line, _HEADER) for line in rows.lines.filter(again)]
    return Block(frame.filter(~again), rows.lines.filter(~again), rows.broken + broken)


def _well_quoted(data: Bytes, quotes: Positions) -> bool:
    """Check if quotes only enclose whole fields of one line, or are doubled inside them."""
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    before = data[np.maximum(opening - 1, 0)]
    # A doubled quote looks like a field that ends and one that begins at once.
    doubled = np.concatenate(([False], opening[1:] - closing[:-1] == 1))
    opens = (opening == 0) | (before == ord(",")) | (before == ord("\n")) | doubled
    after = data[np.minimum(closing + 1, len(data) - 1)]
    closes = np.isin(after, _AFTER_FIELD) | np.append(doubled[1:], False)
    ends = np.flatnonzero(data == ord("\n"))
    return bool(opens.all() and closes.all() and not _inside(ends, quotes).any())


def _inside(positions: Positions, quotes: Positions) -> NDArray[np.bool_]:
    # After an odd number of quotes a position is inside a quoted field.
    inside: NDArray[np.bool_] = np.searchsorted(quotes, positions) % 2 == 1
    return inside


def _parse_simple_quotes(
    data: Bytes, quotes: Positions, columns: list[str], line: int, limits: Limits, *, name: str
) -> Block:
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.insert(ends[:-1] + 1, 0, 0) if len(ends) else ends
    commas = np.flatnonzero(data == ord(","))
    commas = commas[~_inside(commas, quotes)]
    fields = np.searchsorted(commas, ends) - np.searchsorted(commas, starts) + 1
    lengths = ends - starts
    blank = (lengths == 0) | ((lengths == 1) & (data[starts] == ord("\r")))
    too_long = lengths > limits.max_row_bytes
    bad = ~blank & ((fields != len(columns)) | too_long)
    broken = [
        Broken.of(
            data[starts[i] : ends[i]].tobytes(), line + i, _TOO_LONG if too_long[i] else _FIELDS
        )
        for i in np.flatnonzero(bad)[: limits.max_bad_rows + 1].tolist()
    ]
    good = np.flatnonzero(~blank & ~bad)
    # polars would refuse a row with too many fields, and fill up one with too few.
    kept = data if len(good) == len(ends) else data[np.repeat(~blank & ~bad, lengths + 1)]
    frame = pl.read_csv(
        kept.tobytes(),
        has_header=False,
        schema=dict.fromkeys(columns, pl.String),
        quote_char='"' if len(quotes) else None,
    )
    if frame.height != len(good):
        raise DataError(
            "source.broken_row",
            f"cannot be split into rows near line {line}; correct the quotes of that line",
            where=name,
        )
    return Block(frame, pl.Series(good + line, dtype=pl.Int64), broken)


def _parse_any_quotes(
    block: bytes, columns: list[str], line: int, limits: Limits, *, final: bool
) -> tuple[Block, bytes]:
    """Return the block's rows and the bytes of a row that continues in the next block."""
    csv.field_size_limit(limits.max_row_bytes)
    lines = block.split(b"\n")[:-1]
    texts = [text + "\n" for text in block.decode().split("\n")[:-1]]
    rows: list[list[str]] = []
    frames: list[pl.DataFrame] = []
    numbers: list[int] = []
    broken: list[Broken] = []
    rest = b""
    start = 0
    while start < len(texts) and len(broken) <= limits.max_bad_rows:
        # Each reader continues until a row is broken; the next one starts at the following line.
        first = start
        reader = csv.reader((texts[k] for k in range(first, len(texts))), strict=True)
        reason = ""
        try:
            for row in reader:
                after = first + reader.line_num
                if len(row) == len(columns) and _short(lines, start, after, limits):
                    rows.append(row)
                    numbers.append(line + start)
                    if len(rows) == _ROWS:
                        frames.append(_frame(rows, columns))
                        rows = []
                elif row:
                    reason = _FIELDS if _short(lines, start, after, limits) else _TOO_LONG
                    break
                start = after
        except csv.Error:
            # Quotes that are open at the end of a block may be closed in the next one.
            open_end = first + reader.line_num >= len(texts)
            if open_end and not final and _short(lines, start, len(lines), limits):
                rest = b"\n".join(lines[start:]) + b"\n"
                break
            reason = _QUOTES
        if reason:
            broken.append(Broken.of(lines[start], line + start, reason))
            start += 1
    frame = pl.concat([*frames, _frame(rows, columns)])
    return Block(frame, pl.Series(numbers, dtype=pl.Int64), broken), rest


def _frame(rows: list[list[str]], columns: list[str]) -> pl.DataFrame:
    data = dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}
    return pl.DataFrame(data, schema=dict.fromkeys(columns, pl.String))


def _short(lines: list[bytes], start: int, end: int, limits: Limits) -> bool:
    return sum(len(line) + 1 for line in lines[start:end]) <= limits.max_row_bytes
