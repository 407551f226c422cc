"""What a trial is, without a word of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

COMPLETE: Final = "complete"
PRUNED: Final = "pruned"
FAILED: Final = "failed"


@dataclass(frozen=True)
class Trial:
    """One that came to its end.

    Attributes
    ----------
    state
        ``complete``, ``pruned`` (hopeless after some window) or ``failed``.
    values
        By axis, as proposed; where a recipe begins, only those that it has.
    start
        Whether it is where the search began.
    notes
        What the caller told of it.
    """

    number: int
    state: str
    values: Mapping[str, float]
    start: bool
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One that is to be measured now."""

    number: int
    values: Mapping[str, float]
    start: bool
    _trial: Any = field(repr=False)
