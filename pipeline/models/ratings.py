"""Ratings as numbers: who rates high, what is rated high, and how tastes differ beyond that.

Promises: scores are ratings on the scale of the data, so they are judged by RMSE and MAE, too; of
several ratings of one item by one user the newest counts; nothing is kept of anybody: a user is
solved exactly from their own ratings given the items, in training and later alike.

    r̂(u, i) = μ + b_u + b_i + p_u · q_i

with the least Σ (r − r̂)² + λ (Σ b_u² + Σ b_i² + Σ |p_u|² + Σ |q_i|²) over the ratings given (Koren,
Bell and Volinsky 2009), in two stages: first the biases, the mean-damped baseline of Koren (2010),
then the factors on what the biases leave. Each stage takes turns between users and items; each turn
is a closed form (alternating least squares, Zhou et al. 2008, with one λ for all rows: counted in
ratings it means the same for a bias and a factor).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import DataError
from pipeline.models.contract import (
    Arrays,
    Capabilities,
    Recipe,
    Scorer,
    Scores,
    read_header,
)
from pipeline.models.randomness import keyed_normal
from pipeline.models.tuning import Span

_START = np.float32(0.1)
"""Standard deviation of a start vector's entries."""


@dataclass(frozen=True, eq=False)
class RatedScorer(Scorer):
    """What is known of the items; users come with their history.

    Attributes
    ----------
    mean
        μ.
    item_biases
        ``(n_items,)`` float32, b_i.
    item_factors
        ``(n_items, f)`` float32, q_i; ``f`` may be 0.
    regularization
        λ, as in the recipe.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, ratings=True
    )

    mean: float
    item_biases: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    regularization: float
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    def score(self, history: History) -> Scores:
        """Score each user by their own ratings in `history`; nothing is kept of anybody."""
        return self.fold_in(history)

    def fold_in(self, history: History) -> Scores:
        """Solve each user given the items; without a rating: zero, no list."""
        self.check(history)
        cells = ratings_of(history)
        user = _rows(cells)
        cells.data -= self.mean + self.item_biases[cells.indices].astype(np.float64)
        biases = _damped(user, cells.data, history.n_users, self.regularization)
        cells.data -= biases[user]
        factors = _solve(cells, self.item_factors, self.regularization)
        users = np.column_stack([factors, self.mean + biases, np.ones(len(biases))])
        users[np.diff(cells.indptr) == 0] = 0.0
        ones = np.ones(len(self.item_ids), np.float32)
        items = np.column_stack([self.item_factors, ones, self.item_biases])
        return Scores(users.astype(np.float32), items)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a fresh process needs."""
        return {
            **self.header(),
            "mean": np.array(self.mean),
            "item_biases": self.item_biases,
            "item_factors": self.item_factors,
            "regularization": np.array(self.regularization),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer."""
        return cls(
            mean=float(arrays["mean"]),
            item_biases=arrays["item_biases"],
            item_factors=arrays["item_factors"],
            regularization=float(arrays["regularization"]),
            **read_header(arrays),
        )


class Rated(Recipe):
    """Damped biases of users and items, and factors on what they leave."""

    capabilities: ClassVar[Capabilities] = RatedScorer.capabilities
    scorer: ClassVar[type[Scorer]] = RatedScorer
    space: ClassVar[Mapping[str, Span]] = {
        "regularization": Span((2.0, 5.0, 10.0, 20.0, 50.0), 0.1, 1000.0),
    }

    family: Literal["rated"] = Field(default="rated", description="Name of the family.")
    factors: int = Field(
        default=8, ge=0, le=256, description="Length of a vector; 0 leaves biases alone."
    )
    regularization: float = Field(
        default=10.0,
        ge=1e-6,
        le=1e6,
        description="Ratings that a bias or a vector needs to count for half.",
    )
    iterations: int = Field(
        default=10, ge=1, le=1000, description="Rounds of training, of the biases and the vectors."
    )
    random_state: int = Field(default=0, ge=0, description="Seed of the start vectors.")

    def memory(self, history: History) -> int:
        """The ratings in both directions, as they are while they are sorted, and the factors."""
        given = 0 if history.rating is None else int(np.count_nonzero(~np.isnan(history.rating)))
        rows = history.n_users + history.n_items
        return len(history.item) * 10 + given * 60 + rows * (self.factors + 2) * 16

    def train(self, history: History, *, salt: int = 0, progress: Progress = silent) -> RatedScorer:
        """Fit the biases, then the factors.

        Raises
        ------
        DataError
            The window holds no rating.
        """
        cells = ratings_of(history)
        if not cells.nnz:
            raise DataError(
                "the recipe predicts ratings and no event of the window is one; take it out of the "
                "recipes, or deliver events of kind 'rating' with a value",
                where="rated",
            )
        mean = float(cells.data.mean())
        cells.data -= mean
        biases = self._fit_biases(cells)
        progress("rated: biases")
        return RatedScorer(
            mean=mean,
            item_biases=biases.astype(np.float32),
            item_factors=self._fit_factors(cells, history.item_ids, salt, progress),
            regularization=self.regularization,
            item_ids=history.item_ids,
            trained_until=history.end,
        )

    def _fit_biases(self, cells: sp.csr_matrix) -> NDArray[np.float64]:
        """Return the items' biases; what no bias explains stays in `cells`."""
        (n_users, n_items), user, item = cells.shape, _rows(cells), cells.indices
        of_items, given = np.zeros(n_items), cells.data
        for _ in range(self.iterations):
            of_users = _damped(user, given - of_items[item], n_users, self.regularization)
            of_items = _damped(item, given - of_users[user], n_items, self.regularization)
        of_users = _damped(user, given - of_items[item], n_users, self.regularization)
        cells.data = given - of_users[user] - of_items[item]
        return of_items

    def _fit_factors(
        self, cells: sp.csr_matrix, item_ids: NDArray[np.str_], salt: int, progress: Progress
    ) -> NDArray[np.float32]:
        """Return the items' factors of what the biases leave."""
        key = f"rated|item|{self.random_state}|{salt}"
        items = keyed_normal(item_ids, self.factors, key=key) * _START
        by_item = cells.T.tocsr()
        for done in range(self.iterations if self.factors else 0):
            users = _solve(cells, items, self.regularization)
            items = _solve(by_item, users, self.regularization)
            progress(f"rated: iteration {done + 1} of {self.iterations}")
        return items.astype(np.float32)


def ratings_of(history: History) -> sp.csr_matrix:
    """Users × items float64: the newest rating of each pair; a rating of 0 is a cell, too."""
    shape = (history.n_users, history.n_items)
    if history.rating is None:
        return sp.csr_matrix(shape)
    rated = np.flatnonzero(~np.isnan(history.rating))[::-1]
    pair = history.user[rated].astype(np.int64) * history.n_items + history.item[rated]
    # Events of a user stand in the order of time: of a pair, the first from behind is the newest.
    pair, newest = np.unique(pair, return_index=True)
    user, item = np.divmod(pair, history.n_items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=history.n_users))])
    value = history.rating[rated[newest]].astype(np.float64)
    return sp.csr_matrix((value, item, indptr), shape=shape)


def _rows(cells: sp.csr_matrix) -> NDArray[np.int64]:
    """``(nnz,)`` row of each cell."""
    return np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))


def _damped(
    of: NDArray[np.integer[Any]], left: NDArray[np.float64], n: int, regularization: float
) -> NDArray[np.float64]:
    """``(n,)`` float64: for each owner, the sum of what is left ÷ (λ + its count)."""
    total = np.bincount(of, weights=left, minlength=n)
    return total / (regularization + np.bincount(of, minlength=n))


def _solve(
    cells: sp.csr_matrix, factors: NDArray[np.floating[Any]], regularization: float
) -> NDArray[np.float64]:
    """Solve ``(FᵀF + λI) x = Fᵀr`` for each row, over its own cells alone; 0 without any."""
    solved = np.zeros((cells.shape[0], factors.shape[1]))
    if not factors.shape[1]:
        return solved
    penalty = regularization * np.eye(factors.shape[1])
    with threadpool_limits(1, "blas"):  # on small matrices BLAS threads only cost
        for row in np.flatnonzero(np.diff(cells.indptr)):
            own = slice(cells.indptr[row], cells.indptr[row + 1])
            mine = factors[cells.indices[own]].astype(np.float64)
            solved[row] = np.linalg.solve(mine.T @ mine + penalty, mine.T @ cells.data[own])
    return solved
