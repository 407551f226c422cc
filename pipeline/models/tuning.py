"""Choosing hyper-parameters: what a family says of itself, and what it may ask of the data.

Promises: a family decides what is tried, and in which order; how good it is, is measured elsewhere
(`Trials`), on windows that end before the holdout begins. A default gives way only to what is
clearly better, so that equal choices do not flicker between nights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Progress
from pipeline.data.matrix import History

if TYPE_CHECKING:
    from pipeline.models.contract import Recipe

Chosen = TypeVar("Chosen", bound="Recipe")


@dataclass(frozen=True)
class Span:
    """What is worth trying for one hyper-parameter.

    Attributes
    ----------
    tries
        A few values that cover the range, rising: what a night chooses from.
    low, high
        The range, both ends included, that a longer search may use.
    log
        Whether steps are ratios.
    """

    tries: tuple[float, ...]
    low: float
    high: float
    log: bool = True


class Trials(Protocol):
    """Measures recipes on windows before the holdout; `evaluation.trials` is the real one."""

    @property
    def discovery(self) -> bool:
        """Whether lists leave out what their user had before."""

    def better(self, recipe: Recipe, than: Recipe) -> bool:
        """Say whether a recipe gives clearly better lists, on more windows than not."""

    def pools(self, recipes: Mapping[str, Recipe], newest: int | None = None) -> Sequence[Pool]:
        """Return what the scorers of some recipes say of the best candidates.

        One pool a window, or for the `newest` so many windows.
        """


@dataclass(frozen=True)
class Pool:
    """Pairs of users and items that any of some scorers would list, and what each says of them.

    Attributes
    ----------
    user, item
        ``(n,)`` int64 rows and columns of the pairs, by user, then item.
    scores
        ``(n,)`` float32 by recipe, as trained; 0 where it gives the pair no score.
    history
        The window that the scorers were trained on.
    value
        Takes ``(n,)`` scores of the pairs and returns the mean NDCG of the lists they make, and
        the share of the catalogue in these lists.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]
    history: History
    value: Callable[[NDArray[np.float32]], tuple[float, float]]


def climb(recipe: Chosen, field: str, span: Span, trials: Trials, progress: Progress) -> Chosen:
    """Move one field along the values of its span, upwards or else downwards, while that is better.

    Parameters
    ----------
    recipe
        Where it starts; a field that is ``None`` starts below all values.
    """
    here = getattr(recipe, field)
    above = [value for value in span.tries if here is None or value > here]
    below = [value for value in reversed(span.tries) if here is not None and value < here]
    best = recipe
    for way in (above, below):
        for value in way:
            progress(f"{field} {value:g}")
            trial = type(best).model_validate(best.model_dump() | {field: value})
            if not trials.better(trial, best):
                break
            best = trial
        if best is not recipe:
            break
    return best
