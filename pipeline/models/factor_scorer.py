"""Users whose factors were learnt with the items': one scorer of what training stored of them.

Promises: who was in the training window is scored as trained, whatever has happened since; what to
say of anybody else is the family's own matter, asked once and for them alone.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.contract import Scorer, Scores


class Stored(TypedDict):
    """What a `StoredScorer` is built with, of its users."""

    user_ids: NDArray[np.str_]
    user_factors: NDArray[np.float32]


def stored(user_ids: NDArray[np.str_], factors: NDArray[np.float32]) -> Stored:
    """Return users and their factors, row by row, in the order that a scorer keeps: by id."""
    order = np.argsort(user_ids, kind="stable")
    return Stored(user_ids=user_ids[order], user_factors=factors[order])


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
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    def score(self, history: History) -> Scores:
        """Score known users as trained, and the others as `factors_of_others` says."""
        self.check(history)
        place = np.searchsorted(self.user_ids, history.user_ids)
        known = place < len(self.user_ids)
        known[known] = self.user_ids[place[known]] == history.user_ids[known]
        users = np.empty((history.n_users, self.item_factors.shape[1]), np.float32)
        users[known] = self.user_factors[place[known]]
        others = np.flatnonzero(~known)
        if len(others):
            users[others] = self.factors_of_others(history.take(others))
        return Scores(users, self.item_factors)

    @abstractmethod
    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Return the factors ``(n_users, f)`` of users who were not in the training window.

        Raises
        ------
        KeyError
            The family has nothing to say of one of them.
        """
