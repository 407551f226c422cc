"""Popularity baselines: the number of users of each item, over all time or decayed.

Guarantees: all users get the same scores; a user counts once per item however often they had it,
and not at all after returning it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Recipe, Scorer, Scores
from pipeline.models.sparse_rows import find_sorted, row_extremes

_BEHIND = 2.0**-10
"""Score of the most popular item as a share of the user's weakest own one: popularity decides only
between own items that differ by less than a thousandth, and never ranks another item above them."""


@dataclass(frozen=True, eq=False)
class PopularityScorer(Scorer):
    """One number per item, the same for all users.

    Attributes
    ----------
    popularity
        ``(n_items,)`` float32, ≥ 0.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True, baseline=0)

    popularity: NDArray[np.float32]

    def _fold_in(self, history: History) -> Scores:
        """Score all users alike."""
        return Scores(np.ones((history.n_users, 1), np.float32), self.popularity[:, None])


class DecayedPopularityScorer(PopularityScorer):
    """Popularity among recent users."""

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True, baseline=1)


class Popularity(Recipe):
    """Number of users who have an item in the window."""

    scorer: ClassVar[type[Scorer]] = PopularityScorer

    family: Literal["popularity"] = Field(default="popularity", description=FAMILY)

    def peak_bytes(self, history: History) -> int:
        """Estimate the events of the window and the cells that they sum to."""
        return len(history.item) * 18

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Count; nothing is random."""
        popularity = item_popularity(history, None)
        return PopularityScorer(popularity=popularity, **self.window(history))


class DecayedPopularity(Recipe):
    """Users who have an item, each decayed by the age of their newest event of it."""

    scorer: ClassVar[type[Scorer]] = DecayedPopularityScorer

    family: Literal["decayed_popularity"] = Field(default="decayed_popularity", description=FAMILY)
    half_life_days: HalfLife = Field(
        default=20.0, description="Days after which a user counts half."
    )

    def peak_bytes(self, history: History) -> int:
        """Estimate the cells of the window, and as much again during their sum."""
        return len(history.item) * 70

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Count; nothing is random."""
        popularity = item_popularity(history, self.half_life_days)
        return DecayedPopularityScorer(popularity=popularity, **self.window(history))


def item_popularity(history: History, half_life_days: float | None) -> NDArray[np.float32]:
    """Sum, over the users who have an item, 0.5^(age of their newest event of it / half-life).

    Counting users, each by their newest event, recommends better than the sum of all decayed
    events: a few users who buy the same item every day predict little about the others.

    Parameters
    ----------
    history
        Events of the window.
    half_life_days
        ``None`` counts each user as 1.

    Returns
    -------
    ``(n_items,)`` float32.
    """
    cells = history.confidence(None)  # a user who returned an item has no cell
    weight = np.ones(len(cells.data))
    if half_life_days is not None:
        weight = np.exp2(-_newest_age_days(history, cells) / half_life_days)
    total = np.bincount(cells.indices, weights=weight, minlength=history.n_items)
    return total.astype(np.float32)


def relative_popularity(history: History, half_life_days: float) -> NDArray[np.float32]:
    """Return `item_popularity` as a share of the most popular item.

    Parameters
    ----------
    history
        Events of the window.
    half_life_days
        Days after which a user counts half.

    Returns
    -------
    ``(n_items,)`` float32 in [0, 1].
    """
    popularity = item_popularity(history, half_life_days)
    return popularity / most if (most := popularity.max(initial=0.0)) > 0 else popularity


def own_before_popularity(
    own: sp.csr_matrix, popularity: NDArray[np.float32], *, without: float
) -> Scores:
    """Score own items by their cells, and all items by popularity below the weakest own one.

    Parameters
    ----------
    own
        Users × items CSR float32, > 0: scores of own items.
    popularity
        ``(n_items,)`` float32 in [0, 1].
    without
        Weight of popularity for users without own items: 1 lists popular items, 0 lists none.
    """
    weakest = row_extremes(np.minimum, own, empty=without)
    return Scores((weakest * np.float32(_BEHIND))[:, None], popularity[:, None], sparse_bonus=own)


def _newest_age_days(history: History, cells: sp.csr_matrix) -> NDArray[np.float64]:
    """Return, for each cell, the age of its newest event of positive weight."""
    width = history.n_items
    row = np.repeat(np.arange(history.n_users, dtype=np.int64), np.diff(cells.indptr))
    cell = row * width + cells.indices
    gave = history.weight > 0
    event = history.user[gave].astype(np.int64) * width + history.item[gave]
    place, present = find_sorted(cell, event)
    # Assignment with repeated indices keeps the last value; `minimum.at` takes all into account.
    newest = np.full(len(cell), np.inf)
    np.minimum.at(newest, place[present], history.age_days[gave][present].astype(np.float64))
    return newest
