"""Selection of hyperparameters: the measurements that a family may use.

Guarantees: a family decides the values to try, and their order; quality is measured elsewhere
(`Trials`), on windows that end before the holdout begins. A default is replaced only by a clearly
better value, so that equal choices do not alternate between nightly runs. Better is a higher NDCG
and a larger share of entries kept overnight in lists of users without new events (`utility`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.contract import Recipe

STABILITY_WEIGHT: Final = 2.0
"""Per cent of NDCG equal in utility to one per cent of list entries kept overnight. Settings of the
same NDCG on all windows differ by several per cent in the entries kept, night after night."""


def utility(ndcg: float, stability: float) -> float:
    """Return the utility of lists, ndcg · stability ** `STABILITY_WEIGHT`.

    Parameters
    ----------
    ndcg
        Mean NDCG of the lists.
    stability
        Share of their entries kept overnight.
    """
    return float(ndcg * stability**STABILITY_WEIGHT)


class Trials(Protocol):
    """Measures recipes on windows before the holdout; `evaluation.trials` implements it."""

    @property
    def discovery(self) -> bool:
        """True if lists exclude items that the user had before."""

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Return True if a recipe gives clearly better lists on most windows.

        Parameters
        ----------
        recipe, than
            The new recipe, and the one to beat.
        """

    def pools(
        self, recipes: Mapping[str, Recipe], newest: int | None = None
    ) -> Sequence[CandidatePool]:
        """Return the best candidates of some recipes with their scores, one pool per window.

        Parameters
        ----------
        recipes
            Recipes by name.
        newest
            Number of windows, from the newest; ``None`` for all.
        """


@dataclass(frozen=True)
class PartScores:
    """Scores of the pairs of a pool by several scorers.

    Attributes
    ----------
    history
        The window that they were trained on.
    item
        ``(n,)`` int64 columns of the pairs in it, -1 for an item without a column.
    scores
        ``(n,)`` float32 by recipe, as trained; 0 for a pair without a score.
    """

    history: History
    item: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class CandidatePool:
    """Pairs of users and items that one of several scorers would list, and all their scores.

    Attributes
    ----------
    user
        ``(n,)`` int64 rows of the pairs, rising.
    part_scores
        Scores of the pairs.
    value
        Takes ``(n,)`` scores of the pairs and returns the mean NDCG of the lists they make, and
        the share of the catalogue in these lists.
    stability
        Measure of the list entries kept overnight; ``None`` if the window has no previous day.
    """

    user: NDArray[np.int64]
    part_scores: PartScores
    value: Callable[[NDArray[np.float32]], tuple[float, float]]
    stability: StabilityCheck | None = None


@dataclass(frozen=True)
class StabilityCheck:
    """Measure of the list entries kept from the previous day.

    Attributes
    ----------
    part_scores
        Scores of the pairs by the same recipes, trained a day earlier.
    kept_share
        Takes ``(n,)`` scores of the pairs, then those of the previous day, and returns the share of
        the previous day's entries still in the lists of users without new events.
    """

    part_scores: PartScores
    kept_share: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
