"""The one contract of all model families: recipe -> trainer -> scorer -> scores.

A *recipe* (family and frozen hyper-parameters) trains on a `History` and returns a *scorer*. For a
block of users a scorer yields `Scores`: an inner product of factors, a sparse term over items that
the user already had, or both. `models.topk` turns scores into exact lists, so evaluation, gating,
lists and serving are written once.

What every family promises (tests/contracts/test_models.py): equal data and recipe give equal
scores where `deterministic` is declared; `arrays` and `from_arrays` give the same lists; a user
without a row gets no invented list; `trained_until` is the end of its window.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypedDict

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.base import Frozen, Progress, format_instant, parse_instant, silent
from pipeline.data.matrix import History

Arrays = Mapping[str, NDArray[Any]]

_ITEMS = "catalogue"
_UNTIL = "trained_until"
_ON = "trained_on"


@dataclass(frozen=True)
class Capabilities:
    """What a family declares about itself; nothing is found out by a caught exception.

    Attributes
    ----------
    fold_in
        It can score users from a history that it was not trained on.
    deterministic
        Equal data and recipe give equal bytes on the CPU, whatever the number of threads.
    baseline
        Its place on the ladder of a first model, lowest first; ``None`` for what learns.
    repeats_only
        It has something of its own to say only where lists may hold items that a user already had.
    """

    fold_in: bool
    deterministic: bool
    baseline: int | None = None
    repeats_only: bool = False


@dataclass(frozen=True)
class Scores:
    """Scores of some users for the whole catalogue, not yet written out.

    The score of (user, item) is ``users[user] @ items[item] + sparse[user, item]``; either part
    may be absent. Without factors, only the cells of `sparse` have a score at all; neither has a
    user whose factors are all zero (nothing is known of them) any score outside those cells.

    Attributes
    ----------
    users, items
        ``(n_users, f)`` and ``(n_items, f)`` float32, or both ``None``.
    sparse
        Users × items CSR float32, ≥ 0, over items the user already had, or ``None``.
    """

    users: NDArray[np.float32] | None = None
    items: NDArray[np.float32] | None = None
    sparse: sp.csr_matrix | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users, number of items."""
        if self.users is not None and self.items is not None:
            return len(self.users), len(self.items)
        if self.sparse is not None and self.users is None and self.items is None:
            return int(self.sparse.shape[0]), int(self.sparse.shape[1])
        raise ValueError("scores need factors of users and items, a sparse term, or both")


class Scorer(ABC):
    """A trained model: scores users over its own catalogue.

    Attributes
    ----------
    item_ids
        ``(n_items,)`` str, sorted: the columns of all scores.
    trained_until
        Exclusive end, in UTC, of what it has seen.
    trained_on
        ``cpu`` or ``cuda``.
    """

    capabilities: ClassVar[Capabilities]
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    @abstractmethod
    def score(self, history: History) -> Scores:
        """Score the users of `history`, rows in its order.

        `history` must lie over this scorer's catalogue, else `ValueError`. A family that keeps a
        state a user (factors) scores users known from training as trained; the others are folded
        in where that is declared, else they raise `KeyError`. A family that keeps none (own counts)
        answers from `history`: give it the window that it was trained on.
        """

    @abstractmethod
    def fold_in(self, history: History) -> Scores:
        """Score users from the events in `history` alone, as if they were new."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a fresh process needs, as plain arrays (strings, numbers; no objects)."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays) -> Scorer:
        """Rebuild the scorer from `arrays`."""

    def check(self, history: History) -> None:
        """Raise `ValueError` if `history` lies over another catalogue."""
        ours, theirs = self.item_ids, history.item_ids
        if ours is not theirs and not np.array_equal(ours, theirs):
            raise ValueError(
                f"the history lies over a catalogue of {len(theirs)} items, not over the "
                f"{len(ours)} that the model was trained on"
            )

    def header(self) -> dict[str, NDArray[Any]]:
        """What every scorer stores; `read_header` turns it back."""
        return {
            _ITEMS: self.item_ids,
            _UNTIL: np.array(format_instant(self.trained_until)),
            _ON: np.array(self.trained_on),
        }


class Header(TypedDict):
    """What every scorer is rebuilt with."""

    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str


def read_header(arrays: Arrays) -> Header:
    """Read what `Scorer.header` wrote."""
    return Header(
        item_ids=arrays[_ITEMS],
        trained_until=parse_instant(str(arrays[_UNTIL])),
        trained_on=str(arrays[_ON]),
    )


class Recipe(Frozen):
    """A model family and its frozen hyper-parameters; names are implicit's.

    Subclasses add ``family: Literal[...]`` and the fields of their family.
    """

    capabilities: ClassVar[Capabilities]
    scorer: ClassVar[type[Scorer]]
    not_hashed: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where it trains, not what: another machine makes no other recipe."""

    @property
    def hash(self) -> str:
        """First 12 hex digits of the sha256 of the recipe's canonical JSON."""
        chosen = self.model_dump(mode="json", exclude=set(self.not_hashed))
        canonical = json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @abstractmethod
    def train(self, history: History, *, salt: int = 0, progress: Progress = silent) -> Scorer:
        """Learn from a window.

        `salt` gives another draw of whatever is random; equal salts give equal scorers where the
        family is deterministic. Raises `ResourceError` when the device or the memory is not there.
        """
