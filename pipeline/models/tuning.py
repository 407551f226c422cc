"""Choosing hyper-parameters: what a family says of itself, and what it may ask of the data.

Promises: a family decides what is tried, and in which order; how good it is, is measured elsewhere
(`Trials`), on windows that end before the holdout begins. A default gives way only to what is
clearly better, so that equal choices do not flicker between nights. Better is what finds more, and
what leaves the lists of those who did nothing as they were (`utility`).
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
"""Per cent of NDCG that one per cent more of a list that stays overnight is worth. Settings that no
window tells apart in NDCG differ by several per cent in what stays, night after night."""


def utility(ndcg: float, stability: float) -> float:
    """Return what lists are worth that find so much and of which so much stays overnight."""
    return float(ndcg * stability**STABILITY_WEIGHT)


class Trials(Protocol):
    """Measures recipes on windows before the holdout; `evaluation.trials` is the real one."""

    @property
    def discovery(self) -> bool:
        """Whether lists leave out what their user had before."""

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Say whether a recipe gives clearly better lists, on more windows than not."""

    def pools(
        self, recipes: Mapping[str, Recipe], newest: int | None = None
    ) -> Sequence[CandidatePool]:
        """Return what the scorers of some recipes say of the best candidates.

        One pool a window, or for the `newest` so many windows.
        """


@dataclass(frozen=True)
class PartScores:
    """What some scorers say of the pairs of a pool.

    Attributes
    ----------
    history
        The window that they were trained on.
    item
        ``(n,)`` int64 columns of the pairs in it, -1 where it lacks the item.
    scores
        ``(n,)`` float32 by recipe, as trained; 0 where it gives the pair no score.
    """

    history: History
    item: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class CandidatePool:
    """Pairs of users and items that any of some scorers would list, and what each says of them.

    Attributes
    ----------
    user
        ``(n,)`` int64 rows of the pairs, rising.
    part_scores
        What the scorers say.
    value
        Takes ``(n,)`` scores of the pairs and returns the mean NDCG of the lists they make, and
        the share of the catalogue in these lists.
    stability
        How much of the lists stays overnight; ``None`` where nobody asked.
    """

    user: NDArray[np.int64]
    part_scores: PartScores
    value: Callable[[NDArray[np.float32]], tuple[float, float]]
    stability: StabilityCheck | None = None


@dataclass(frozen=True)
class StabilityCheck:
    """How much of lists stays from a day earlier.

    Attributes
    ----------
    part_scores
        What the same recipes' scorers of that day say of the pairs.
    kept_share
        Takes ``(n,)`` scores of the pairs, then those of a day earlier, and returns the share of
        the entries of a day earlier that those who did nothing since would see again.
    """

    part_scores: PartScores
    kept_share: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
