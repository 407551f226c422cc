"""One file, from its path to text rows: read by a bounded child, handed on part by part.

Promises: the rows are those of the bytes that were summed before; the text, raw ids included, is
gone from the disk when the block ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.data.sources import Broken, Limits, MappingError
from pipeline.errors import StorageError, UnsafeInputError
from pipeline.steps.child import Child, ChildFailed
from pipeline.steps.listing import Found
from pipeline.steps.parse import broken_rows, frames

_PARSE: Final = "pipeline.steps.parse:parse"


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
    child: Child, found: Found, digest: str, limits: Limits, scratch: Path
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
        raise StorageError(f"cannot write {scratch}: {error.strerror}") from error
    with place as folder:
        try:
            told = child.call(
                _PARSE,
                path=str(found.path.absolute()),
                source=found.source.model_dump(mode="json"),
                limits=limits.model_dump(mode="json"),
                out=folder,
            )
        except ChildFailed as error:
            raise UnsafeInputError(
                f"cannot be read within the limits: {error.sentence}", where=found.file
            ) from None
        if told["sha256"] != digest:
            raise MappingError("changed while it was read", where=found.file)
        out = Path(folder)
        yield Text(
            frames(out, told["parts"]),
            broken_rows(out),
            told["rows"],
            told["skipped"],
            tuple(told["ignored_columns"]),
        )
