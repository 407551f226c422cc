"""Why a version, made again, is not the one that was committed: a pure function of what was found.

Promises: a cause is named only where something was seen or is declared; where nothing explains a
difference, nothing is invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

ABSENT: Final = "not installed"


class CauseKind(StrEnum):
    """Kinds of causes."""

    SNAPSHOT = "snapshot"
    """The pinned data cannot be read any more."""
    ROWS = "rows"
    """Rows of the pinned data are gone, as after an erasure."""
    DATA = "data"
    """The rows are as many, and make another window."""
    THREADS = "threads"
    """The family declares that equal data may give other bytes."""
    DEVICE = "device"
    LIBRARY = "library"
    CODE = "code"


@dataclass(frozen=True)
class Cause:
    """A cause, in one sentence for a person."""

    kind: CauseKind
    sentence: str


@dataclass(frozen=True)
class Provenance:
    """Where bytes came from: then or now.

    Attributes
    ----------
    rows
        Rows that were read, by table.
    libraries
        Name -> version; empty where the run recorded none.
    """

    rows: Mapping[str, int]
    trained_on: str
    libraries: Mapping[str, str]
    commit: str


def causes(
    then: Provenance,
    now: Provenance,
    *,
    deterministic: bool,
    window: tuple[str, ...],
    damage: str | None,
) -> tuple[Cause, ...]:
    """Name what explains that bytes differ, the surest first.

    Parameters
    ----------
    deterministic
        What the recipe's family declares.
    window
        Arrays of the full window that came out differently.
    damage
        What the lake says of files that are not what was written, or ``None``.
    """
    return (
        *_data(then, now, window, damage),
        *_training(then, now, deterministic),
        *_surroundings(then, now),
    )


def _data(
    then: Provenance, now: Provenance, window: tuple[str, ...], damage: str | None
) -> tuple[Cause, ...]:
    result = []
    for table, was in then.rows.items():
        rows = now.rows.get(table, 0)
        if rows < was:
            result.append(
                Cause(
                    CauseKind.ROWS,
                    f"the pinned {table} give {rows:,} rows, and gave {was:,} then: "
                    f"{was - rows:,} are gone, as after a person's erasure",
                )
            )
        elif rows > was:
            result.append(
                Cause(
                    CauseKind.DATA, f"the pinned {table} give {rows:,} rows, and gave {was:,} then"
                )
            )
    if window and not result:
        result.append(
            Cause(CauseKind.DATA, f"the data make another window: {', '.join(window)} differ")
        )
    if damage is not None:
        result.append(Cause(CauseKind.DATA, damage))
    return tuple(result)


def _training(then: Provenance, now: Provenance, deterministic: bool) -> tuple[Cause, ...]:
    result = []
    if not deterministic:
        result.append(
            Cause(
                CauseKind.THREADS,
                "the recipe's family trains with threads that race: equal data give other bytes",
            )
        )
    if then.trained_on != now.trained_on:
        result.append(
            Cause(
                CauseKind.DEVICE,
                f"it was trained on {then.trained_on}, and on {now.trained_on} now",
            )
        )
    elif now.trained_on != "cpu":
        result.append(
            Cause(
                CauseKind.DEVICE, f"it is trained on {now.trained_on}, which adds in no fixed order"
            )
        )
    return tuple(result)


def _surroundings(then: Provenance, now: Provenance) -> tuple[Cause, ...]:
    result = []
    if not then.libraries:
        result.append(
            Cause(CauseKind.LIBRARY, "the run did not record its libraries; they may be others")
        )
    else:
        for name in dict.fromkeys([*then.libraries, *now.libraries]):
            was, version = then.libraries.get(name, ABSENT), now.libraries.get(name, ABSENT)
            if was != version:
                result.append(Cause(CauseKind.LIBRARY, f"{name} was {was}, and is {version} now"))
    if then.commit != now.commit:
        result.append(
            Cause(
                CauseKind.CODE,
                f"the code was of commit {then.commit[:12]}, and is of {now.commit[:12]}",
            )
        )
    return tuple(result)


def differing(committed: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the arrays that differ in shape, type or a value, or that one side lacks."""
    import numpy as np

    return tuple(
        name
        for name in dict.fromkeys([*committed, *rebuilt])
        if name not in committed
        or name not in rebuilt
        or committed[name].dtype != rebuilt[name].dtype
        or not np.array_equal(
            committed[name], rebuilt[name], equal_nan=committed[name].dtype.kind == "f"
        )
    )
