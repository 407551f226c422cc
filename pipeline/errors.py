"""Expected failures as data: an id, a sentence for the user, and an exit code.

Guarantees: each error has an id, one sentence and an exit code. A sentence is one line of printable
characters, whatever names and values of files it contains. An error about data keeps at most five
line numbers, and its sentence begins with the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar


def printable(text: str) -> str:
    """Escape what is not printable: line feeds, terminal codes, bytes outside UTF-8.

    Format characters such as U+202E, which reverses the text after it, are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the hint at the allowed name that resembles another one most.

    Parameters
    ----------
    name
        A name that is not allowed, perhaps with a typo.
    allowed
        Names that are allowed.

    Returns
    -------
    Text to append to a sentence; empty if no name is similar.
    """
    similar = get_close_matches(name, list(allowed), n=1)
    return f"; nearest: {similar[0]}" if similar else ""


class NightjarError(Exception):
    """Expected failure with an id, one sentence and an exit code.

    Exit codes: 2 config, usage or too little memory, disk or device; 3 bad or unsafe data; 5 the
    gate blocked or the cold check failed; 6 a store is unavailable or locked; 1 is a bug. 0 and 4
    are outcomes, not errors.

    Parameters
    ----------
    id
        ``area.problem``, the same for every failure of this kind.
    sentence
        Names the field or file, the value, and the next step of the user.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, id: str, sentence: str) -> None:
        # Here for all messages: column names and JSON keys of a file may hold terminal codes.
        sentence = printable(sentence)
        super().__init__(sentence)
        self.id = id
        self.sentence = sentence


class ConfigError(NightjarError):
    """A setting, an argument or a workspace that cannot be used."""

    exit_code = 2


class ResourceError(NightjarError):
    """The request needs more memory or disk, or a device that is absent."""

    exit_code = 2


class DataError(NightjarError):
    """Data that cannot be used: the fault, its place, the number of rows and the first lines.

    Parameters
    ----------
    id
        ``area.problem``.
    what
        The fault in words, without raw ids of users.
    where
        File name, table or column.
    count
        Number of rows with the fault.
    positions
        Line numbers, 1-based as in an editor; the first five are kept.
    """

    exit_code = 3

    def __init__(
        self,
        id: str,
        what: str,
        *,
        where: str,
        count: int | None = None,
        positions: Sequence[int] = (),
    ) -> None:
        self.what = what
        self.where = where
        self.count = count
        self.positions = tuple(positions)[:5]
        sentence = f"{where}: {what}"
        if count is not None:
            sentence += f" ({count:,} row{'' if count == 1 else 's'}"
            if self.positions:
                sentence += f", first at line {', '.join(str(p) for p in self.positions)}"
            sentence += ")"
        super().__init__(id, sentence)


class UnsafeInputError(DataError):
    """Input that exceeds a limit against hostile files."""


class GateError(NightjarError):
    """The gate or the cold check stopped the nightly run."""

    exit_code = 5


class StorageError(NightjarError):
    """A file store that cannot be read or written, or whose checksums do not match."""

    exit_code = 6


class LakeError(StorageError):
    """The Delta lake cannot be read or written."""


class RegistryError(StorageError):
    """MLflow cannot be read or written."""


class ConcurrencyError(StorageError):
    """Another process holds the lock, or changed the data first."""
