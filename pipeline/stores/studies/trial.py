"""Trials as plain data, without Optuna's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

COMPLETE: Final = "complete"
PRUNED: Final = "pruned"
FAILED: Final = "failed"


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes
    ----------
    state
        ``complete``, ``pruned`` (stopped after some tuning window) or ``failed``.
    values
        Values by axis; the start has only those of its recipe.
    start
        True for the start of the search.
    notes
        JSON values of the caller.
    """

    number: int
    state: str
    values: Mapping[str, float]
    start: bool
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A trial to be measured now.

    Attributes
    ----------
    values
        Values by axis; the start has only those of its recipe.
    start
        True for the start of the search.
    """

    number: int
    values: Mapping[str, float]
    start: bool
    _trial: Any = field(repr=False)
