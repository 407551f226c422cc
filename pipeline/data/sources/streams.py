"""Bytes of a stream in blocks of whole lines, decompressed, within limits, and never cut short.

Promises: text that ends early (a cut gzip), expands too far, is no UTF-8 or holds NUL bytes is an
error with one sentence; no more than a few blocks are ever in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import polars as pl

from pipeline.data.sources.config import Limits
from pipeline.errors import DataError, UnsafeInputError

BLOCK: Final = 2 << 20
"""Bytes read at once; a row that is longer ends the reading of its file."""
_SMALL: Final = 1 << 20
"""Below this the rate of expansion says nothing."""
_MAGIC: Final = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "zip (or a spreadsheet)",
    b"%PDF": "PDF",
    b"BZh": "bzip2",
    b"SQLite format 3": "SQLite",
    b"\xff\xfe": "UTF-16 text, and UTF-8 is needed",
    b"\xfe\xff": "UTF-16 text, and UTF-8 is needed",
}


@dataclass(frozen=True)
class Broken:
    """A row that could not be split into fields: where it stood and a fingerprint, no content."""

    line: int
    length: int
    sha256: str
    reason: str

    @classmethod
    def of(cls, row: bytes, line: int, reason: str) -> Broken:
        """Describe a row by its bytes."""
        return cls(line, len(row), hashlib.sha256(row).hexdigest(), reason)


@dataclass
class Block:
    """Rows of a file as text.

    Attributes
    ----------
    frame
        One String column for each column of the file.
    lines
        1-based line (Parquet: row) of each row, Int64.
    broken
        Rows that could not be split.
    """

    frame: pl.DataFrame
    lines: pl.Series
    broken: list[Broken] = field(default_factory=list)


class Expanding:
    """A decompressed view of a stream that minds its limits.

    Parameters
    ----------
    stream
        The bytes as they lie in the file.
    codec
        ``gzip``, ``zstd`` or None.
    name
        For the sentences.
    """

    def __init__(self, stream: BinaryIO, codec: str | None, name: str, limits: Limits) -> None:
        self._raw = stream
        self._name = name
        self._codec = codec
        self._limits = limits
        self._out = 0
        self._source: BinaryIO = stream
        if codec is not None:
            import pyarrow as pa

            self._source = pa.CompressedInputStream(pa.PythonFile(_Lent(stream), mode="r"), codec)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, empty only at a sound end."""
        try:
            data = self._source.read(size)
        except OSError as error:
            # Both libraries behind this speak through OSError, in words of their own.
            cut = "truncated" in str(error).lower()
            what = f"the {self._codec} data are " + ("cut short" if cut else "damaged")
            raise DataError("source.damaged_stream", what, where=self._name) from None
        self._out += len(data)
        if self._out > self._limits.max_text_bytes:
            raise UnsafeInputError(
                "source.too_large",
                f"holds more than {self._limits.max_text_bytes:,} bytes of text",
                where=self._name,
            )
        # What the decompressor has taken so far is at least what it turned into text.
        most = max(_SMALL, self._limits.max_expansion * max(self._raw.tell(), 1))
        if self._codec is not None and self._out > most:
            raise UnsafeInputError(
                "source.expands",
                f"expands more than {self._limits.max_expansion}-fold",
                where=self._name,
            )
        return data


def blocks(stream: Expanding, name: str) -> Iterator[bytes]:
    """Yield the text in blocks that end with a line feed, checked to be UTF-8 without NUL.

    A byte order mark is dropped. Nothing at all is a `DataError`: the file is empty.
    """
    carry = b""
    line = 1
    first = True
    while True:
        chunk = stream.read(BLOCK)
        data = carry + chunk
        if first and data:
            _refuse_other_formats(data, name)
            data = data.removeprefix(b"\xef\xbb\xbf")
            first = False
        if not chunk:
            break
        cut = data.rfind(b"\n") + 1
        if cut == 0 and len(data) > BLOCK:
            raise UnsafeInputError(
                "source.row_too_long",
                f"a row at line {line} is longer than any row may be",
                where=name,
            )
        block, carry = data[:cut], data[cut:]
        if block:
            _check_text(block, line, name)
            yield block
            line += block.count(b"\n")
    if first or (line == 1 and not data.strip()):
        raise DataError("source.empty", "is empty", where=name)
    if data:
        _check_text(data, line, name)
        yield data + b"\n"


class _Lent:
    """A stream that the decompressor can read, but not close: it is not its own."""

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
            f"has {count:,} columns; {limits.max_columns} are allowed",
            where=name,
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError("source.duplicate_column", f"names column {twice[0]!r} twice", where=name)


def _refuse_other_formats(data: bytes, name: str) -> None:
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(
                "source.wrong_format", f"is not what its name says: it holds {what}", where=name
            )


def _check_text(block: bytes, line: int, name: str) -> None:
    position, fault = block.find(b"\0"), "a NUL byte"
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
