"""Decompression of a stream into blocks of whole lines, within limits.

Guarantees: text that is cut short (such as a cut gzip), expands too far, is not UTF-8 or contains
NUL bytes is an error; at most a few blocks are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import polars as pl

from pipeline.data.sources.config import Limits
from pipeline.data.sources.file_columns import FileColumns
from pipeline.errors import DataError, UnsafeInputError

BLOCK: Final = 2 << 20
"""Bytes read at once. A longer row cannot be skipped, so its file is refused."""
_SMALL: Final = 1 << 20
"""Below this size in bytes the ratio of expansion is not checked."""
_MAGIC: Final = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "zip (or a spreadsheet)",
    b"%PDF": "PDF",
    b"BZh": "bzip2",
    b"SQLite format 3": "SQLite",
    b"\xff\xfe": "UTF-16 text instead of UTF-8",
    b"\xfe\xff": "UTF-16 text instead of UTF-8",
}


@dataclass(frozen=True)
class Broken:
    """Row that cannot be split into fields: its line, length in bytes and reason."""

    line: int
    length: int
    reason: str

    @classmethod
    def of(cls, row: bytes, line: int, reason: str) -> Broken:
        """Describe a row without its content.

        Parameters
        ----------
        row
            Bytes of the row, without its line feed.
        line
            1-based line number.
        reason
            Reason for the quarantine, such as ``row_too_long``.
        """
        return cls(line, len(row), reason)


@dataclass
class Block:
    """Rows of a file as text.

    Attributes
    ----------
    frame
        One String column per column of the file.
    lines
        1-based line number (Parquet: row number) of each row, Int64.
    broken
        Rows that cannot be split into fields.
    """

    frame: pl.DataFrame
    lines: pl.Series
    broken: list[Broken] = field(default_factory=list)


def blocks(stream: BinaryIO, codec: str | None, name: str, limits: Limits) -> Iterator[bytes]:
    """Split text into blocks of whole lines, checked to be UTF-8 without NUL.

    Parameters
    ----------
    stream
        The bytes of the file.
    codec
        ``gzip``, ``zstd`` or ``None``.
    name
        The file's name, for errors.
    limits
        Limits of the size and of the ratio of expansion.

    Yields
    ------
    Bytes that end with a line feed, which is added to the last line; a byte order mark is dropped.

    Raises
    ------
    DataError
        `source.empty`, `source.wrong_format`, `source.damaged_stream`, `source.not_utf8`.
    UnsafeInputError
        `source.row_too_long`, `source.too_large`, `source.expands`.
    """
    carry = b""
    line = 1
    first = True
    for chunk in _chunks(stream, codec, name, limits):
        data = carry + chunk
        if first:
            _refuse_other_formats(data, name)
            data = data.removeprefix(b"\xef\xbb\xbf")
            first = False
        cut = data.rfind(b"\n") + 1
        if cut == 0 and len(data) > BLOCK:
            raise UnsafeInputError(
                "source.row_too_long",
                f"the row at line {line} has more than {BLOCK:,} bytes; correct the file",
                where=name,
            )
        # An incomplete last line waits for the next chunk.
        block, carry = data[:cut], data[cut:]
        if block:
            _check_text(block, line, name)
            yield block
            line += block.count(b"\n")
    if line == 1 and not carry.strip():
        raise DataError("source.empty", "is empty; deliver it again with content", where=name)
    if carry:
        _check_text(carry, line, name)
        yield carry + b"\n"


def _chunks(stream: BinaryIO, codec: str | None, name: str, limits: Limits) -> Iterator[bytes]:
    """Decompress a stream and enforce its limits."""
    source = stream
    if codec is not None:
        import pyarrow as pa

        source = pa.CompressedInputStream(pa.PythonFile(_NoCloseStream(stream), mode="r"), codec)
    size = 0
    while True:
        try:
            data = source.read(BLOCK)
        except OSError as error:
            # pyarrow reports a cut or damaged stream only by the text of an OSError.
            damage = "cut short" if "truncated" in str(error).lower() else "damaged"
            raise DataError(
                "source.damaged_stream",
                f"the {codec} data are {damage}; deliver the file again",
                where=name,
            ) from None
        if not data:
            return
        size += len(data)
        # Checked while reading: a small file may expand to more than memory or disk can hold.
        if size > limits.max_text_bytes:
            raise UnsafeInputError(
                "source.too_large",
                f"has more than {limits.max_text_bytes:,} bytes of text; divide the file, or "
                "raise ingest.limits.max_text_bytes",
                where=name,
            )
        # `tell` may run ahead of the returned text, so the allowed size is never too small.
        max_size = max(_SMALL, limits.max_expansion * max(stream.tell(), 1))
        if codec is not None and size > max_size:
            raise UnsafeInputError(
                "source.expands",
                f"expands more than {limits.max_expansion}-fold; split the file, or raise "
                "ingest.limits.max_expansion",
                where=name,
            )
        yield data


class _NoCloseStream:
    """Stream that the decompressor can read but not close, since the caller owns it."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self.closed = True


def check_header(columns: Sequence[str], count: int, name: str, limits: Limits) -> None:
    """Refuse a file with too many columns, or with two columns of one name.

    Parameters
    ----------
    columns
        Names of the file's columns.
    count
        Number of columns, nested ones included.
    name
        The file's name, for errors.

    Raises
    ------
    UnsafeInputError
        `source.too_many_columns`.
    DataError
        `source.duplicate_column`.
    """
    if count > limits.max_columns:
        raise UnsafeInputError(
            "source.too_many_columns",
            f"has {count:,} columns; {limits.max_columns} are allowed; split the file, or raise "
            "ingest.limits.max_columns",
            where=name,
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        header = FileColumns.of_header(columns)
        next_step = "rename one of them"
        if header.like_data:
            next_step = f"it has {header}: add a header line"
        raise DataError(
            "source.duplicate_column",
            f"names column {header.label(twice[0])!r} twice; {next_step}",
            where=name,
        )


def _refuse_other_formats(data: bytes, name: str) -> None:
    for magic, other_format in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(
                "source.wrong_format",
                f"does not have the format of its suffix: it contains {other_format}; "
                "correct the suffix or the file",
                where=name,
            )


def _check_text(block: bytes, line: int, name: str) -> None:
    position, fault = block.find(b"\0"), "a NUL byte"
    # ASCII text needs no decoding, which takes longer than the check.
    if position < 0 and not block.isascii():
        try:
            block.decode("utf-8")
        except UnicodeDecodeError as error:
            position, fault = error.start, "invalid bytes"
    if position >= 0:
        line += block.count(b"\n", 0, position)
        raise DataError(
            "source.not_utf8", f"is not UTF-8: {fault} at line {line}; convert it", where=name
        )
