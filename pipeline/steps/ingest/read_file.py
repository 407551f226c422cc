"""Reading one file, inside a bounded child: from a path to parts of text on the disk.

Light to import: a child starts for it. The path is opened without following links, summed and
read through one handle, so that what is parsed is what was summed.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import polars as pl

from pipeline.data.sources.config import Limits, MappingError, Source
from pipeline.data.sources.read import Summary, read
from pipeline.data.sources.streams import Broken
from pipeline.errors import DataError, StorageError, UnsafeInputError
from pipeline.steps.ingest.discovery import DiscoveredFile
from pipeline.steps.ingest.landing import printable
from pipeline.workspace.child_process import Child, ChildFailed

_ROWS: Final = 50_000
BROKEN_FILE: Final = "broken.parquet"
BROKEN: Final = {
    "line": pl.Int64,
    "length": pl.Int64,
    "sha256": pl.String,
    "reason": pl.String,
}


class CannotOpen(MappingError):
    """The file may be right, but this process may not read it, or not now: it waits."""


@contextmanager
def open_regular(path: Path, limits: Limits) -> Iterator[BinaryIO]:
    """Open a file that is no link, no device and not too big.

    One that may not be read, or not now, is a `CannotOpen`: it may be right.
    """
    name = printable(path.name)
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeInputError(
                "ingest.link", "is a link; links are not followed", where=name
            ) from None
        if path.is_socket():
            raise UnsafeInputError("ingest.not_regular", "is no regular file", where=name) from None
        what = f"cannot be opened: {(error.strerror or str(error)).lower()}"
        raise CannotOpen("ingest.cannot_open", what, where=name) from None
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise UnsafeInputError("ingest.not_regular", "is no regular file", where=name)
        if about.st_size > limits.max_file_bytes:
            raise UnsafeInputError(
                "ingest.file_too_large",
                f"has {about.st_size:,} bytes; {limits.max_file_bytes:,} are allowed",
                where=name,
            )
        yield stream


def sum_of(path: Path, limits: Limits) -> str:
    """Return the sha256 of a file's bytes: its batch key."""
    with open_regular(path, limits) as stream:
        return _digest(stream)


def _digest(stream: BinaryIO) -> str:
    stream.seek(0)
    digest = hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()
    stream.seek(0)
    return digest


def parse(path: str, source: dict[str, Any], limits: dict[str, Any], out: str) -> dict[str, Any]:
    """Read a file into ``<out>/<n>.parquet`` and return its sum and `Summary` as plain JSON."""
    bounds = Limits.model_validate(limits)
    summary = Summary()
    file, folder = Path(path), Path(out)
    name = printable(file.name)
    with open_regular(file, bounds) as stream:
        digest = _digest(stream)
        count = 0
        for frame in read(stream, name, Source.model_validate(source), bounds, summary):
            _keep(frame, folder / f"{count}.parquet")
            count += 1
        if _digest(stream) != digest:
            raise DataError("ingest.file_changed", "changed while it was read", where=name)
    broken = pl.DataFrame([asdict(row) for row in summary.broken], schema=BROKEN)
    _keep(broken, folder / BROKEN_FILE)
    return {
        "sha256": digest,
        "parts": count,
        "rows": summary.rows,
        "skipped": summary.skipped,
        "ignored_columns": summary.ignored_columns,
    }


def _keep(frame: pl.DataFrame, path: Path) -> None:
    """Write what was read; that there is no room for it is no fault of the file."""
    try:
        frame.write_parquet(path, compression="lz4", statistics=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "storage.cannot_write", f"cannot write {path.parent}: {error}"
        ) from error


def _kept(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "storage.cannot_read", f"cannot read {path}, which was written just now"
        ) from error


def frames(out: Path, count: int) -> Iterator[pl.DataFrame]:
    """Yield the text rows that `parse` wrote, part by part, none of many rows."""
    for number in range(count):
        part = _kept(out / f"{number}.parquet")
        yield part.head(_ROWS)
        yield from part.slice(_ROWS).iter_slices(_ROWS)


def broken_rows(out: Path) -> list[Broken]:
    """Return the rows that could not be split."""
    broken = _kept(out / BROKEN_FILE)
    return [Broken(**row) for row in broken.iter_rows(named=True)]


_PARSE: Final = "pipeline.steps.ingest.read_file:parse"


@dataclass(frozen=True)
class Text:
    """What a child read: the rows part by part, so that a big file is never text as a whole."""

    parts: Iterator[pl.DataFrame]
    broken: list[Broken]
    rows: int
    skipped: int
    ignored_columns: tuple[str, ...]


@contextmanager
def read_text(
    child: Child, file: DiscoveredFile, digest: str, limits: Limits, scratch: Path
) -> Iterator[Text]:
    """Have a file read; `scratch` is the folder that its text lies in meanwhile.

    Raises
    ------
    DataError
        What is wrong with the file; `MappingError` where it is not the one with this sum.
    StorageError
        The scratch folder is gone or full.
    """
    try:
        place = tempfile.TemporaryDirectory(dir=scratch)
    except OSError as error:
        raise StorageError(
            "storage.cannot_write", f"cannot write {scratch}: {error.strerror}"
        ) from error
    with place as folder:
        try:
            answer = child.call(
                _PARSE,
                path=str(file.path.absolute()),
                source=file.source.model_dump(mode="json"),
                limits=limits.model_dump(mode="json"),
                out=folder,
            )
        except ChildFailed as error:
            raise UnsafeInputError(
                "ingest.read_limits",
                f"cannot be read within the limits: {error.sentence}",
                where=file.file,
            ) from None
        if answer["sha256"] != digest:
            raise MappingError("ingest.file_changed", "changed while it was read", where=file.file)
        out = Path(folder)
        yield Text(
            frames(out, answer["parts"]),
            broken_rows(out),
            answer["rows"],
            answer["skipped"],
            tuple(answer["ignored_columns"]),
        )
