"""Expected failures as data: an id, the sentence that a user reads, and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class NightjarError(Exception):
    """An expected failure: an id, one sentence, and an exit code.

    Codes: 2 config, usage or too little resource; 3 bad or unsafe data; 5 gate blocked or cold
    check failed; 6 a store is unavailable or locked; 1 is a bug. (0 and 4 are outcomes, no errors.)

    Parameters
    ----------
    id
        ``area.problem``; the same for every failure of this kind, whatever its sentence.
    sentence
        The field or file, the value, and what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, id: str, sentence: str) -> None:
        super().__init__(sentence)
        self.id = id
        self.sentence = sentence


class ConfigError(NightjarError):
    """A setting, an argument or a workspace that cannot be used."""

    exit_code = 2


class ResourceError(NightjarError):
    """Too little memory, disk or device for what was asked."""

    exit_code = 2


class DataError(NightjarError):
    """Data that cannot be used: what is wrong, where, how often, and the first positions.

    Parameters
    ----------
    id
        ``area.problem``.
    what
        The fault in words, without a raw id.
    where
        File name, table or column.
    count
        How many rows show it.
    positions
        Up to five line numbers, 1-based as in an editor.
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
    """Input that breaks a limit set against hostile files."""


class GateError(NightjarError):
    """The gate or the cold check stopped the night."""

    exit_code = 5


class StorageError(NightjarError):
    """A file store that cannot be read or written, or whose sums do not match."""

    exit_code = 6


class LakeError(StorageError):
    """The Delta lake."""


class RegistryError(StorageError):
    """MLflow."""


class ConcurrencyError(StorageError):
    """Somebody else holds the lock, or moved the pointer first."""
