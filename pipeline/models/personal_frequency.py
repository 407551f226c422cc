"""Repeat baseline: a user's own items by decayed counts, then popular items.

Guarantees: an own item always ranks above an item that the user never had; behind own items comes
decayed popularity. Useful only if lists may repeat items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Recipe, Scorer, Scores
from pipeline.models.popularity import own_before_popularity, relative_popularity


@dataclass(frozen=True, eq=False)
class PersonalFrequencyScorer(Scorer):
    """Own decayed counts before popularity.

    Attributes
    ----------
    popularity
        ``(n_items,)`` float32 in [0, 1].
    half_life_days
        Days after which an own event counts half.
    """

    declared: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, baseline=2, repeats_only=True
    )

    popularity: NDArray[np.float32]
    half_life_days: float

    def _fold_in(self, history: History) -> Scores:
        """Score each user by their own events in `history`; without events, by popularity."""
        own = history.confidence(self.half_life_days)
        return own_before_popularity(own, self.popularity, without=1.0)


class PersonalFrequency(Recipe):
    """A user's own decayed counts, filled up by decayed popularity."""

    scorer: ClassVar[type[Scorer]] = PersonalFrequencyScorer

    family: Literal["personal_frequency"] = Field(default="personal_frequency", description=FAMILY)
    half_life_days: HalfLife = Field(
        default=90.0, description="Days after which an own event counts half."
    )
    popularity_half_life_days: HalfLife = Field(
        default=20.0, description="Days after which a user counts half in the popularity of items."
    )

    def peak_bytes(self, history: History) -> int:
        """Estimate the cells of the window, and as much again during their sum."""
        return len(history.item) * 70

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Count; nothing is random."""
        return PersonalFrequencyScorer(
            popularity=relative_popularity(history, self.popularity_half_life_days),
            half_life_days=self.half_life_days,
            **self.window(history),
        )
