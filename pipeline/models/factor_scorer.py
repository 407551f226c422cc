"""Scorer of families that learn user factors together with the item factors.

Guarantees: a user of the training window is scored as trained, even with newer events; the other
users are passed to the family in one call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import Scorer, Scores
from pipeline.models.sparse_rows import find_sorted


class Stored(TypedDict):
    """Fields of a `StoredScorer` that come from its users."""

    user_ids: NDArray[np.str_]
    user_factors: NDArray[np.float32]


def stored(user_ids: NDArray[np.str_], factors: NDArray[np.float32]) -> Stored:
    """Return users and their factors sorted by id, as a scorer keeps them.

    Parameters
    ----------
    user_ids
        ``(n_users,)`` str.
    factors
        ``(n_users, f)`` float32, in the same order.
    """
    order = np.argsort(user_ids, kind="stable")
    return Stored(user_ids=user_ids[order], user_factors=factors[order])


def iteration_callback(family: str, iterations: int, progress: Progress) -> Callable[..., None]:
    """Return a callback for implicit that reports each finished round.

    Parameters
    ----------
    family
        Name in front of the report.
    iterations
        Number of rounds.
    progress
        Receives the report.
    """

    def report_iteration(done: int, *_: object) -> None:
        progress(f"{family}: iteration {done + 1} of {iterations}")

    return report_iteration


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredScorer(Scorer):
    """Factors of items and of the users known from training.

    Attributes
    ----------
    item_factors
        ``(n_items, f)`` float32.
    user_ids
        ``(n_known,)`` str, sorted.
    user_factors
        ``(n_known, f)`` float32.
    """

    item_factors: NDArray[np.float32]
    user_ids: NDArray[np.str_]
    user_factors: NDArray[np.float32]

    def _score(self, history: History) -> Scores:
        """Score known users as trained, and the others by `factors_of_others`."""
        place, trained = find_sorted(self.user_ids, history.user_ids)
        users = np.empty((history.n_users, self.item_factors.shape[1]), np.float32)
        users[trained] = self.user_factors[place[trained]]
        others = np.flatnonzero(~trained)
        if len(others):  # a family that cannot fold in raises even for an empty history
            users[others] = self.factors_of_others(history.take(others))
        return Scores(users, self.item_factors)

    def _fold_in(self, history: History) -> Scores:
        """Score all users by `factors_of_others`."""
        return Scores(self.factors_of_others(history), self.item_factors)

    @abstractmethod
    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Return the factors ``(n_users, f)`` of users who were not in the training window.

        Raises
        ------
        KeyError
            The family cannot compute factors for one of them.
        """
