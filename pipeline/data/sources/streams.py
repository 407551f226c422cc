"""Bytes of a stream in blocks of whole lines, decompressed, within limits, and never cut short.

Promises: text that ends early (a cut gzip), expands too far, is no UTF-8 or holds NUL bytes is an
error with one sentence; no more than a few blocks are ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        self._source = stream if codec is None else _decompressor(stream, codec)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, empty only at a sound end."""
        try:
            data: bytes = self._source.read(size)
        except OSError as error:
            # Both libraries behind this speak through OSError, in words of their own.
            cut = "truncated" in str(error).lower()
            what = f"the {self._codec} data are " + ("cut short" if cut else "damaged")
            raise DataError("source.damaged_stream", what, where=self._name) from None
        self._out += len(data)
        self._check()
        return data

    def _check(self) -> None:
        if self._out > self._limits.max_text_bytes:
            raise UnsafeInputError(
                "source.too_large",
                f"holds more than {self._limits.max_text_bytes:,} bytes of text",
                where=self._name,
            )
        if self._codec is None or self._out <= _SMALL:
            return
        # What the decompressor has taken so far is at least what it turned into text.
        if self._out > self._limits.max_expansion * max(self._raw.tell(), 1):
            raise UnsafeInputError(
                "source.expands",
                f"expands more than {self._limits.max_expansion}-fold",
                where=self._name,
            )


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


def _decompressor(stream: BinaryIO, codec: str) -> BinaryIO:
    import pyarrow as pa

    reader: BinaryIO = pa.CompressedInputStream(pa.PythonFile(_Lent(stream), mode="r"), codec)
    return reader


def _refuse_other_formats(data: bytes, name: str) -> None:
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(
                "source.wrong_format", f"is not what its name says: it holds {what}", where=name
            )


def _check_text(block: bytes, line: int, name: str) -> None:
    if b"\0" in block:
        at = line + block.count(b"\n", 0, block.index(b"\0"))
        perhaps = " (UTF-16, perhaps)" if at == 1 else ""
        raise DataError(
            "source.not_utf8",
            f"is no UTF-8 text{perhaps}: it holds a NUL byte at line {at}",
            where=name,
        )
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + block.count(b"\n", 0, error.start)
        raise DataError(
            "source.not_utf8", f"is not UTF-8: invalid bytes at line {at}", where=name
        ) from None
