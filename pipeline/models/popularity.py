"""Popularity: what most people have, of all time or of late. The lowest rungs of the ladder.

Promises: everybody gets the same scores, known or not; a person counts once an item however often
they had it, and not at all when they gave it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import (
    Capabilities,
    Recipe,
    Scorer,
    Scores,
)


@dataclass(frozen=True, eq=False)
class PopularityScorer(Scorer):
    """One figure an item, the same for everybody.

    Attributes
    ----------
    popularity
        ``(n_items,)`` float32, ≥ 0.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, baseline=0
    )

    popularity: NDArray[np.float32]
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    def score(self, history: History) -> Scores:
        """Score everybody alike."""
        return self.fold_in(history)

    def fold_in(self, history: History) -> Scores:
        """Score everybody alike."""
        self.check(history)
        return Scores(np.ones((history.n_users, 1), np.float32), self.popularity[:, None])


@dataclass(frozen=True, eq=False)
class DecayedPopularityScorer(PopularityScorer):
    """Popularity of late."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, baseline=1
    )


class Popularity(Recipe):
    """Number of users who have an item in the window."""

    capabilities: ClassVar[Capabilities] = PopularityScorer.capabilities
    scorer: ClassVar[type[Scorer]] = PopularityScorer

    family: Literal["popularity"] = Field(default="popularity", description="Name of the family.")

    def peak_bytes(self, history: History) -> int:
        """The events of the window and the cells that they add up to."""
        return len(history.item) * 18

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> PopularityScorer:
        """Count; nothing is random."""
        return PopularityScorer(
            popularity=item_popularity(history, None),
            item_ids=history.item_ids,
            trained_until=history.end,
        )


class DecayedPopularity(Recipe):
    """Users who have an item, each by how long ago they last had it."""

    capabilities: ClassVar[Capabilities] = DecayedPopularityScorer.capabilities
    scorer: ClassVar[type[Scorer]] = DecayedPopularityScorer

    family: Literal["decayed_popularity"] = Field(
        default="decayed_popularity", description="Name of the family."
    )
    half_life_days: float = Field(
        default=20.0, gt=0, le=3650, description="Days after which a user counts half."
    )

    def peak_bytes(self, history: History) -> int:
        """The cells of the window, and as much again while they are summed."""
        return len(history.item) * 70

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> DecayedPopularityScorer:
        """Count; nothing is random."""
        return DecayedPopularityScorer(
            popularity=item_popularity(history, self.half_life_days),
            item_ids=history.item_ids,
            trained_until=history.end,
        )


def item_popularity(history: History, half_life_days: float | None) -> NDArray[np.float32]:
    """Sum, over the users who have an item, 0.5^(age of their newest event of it / half-life).

    Counting people, each by their newest event, beats summing all decayed events: a few who buy the
    same thing every day say little about anybody else.

    Parameters
    ----------
    half_life_days
        ``None`` counts each user as 1.

    Returns
    -------
    ``(n_items,)`` float32.
    """
    cells = history.confidence(None)  # who took everything back has no cell
    weight = np.ones(len(cells.data))
    if half_life_days is not None:
        weight = np.exp2(-_newest_age_days(history, cells) / half_life_days)
    total = np.bincount(cells.indices, weights=weight, minlength=history.n_items)
    return total.astype(np.float32)


def _newest_age_days(history: History, cells: sp.csr_matrix) -> NDArray[np.float64]:
    """Return, for each cell, the age of the newest event that gave rather than took back."""
    width = history.n_items
    row = np.repeat(np.arange(history.n_users, dtype=np.int64), np.diff(cells.indptr))
    cell = row * width + cells.indices
    gave = history.weight > 0
    event = history.user[gave].astype(np.int64) * width + history.item[gave]
    age = history.age_days[gave].astype(np.float64)
    place = np.searchsorted(cell, event)
    present = place < len(cell)
    present[present] = cell[place[present]] == event[present]
    newest = np.full(len(cell), np.inf)
    np.minimum.at(newest, place[present], age[present])
    return newest
