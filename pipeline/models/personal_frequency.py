"""A user's own repeats: what they had before, most and newest first.

Promises: an item that a user had always stands before one they never had; behind their own items
comes decayed popularity. It says something of its own only where lists may repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import numpy as np
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
from pipeline.models.popularity import item_popularity

_BEHIND = 2.0**-10
"""The most popular item as a share of the user's weakest own one: popularity decides only between
own items that differ by less than a thousandth, and never brings a foreign one before them."""


@dataclass(frozen=True, eq=False)
class PersonalFrequencyScorer(Scorer):
    """Own decayed counts before popularity.

    Attributes
    ----------
    popularity
        ``(n_items,)`` float32 in [0, 1].
    half_life_days
        Days after which an event of one's own counts half.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, baseline=2, repeats_only=True
    )

    popularity: NDArray[np.float32]
    half_life_days: float
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    def score(self, history: History) -> Scores:
        """Score each user by their own events in `history`; nothing is kept of anybody."""
        return self.fold_in(history)

    def fold_in(self, history: History) -> Scores:
        """Score each user by their own events in `history`."""
        self.check(history)
        own = history.confidence(self.half_life_days)
        weakest = np.ones(history.n_users, np.float32)
        filled = np.flatnonzero(np.diff(own.indptr))
        weakest[filled] = np.minimum.reduceat(own.data, own.indptr[filled])
        return Scores(
            users=(weakest * np.float32(_BEHIND))[:, None],
            items=self.popularity[:, None],
            sparse_bonus=own,
        )


class PersonalFrequency(Recipe):
    """A user's own decayed counts, filled up by decayed popularity."""

    capabilities: ClassVar[Capabilities] = PersonalFrequencyScorer.capabilities
    scorer: ClassVar[type[Scorer]] = PersonalFrequencyScorer

    family: Literal["personal_frequency"] = Field(
        default="personal_frequency", description="Name of the family."
    )
    half_life_days: float = Field(
        default=90.0, gt=0, le=3650, description="Days after which an own event counts half."
    )
    popularity_half_life_days: float = Field(
        default=20.0,
        gt=0,
        le=3650,
        description="Days after which a user counts half in what fills up a list.",
    )

    def peak_bytes(self, history: History) -> int:
        """The cells of the window, and as much again while they are summed."""
        return len(history.item) * 70

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> PersonalFrequencyScorer:
        """Count; nothing is random."""
        popularity = item_popularity(history, self.popularity_half_life_days)
        most = popularity.max(initial=0.0)
        return PersonalFrequencyScorer(
            popularity=popularity / most if most > 0 else popularity,
            half_life_days=self.half_life_days,
            item_ids=history.item_ids,
            trained_until=history.end,
        )
