"""Causes of a difference between a version and its reproduction: a pure function of the evidence.

Guarantees:

* A cause is named only where the evidence shows it or the recipe's family declares it.
* A difference without evidence has no cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

ABSENT: Final = "not installed"


class CauseKind(StrEnum):
    """Kinds of causes."""

    SNAPSHOT = "snapshot"
    """The pinned data cannot be read any more."""
    ROWS = "rows"
    """Rows of the pinned data are gone, as after an erasure."""
    DATA = "data"
    """The pinned data give another window, or their files were changed."""
    THREADS = "threads"
    """The family declares that equal data may give other bytes."""
    DEVICE = "device"
    LIBRARY = "library"
    CODE = "code"


@dataclass(frozen=True)
class Cause:
    """A cause in one sentence."""

    kind: CauseKind
    sentence: str


@dataclass(frozen=True)
class Provenance:
    """Inputs of a training, recorded then or read now.

    Attributes
    ----------
    rows
        Rows read, by table.
    trained_on
        ``cpu`` or ``cuda``.
    libraries
        Name -> version; empty where the run recorded none.
    commit
        Git commit of the code.
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
    """Name the causes that explain different bytes, the surest first.

    Parameters
    ----------
    then, now
        Provenance of the committed and of the rebuilt version.
    deterministic
        Declaration of the recipe's family.
    window
        Names of the full window's arrays that differ.
    damage
        Error of the lake about files that differ from their checksums, or ``None``.
    """
    return (
        *_data(then, now, window),
        *([] if damage is None else [Cause(CauseKind.DATA, damage)]),
        *_training(then, now, deterministic),
        *_software(then, now),
    )


def _data(then: Provenance, now: Provenance, window: tuple[str, ...]) -> Iterator[Cause]:
    for table, before in then.rows.items():
        rows = now.rows.get(table, 0)
        change = f"the pinned {table} have {rows:,} rows instead of {before:,}"
        if rows < before:
            missing = f"{before - rows:,} are gone, as after the erasure of a user"
            yield Cause(CauseKind.ROWS, f"{change}: {missing}")
        elif rows > before:
            yield Cause(CauseKind.DATA, change)
    # If rows were added or removed, that alone explains the difference in the window.
    if window and all(now.rows.get(table, 0) == rows for table, rows in then.rows.items()):
        yield Cause(CauseKind.DATA, f"the full window differs in {', '.join(window)}")


def _training(then: Provenance, now: Provenance, deterministic: bool) -> Iterator[Cause]:
    if not deterministic:
        yield Cause(
            CauseKind.THREADS,
            "the recipe's family trains with racing threads: equal data may give other bytes",
        )
    if then.trained_on != now.trained_on:
        sentence = f"it was trained on {then.trained_on} and now on {now.trained_on}"
        yield Cause(CauseKind.DEVICE, sentence)
    elif now.trained_on != "cpu":
        # Both trained on a GPU, where sums have no fixed order, so two trainings may differ.
        sentence = f"it was trained on {now.trained_on}, which adds in no fixed order"
        yield Cause(CauseKind.DEVICE, sentence)


def _software(then: Provenance, now: Provenance) -> Iterator[Cause]:
    if not then.libraries:
        yield Cause(CauseKind.LIBRARY, "the run did not record its libraries; they may differ")
    else:
        for name in dict.fromkeys([*then.libraries, *now.libraries]):
            before, version = (side.libraries.get(name, ABSENT) for side in (then, now))
            if before != version:
                yield Cause(CauseKind.LIBRARY, f"{name} was {before} and is now {version}")
    if then.commit != now.commit:
        sentence = f"the code was commit {then.commit[:12]} and is now {now.commit[:12]}"
        yield Cause(CauseKind.CODE, sentence)


def differing(committed: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the arrays that differ in shape, dtype or a value, or that one side lacks.

    Parameters
    ----------
    committed, rebuilt
        Name -> array. NaN equals NaN in floating-point arrays.

    Returns
    -------
    Names in the order of `committed`, then of `rebuilt`.
    """

    def same(name: str) -> bool:
        if name not in committed or name not in rebuilt:
            return False
        one, other = committed[name], rebuilt[name]
        floating = one.dtype.kind == "f"  # `array_equal` cannot test texts for NaN
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=floating)

    return tuple(name for name in dict.fromkeys([*committed, *rebuilt]) if not same(name))
