"""Reading of one file in a bounded child process: from a path to text rows on disk.

Guarantees: only a regular file is opened, without following a link and without waiting.
The checksum and the rows are read through one file handle, so the rows are those of the checksum.

The child process imports this module, so its imports are few.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import polars as pl

from pipeline.data.sources.config import Limits, MappingError, Source
from pipeline.data.sources.read import Summary, read
from pipeline.data.sources.streams import Broken
from pipeline.errors import StorageError, UnsafeInputError, printable
from pipeline.steps.ingest.discovery import DiscoveredFile
from pipeline.steps.ingest.landing import FILE, checksum, flaw, open_folder
from pipeline.stores.disk import fault_text, is_panic, storage_errors
from pipeline.workspace.child_process import Child, ChildFailed, ChildKilled

_ROWS: Final = 50_000
BROKEN_FILE: Final = "broken.parquet"
BROKEN: Final = {
    "line": pl.Int64,
    "length": pl.Int64,
    "reason": pl.String,
}


class Waits(MappingError):
    """The file may be valid, but not at this moment, so it stays for a later pass."""


class CannotOpen(Waits):
    """This process cannot open the file."""


class FutureRows(Waits):
    """All rows lie after the instant of the pass: probably the clock is wrong."""


class NotRegular(UnsafeInputError):
    """A link, a pipe, a socket or a device; in the landing folder, also a file with two names."""


@contextmanager
def open_regular(path: Path, limits: Limits, home: Path | None = None) -> Iterator[BinaryIO]:
    """Open a regular file of bounded size.

    Parameters
    ----------
    path
        Path of the file; a link is not followed.
    limits
        Bounds of the size.
    home
        Folder of the workspace, for a file of its landing folder: such a file may have only one
        name, and no folder of the landing folder may be a link. None for a file that a user named.

    Yields
    ------
    Binary stream, closed at the end of the block.

    Raises
    ------
    CannotOpen
        `ingest.cannot_open`: this process cannot read the file now.
    NotRegular
        `ingest.not_regular`.
    UnsafeInputError
        `ingest.file_too_large`.
    """
    name = printable(path.name)
    landed = home is not None
    place = nullcontext() if home is None else open_folder(home, path.relative_to(home).parent)
    try:
        with place as folder:
            file = path.name if landed else str(path)
            # A pipe or device is not even opened, since that may have an effect.
            _check_regular(os.lstat(file, dir_fd=folder), name, one_name=landed)
            handle = os.open(file, FILE, dir_fd=folder)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CannotOpen(
            "ingest.cannot_open",
            f"cannot be opened: {why}; make it readable, then ingest it again",
            where=name,
        ) from None
    with os.fdopen(handle, "rb") as stream:
        # Of the open handle, not of the path, which may name another file by now.
        about = os.fstat(stream.fileno())
        _check_regular(about, name, one_name=landed)
        if about.st_size > limits.max_file_bytes:
            raise UnsafeInputError(
                "ingest.file_too_large",
                f"has {about.st_size:,} bytes; ingest.limits.max_file_bytes allows "
                f"{limits.max_file_bytes:,}; divide the file, or raise the limit",
                where=name,
            )
        yield stream


def _check_regular(about: os.stat_result, name: str, *, one_name: bool) -> None:
    reason = flaw(about, one_name=one_name)
    if reason is not None:
        raise NotRegular(
            "ingest.not_regular", f"{reason}; deliver a regular file with one name", where=name
        )


def sum_of(path: Path, limits: Limits, home: Path | None = None) -> str:
    """Return the sha256 of the bytes of a file, which is its batch key.

    Parameters
    ----------
    path
        Path of the file.
    limits
        Bounds of its size.
    home
        As for `open_regular`.

    Returns
    -------
    64 hex digits.
    """
    with open_regular(path, limits, home) as stream:
        return _digest(stream, limits)


def _digest(stream: BinaryIO, limits: Limits) -> str:
    # Its sender may extend the file after the check of its size; one byte more changes the sum.
    digest = checksum(stream, limits.max_file_bytes + 1)
    stream.seek(0)
    return digest


def parse(
    path: str, digest: str, source: dict[str, Any], limits: dict[str, Any], out: str
) -> dict[str, Any]:
    """Read a file into ``<out>/<n>.parquet``; called in the child process.

    Parameters
    ----------
    path
        Path of the file.
    digest
        Expected sha256: nothing of other bytes may reach a message or the lake.
    source, limits
        Fields of `Source` and `Limits` as plain JSON.
    out
        Folder that receives the rows.

    Returns
    -------
    ``parts`` (number of Parquet files), ``rows``, ``skipped``, ``ignored_columns``.

    Raises
    ------
    MappingError
        `ingest.file_changed`: the bytes are or became others.
    """
    bounds = Limits.model_validate(limits)
    summary = Summary()
    file, folder = Path(path), Path(out)
    name = printable(file.name)
    with open_regular(file, bounds) as stream:
        _check_digest(stream, digest, bounds, name)
        count = 0
        parts = read(stream, name, Source.model_validate(source), bounds, summary)
        for count, frame in enumerate(parts, start=1):
            _keep(frame, folder / f"{count}.parquet")
        # A writer may have changed the bytes behind the handle.
        _check_digest(stream, digest, bounds, name)
    _keep(pl.DataFrame(summary.broken, schema=BROKEN), folder / BROKEN_FILE)
    counts = {"rows": summary.rows, "skipped": summary.skipped, "parts": count}
    return {**counts, "ignored_columns": summary.ignored_columns}


def _check_digest(stream: BinaryIO, digest: str, limits: Limits, name: str) -> None:
    if _digest(stream, limits) != digest:
        raise MappingError(
            "ingest.file_changed",
            "changed while it was read; ingest it again when it is complete",
            where=name,
        )


def _keep(frame: pl.DataFrame, path: Path) -> None:
    """Write rows; a failure, such as a full disk, is not an error of the file."""
    try:
        frame.write_parquet(path, compression="lz4", statistics=False)
    except BaseException as error:
        if not is_panic(error) and not isinstance(error, (OSError, pl.exceptions.PolarsError)):
            raise
        reason = fault_text(error, path.parent)
        raise StorageError(
            "storage.cannot_write", f"cannot write {path.parent}: {reason}"
        ) from error


def _kept(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            "storage.cannot_read",
            f"cannot read {path}, which this ingest wrote: {fault_text(error)}; start again",
        ) from error


def frames(out: Path, count: int) -> Iterator[pl.DataFrame]:
    """Yield the text rows that `parse` wrote.

    Parameters
    ----------
    out
        Folder of the parts.
    count
        Number of parts.

    Yields
    ------
    Frames of at most 50,000 rows, in the order of the file.
    """
    for number in range(1, count + 1):
        part = _kept(out / f"{number}.parquet")
        yield part.head(_ROWS)  # even if the part is empty, because its columns are needed
        yield from part.slice(_ROWS).iter_slices(_ROWS)


def broken_rows(out: Path) -> list[Broken]:
    """Return the rows that could not be split into fields."""
    broken = _kept(out / BROKEN_FILE)
    return [Broken(**row) for row in broken.iter_rows(named=True)]


_PARSE: Final = "pipeline.steps.ingest.read_file:parse"


@dataclass(frozen=True)
class Text:
    """Rows that a child process read.

    Attributes
    ----------
    parts
        Text rows part by part, so that a large file is never in memory as text at once.
    broken
        Rows that could not be split into fields.
    rows, skipped
        Rows of the file, and those that the source skips.
    """

    parts: Iterator[pl.DataFrame]
    broken: list[Broken]
    rows: int
    skipped: int
    ignored_columns: tuple[str, ...]


@contextmanager
def read_text(
    child: Child, file: DiscoveredFile, digest: str, limits: Limits, scratch: Path
) -> Iterator[Text]:
    """Read a file in a child process.

    Parameters
    ----------
    child
        Bounded child process.
    file
        File and its source.
    digest
        Expected sha256.
    limits
        Bounds of the reading.
    scratch
        Folder for the text of the file, which is removed at the end of the block.

    Yields
    ------
    Rows of the file.

    Raises
    ------
    DataError
        The file is invalid; `ingest.read_limits`: it exceeds memory or time.
    MappingError
        `ingest.file_changed`: its sha256 is not `digest`.
    StorageError
        `storage.cannot_write`: the scratch folder is missing or full.
    ChildKilled
        `resource.child_killed`: the process was killed from outside, twice.
    """
    with storage_errors("storage.cannot_write", f"cannot write {scratch}"):
        place = tempfile.TemporaryDirectory(dir=scratch)
    path, source = str(file.path.absolute()), file.source.model_dump(mode="json")
    with place as folder:
        bounds = limits.model_dump(mode="json")
        try:
            response = child.call(
                _PARSE, path=path, digest=digest, source=source, limits=bounds, out=folder
            )
        except ChildKilled:
            raise
        except ChildFailed as error:
            limit = "max_seconds" if error.id == "child.timeout" else "max_memory_bytes"
            raise UnsafeInputError(
                "ingest.read_limits",
                f"cannot be read within the limits: {error.sentence}; divide the file, or raise "
                f"ingest.limits.{limit}",
                where=file.file,
            ) from None
        out = Path(folder)
        yield Text(
            frames(out, response["parts"]),
            broken_rows(out),
            response["rows"],
            response["skipped"],
            tuple(response["ignored_columns"]),
        )
