"""Columns of a file, and the names that messages may use for them.

In a file without a header line, or in JSON with ids as keys, the names of the columns are values,
such as ids of users. Messages reach logs, results and the terminal.

Guarantees: all messages that name columns of a file take the names from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.columns import Kind

_NAME: Final = re.compile(r"[A-Za-z_][\w .-]{0,40}")
_VALUE: Final = re.compile(r"\s*[-+]?\d|.*(@|\d:\d)", re.DOTALL)
"""Numbers, instants and addresses."""
_KINDS: Final = frozenset(Kind) - {Kind.RATING}
"""Kinds in a first line of data; `rating` is a usual name of a column."""
_LISTED: Final = 20
_SAMPLE: Final = 100


@dataclass(frozen=True)
class FileColumns:
    """Columns of a file.

    Attributes
    ----------
    names
        All of them, in the order of the file.
    named
        Those that messages may name; a message gives the number of any other one.
    like_data
        The first line looks like a row, and not like a header; `named` is empty then.
    """

    names: tuple[str, ...]
    named: frozenset[str]
    like_data: bool = False

    @classmethod
    def of_header(cls, names: Iterable[str]) -> FileColumns:
        """Return the columns of a file with a header; none is named if a field looks like data."""
        names = tuple(names)
        if any(_VALUE.match(name) or name.strip().lower() in _KINDS for name in names):
            return cls(names, frozenset(), like_data=True)
        return cls(names, frozenset(filter(_NAME.fullmatch, names)))

    @classmethod
    def of_keys(cls, frame: pl.DataFrame) -> FileColumns:
        """Return the keys of JSON objects; those are named that most of the first 100 rows have.

        A key of a single row is not named, because it may be an id.
        """
        sample = frame.head(_SAMPLE)
        counts = sample.select(pl.all().count()).row(0) if sample.width else ()
        usual = (
            name
            for name, count in zip(sample.columns, counts, strict=True)
            if count > 1 and 2 * count > sample.height
        )
        return cls(tuple(frame.columns), frozenset(filter(_NAME.fullmatch, usual)))

    def label(self, name: str) -> str:
        """Return the name of one column, or its number with a sign: ``#3``."""
        return name if name in self.named else f"#{self.names.index(name) + 1}"

    def __str__(self) -> str:
        """Return the names for a sentence, and the number of the other columns."""
        if self.like_data:
            return f"{len(self.names)} columns, and its first line looks like data"
        listed = [name for name in self.names if name in self.named][:_LISTED]
        others = len(self.names) - len(listed)
        if listed and others:
            listed.append(f"{others} more")
        return ", ".join(listed) or f"{others} other columns"
