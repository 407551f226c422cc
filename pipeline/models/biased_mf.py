"""Biased matrix factorisation of ratings: means, biases of users and items, and factors.

Guarantees: scores are ratings on the scale of the data, so RMSE and MAE are measured as well; if a
user rated an item several times, the newest rating counts; no factors of users are stored: those of
a user are the exact solution for the user's ratings and fixed items, in training and later.

    r(u, i) = μ + b_u + b_i + p_u · q_i

minimises Σ (rating − r)² + λ (Σ b_u² + Σ |p_u|² + Σ b_i² + Σ |q_i|²) over the ratings given (Koren,
Bell and Volinsky 2009). Alternating least squares (Zhou et al. 2008) solves all users for fixed
items, then all items for fixed users, each row in closed form. Zhou et al. multiply λ by the number
of ratings of a row, which was not better here. With `factors` 0 it is Koren's damped baseline:
b = Σ residuals ÷ (λ + count).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import DataError
from pipeline.models.contract import FAMILY, Capabilities, Penalty, Recipe, Scorer, Scores, Span
from pipeline.models.keyed_random import keyed_normal
from pipeline.models.sparse_rows import csr_from_pairs

_Side = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
"""Factors and biases of the users, or of the items."""
_START = np.float32(0.1)
"""Standard deviation of a start vector's entries."""


@dataclass(frozen=True, eq=False)
class BiasedMfScorer(Scorer):
    """Factors and biases of the items; users are solved from the history that is scored.

    Attributes
    ----------
    mean
        μ.
    item_factors
        ``(n_items, f)`` float32, q_i; ``f`` may be 0.
    item_biases
        ``(n_items,)`` float32, b_i.
    regularization
        λ, as in the recipe.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True, ratings=True)

    mean: float
    item_factors: NDArray[np.float32]
    item_biases: NDArray[np.float32]
    regularization: float

    def _fold_in(self, history: History) -> Scores:
        """Solve each user for fixed items; a user without a rating scores 0 and gets no list."""
        cells = ratings_of(history)
        cells.data -= self.mean
        side = (self.item_factors, self.item_biases)
        factors, biases = _solve(cells, side, self.regularization)
        rated = (np.diff(cells.indptr) > 0).astype(np.float64)
        # Two more columns make one inner product of factors, mean and biases.
        users = np.column_stack([factors, (self.mean + biases) * rated, rated])
        ones = np.ones(len(self.item_ids), np.float32)
        items = np.column_stack([self.item_factors, ones, self.item_biases])
        return Scores(users.astype(np.float32), items)


class BiasedMf(Recipe):
    """Damped biases of users and items, and factors of the remaining differences."""

    scorer: ClassVar[type[Scorer]] = BiasedMfScorer
    space: ClassVar[Mapping[str, Span]] = {
        "regularization": Span((2.0, 5.0, 10.0, 20.0, 50.0), 0.1, 1000.0),
    }

    family: Literal["biased_mf"] = Field(default="biased_mf", description=FAMILY)
    factors: int = Field(
        default=8, ge=0, le=256, description="Length of a factor vector; 0 leaves biases alone."
    )
    regularization: Penalty = Field(
        default=10.0, description="L2 penalty: number of ratings at which a bias counts half."
    )
    iterations: int = Field(default=10, ge=1, le=1000, description="Rounds of training.")
    random_state: int = Field(default=0, ge=0, description="Seed of the start vectors.")

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of two peaks: the sorting of the ratings, and an iteration.

        An iteration holds the ratings by user and by item, and the vectors of both sides.
        """
        given = 0 if history.rating is None else int(np.count_nonzero(~np.isnan(history.rating)))
        users, items = history.n_users, history.n_items
        turn = 8 * (self.factors + 1) * (users + items + max(users, items))
        draws = 26 * self.factors * items
        return max(given * 48, given * 28 + max(turn, draws))

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Fit the items.

        Raises
        ------
        DataError
            `model.no_ratings`: the window holds no rating.
        """
        cells = ratings_of(history)
        if not cells.nnz:
            raise DataError(
                "model.no_ratings",
                "the recipe predicts ratings, but no event of the window is a rating; remove it "
                "from the recipes, or deliver events of kind 'rating' with a value",
                where="biased_mf",
            )
        # Centred ratings, so that the penalty pulls a row with few ratings towards the mean.
        mean = float(cells.data.mean())
        cells.data -= mean
        by_item = cells.T.tocsr()
        key = f"rated|item|{self.random_state}|{replicate}"
        start = keyed_normal(history.item_ids, self.factors, key=key) * _START
        items: _Side = (start, np.zeros(history.n_items))
        for done in range(self.iterations):
            users = _solve(cells, items, self.regularization)
            items = _solve(by_item, users, self.regularization)
            progress(f"biased_mf: iteration {done + 1} of {self.iterations}")
        return BiasedMfScorer(
            mean=mean,
            item_factors=items[0].astype(np.float32),
            item_biases=items[1].astype(np.float32),
            regularization=self.regularization,
            **self.window(history),
        )


def ratings_of(history: History) -> sp.csr_matrix:
    """Return users × items float64: the newest rating of each pair; a rating of 0 is a cell."""
    shape = (history.n_users, history.n_items)
    if history.rating is None:
        return sp.csr_matrix(shape)
    rated = np.flatnonzero(~np.isnan(history.rating))[::-1]
    pair = history.user[rated].astype(np.int64) * history.n_items + history.item[rated]
    # Events of a user are in the order of time, here reversed; `unique` returns the first of equal
    # pairs, which is the newest.
    pair, newest = np.unique(pair, return_index=True)
    value = history.rating[rated[newest]].astype(np.float64)
    return csr_from_pairs(pair, value, shape)


def _solve(cells: sp.csr_matrix, side: _Side, regularization: float) -> _Side:
    """Solve ``(FᵀF + λI) x = Fᵀ(r − b)`` for each row over its own cells; 0 without any."""
    # cells: rows × columns, ratings minus their mean. side: (n_columns, f) factors and (n_columns,)
    # biases b of the columns; F is the factors and a column of ones. Returns (n_rows, f) factors
    # and (n_rows,) biases of the rows, float64.
    factors, biases = side
    width = factors.shape[1] + 1
    solved = np.zeros((cells.shape[0], width))
    penalty = regularization * np.eye(width)
    with threadpool_limits(1, "blas"):  # threads cost more than f × f matrices gain
        for row in np.flatnonzero(np.diff(cells.indptr)):
            own = slice(cells.indptr[row], cells.indptr[row + 1])
            column = cells.indices[own]
            other_side = np.ones((len(column), width))  # the last column belongs to the bias
            other_side[:, :-1] = factors[column]
            left = cells.data[own] - biases[column]
            solved[row] = np.linalg.solve(other_side.T @ other_side + penalty, other_side.T @ left)
    return solved[:, :-1], solved[:, -1]
