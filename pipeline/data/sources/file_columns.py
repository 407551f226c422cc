"""Columns of a file, and the names that messages may use for them.

In a file without a header line, or in JSON with ids as keys, the names of the columns are values,
such as ids of users. Messages reach logs, results and the terminal.

Guarantees: all messages that name columns of a file take the names from here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline.columns import Kind

_NAME: Final = re.compile(r"[A-Za-z_][\w .-]{0,40}")
_MONTHS: Final = (
    "jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|"
    "nov(ember)?|dec(ember)?"
)
_DAYS: Final = "mon(day)?|tues?(day)?|wed(nesday)?|thu(rs?(day)?)?|fri(day)?|sat(urday)?|sun(day)?"
_VALUE: Final = re.compile(
    # A digit that is not part of a word such as `item1`: numbers, instants, phone numbers.
    rf"(?<![^\W\d])\d|@|\d:\d|(?<![a-z_])({_MONTHS}|{_DAYS})(?![a-z_])"
    r"|^\s*([-+]?(nan|inf(inity)?)|null|none|true|false)\s*$"
)
"""Values in a first line of data, in lower case."""
_ID: Final = re.compile(r"(?i:user|item|timestamp|id|.*[_ ]id)|.*[a-z]I[dD]")
"""Names beside which `rating`, a kind of event, is the name of a column."""
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
        if _looks_like_data(names):
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


def _looks_like_data(names: Iterable[str]) -> bool:
    """Check if one field of a first line is a number, an instant, an address or a kind of event."""
    # Other forms of digits and of @ become the usual ones.
    fields = [unicodedata.normalize("NFKC", name).strip() for name in names]
    kinds = {field.lower() for field in fields} & set(Kind)
    is_rating = kinds == {Kind.RATING} and any(map(_ID.fullmatch, fields))
    return (bool(kinds) and not is_rating) or any(_VALUE.search(field.lower()) for field in fields)
