"""Selection of hyperparameters: the measurements that a family may use.

Guarantees: a family decides the values to try, and their order; quality is measured elsewhere
(`Trials`), on windows that end before the holdout begins. A default is replaced only by a clearly
better value, so that equal choices do not alternate between nightly runs. Better is a higher NDCG
and a larger share of entries kept overnight in lists of users without new events (`utility`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.contract import Recipe
from pipeline.number_text import change

Values = Sequence[float] | NDArray[np.float64]
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


@dataclass(frozen=True)
class Acceptance:
    """Rule by which a trial replaces the value or recipe that it is compared with.

    Attributes
    ----------
    min_gain
        Mean gain over the windows that is needed, relative to the mean of the reference.
    paired_se
        Number of standard errors of the paired gains that the mean gain must exceed. A single
        window has no standard error.
    """

    min_gain: float
    paired_se: float

    def __str__(self) -> str:
        return (
            f"{change(self.min_gain)} on average and {self.paired_se:g} standard error of the "
            "gains per window"
        )

    def accepts(self, trial: Values, reference: Values) -> bool:
        """Return whether a trial is clearly better than a reference on the same windows.

        Parameters
        ----------
        trial, reference
            Values per window, >= 0. Without windows nothing is accepted.
        """
        gains = np.asarray(trial, np.float64) - np.asarray(reference, np.float64)
        if not len(gains):
            return False
        needed = max(0.0, self.min_gain * float(np.mean(reference)))
        if len(gains) > 1:
            error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
            needed = max(needed, self.paired_se * error)
        return float(np.mean(gains)) > needed


# One standard error: a gain on one of three windows alone is never accepted, and gains on two of
# them only if the loss on the third is below half of a gain.
ACCEPTANCE: Final = Acceptance(min_gain=0.003, paired_se=1.0)
"""Rule of the nightly selection, of the mixture of a blend, and of `tune`."""


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
