"""Alternating least squares on decayed confidence, by implicit.

Guarantees: start vectors belong to item ids and users start at zero, so the result depends on the
data, the seed and the replicate alone, never on pseudonyms or on the order of rows; on the CPU all
bits are the same for any number of threads. The factors of a user are the exact optimum for fixed
item factors, so fold-in with the training window returns the trained ones.

The objective is that of Hu, Koren and Volinsky (2008) as implicit reads it: the cell *is* the
confidence. A cell of the window with confidence c costs c·(1 − u·v)²; any other cell costs (u·v)².
So a cell with confidence below 1 weighs *less* than an empty one, and alpha is the mean
confidence. An alpha below 1 suits data where the absence of an item is informative, such as
groceries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Penalty, Recipe, Scorer, Span
from pipeline.models.device import LeastSquares, fit
from pipeline.models.factor_scorer import StoredScorer, iteration_callback, stored
from pipeline.models.keyed_random import keyed_normal
from pipeline.models.threads import in_threads, thread_count

_START = np.float32(0.01)
"""Standard deviation of a start vector's entries; implicit's own starts are as small."""
_GRAM_ROWS = 1 << 15
"""Rows of V converted to float64 at a time, so that no float64 copy of all of V is kept."""
_USERS = 32
"""Users that a thread solves in one call."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AlsScorer(StoredScorer):
    """Factors of items and of the users known from training; the others are folded in.

    Attributes
    ----------
    scale
        Factor on the cells of `History.confidence`; fixed in training.
    half_life_days, regularization
        As in the recipe.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True)

    scale: float
    half_life_days: float | None
    regularization: float

    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Solve each user's least squares given the items; 0 for a user without confidence."""
        # Ages are measured at the end of training, when the scale was fixed. Measured now, they
        # would lower the weight of all events.
        cells = replace(history, end=self.trained_until).confidence(self.half_life_days)
        cells.data *= np.float32(self.scale)
        return solve_users(self.item_factors, cells, self.regularization)


class Als(Recipe):
    """Alternating least squares for implicit feedback (Hu, Koren and Volinsky 2008)."""

    scorer: ClassVar[type[Scorer]] = AlsScorer
    hash_excluded: ClassVar[frozenset[str]] = frozenset({"device"})
    rough: ClassVar[Mapping[str, int]] = {"iterations": 5}
    space: ClassVar[Mapping[str, Span]] = {
        "alpha": Span((0.1, 0.3, 1.0, 3.0, 10.0, 100.0), 0.03, 1000.0),
        "regularization": Span((1.0, 3.0, 10.0, 20.0, 40.0, 100.0, 300.0), 0.1, 1000.0),
        "half_life_days": Span((15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
    }

    family: Literal["als"] = Field(default="als", description=FAMILY)
    factors: int = Field(default=64, ge=1, le=1024, description="Length of a factor vector.")
    regularization: Penalty = Field(default=10.0, description="L2 penalty on all factor vectors.")
    alpha: float = Field(
        default=1.0, gt=0, le=1e6, description="Mean confidence, to which all cells are scaled."
    )
    iterations: int = Field(default=10, ge=1, le=1000, description="Rounds of training.")
    half_life_days: HalfLife | None = Field(
        default=90.0, description="Days after which an event counts half; null means no decay."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Training device: `auto` prefers a GPU, `cuda` requires one."
    )
    random_state: int = Field(default=0, ge=0, description="Seed of the start vectors.")

    def peak_bytes(self, history: History) -> int:
        """Estimate the largest of three peaks: the summing of the events, the fit, the users.

        The fit holds cells in both directions, and the factors twice. The users need cells,
        factors, all items and a part of them in float64, and four matrices for each thread.
        """
        cells, fitted = int(history.seen.nnz), self.fitted_bytes(history)
        items = history.n_items * self.factors * 8
        part = min(history.n_items, _GRAM_ROWS) * self.factors * 8
        users = items + 3 * part + thread_count() * 32 * self.factors * (self.factors + 1)
        return max(
            len(history.item) * 16, cells * 16 + 2 * fitted + part, cells * 12 + fitted + users
        )

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the factors."""
        return (history.n_users + history.n_items) * self.factors * 4

    def cpu_seconds(self, history: History) -> float:
        """Estimate the rounds, each over all cells and all rows of factors, and the users."""
        cells, square = int(history.seen.nnz), self.factors**2
        a_round = (
            cells * self.factors * 2.5e-9 + (history.n_users + history.n_items) * square * 5e-10
        )
        own = np.diff(history.seen.indptr).astype(np.float64)
        size = np.minimum(own, self.factors)
        users = float((size * (2 * own * self.factors + size * size)).sum()) * 4.5e-11
        return self.iterations * a_round + users + history.n_items * square * 1.5e-10

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Fit the items, then each user exactly.

        Raises
        ------
        ResourceError
            `device.*`: ``cuda`` is required and no GPU can be used, for the cause in the id.
        ConfigError
            `model.diverged`: the fit did not stay finite.
        """
        scorer = self.train_items(history, replicate=replicate, progress=progress)
        users = stored(history.user_ids, scorer.factors_of_others(history))
        return replace(scorer, **users)

    def train_items(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> AlsScorer:
        """Fit the items alone; the scorer solves users when they are scored.

        Parameters
        ----------
        history, replicate, progress
            As in `train`.
        """
        cells = history.confidence(self.half_life_days)
        # The mean is taken in float64: a float32 sum of millions of cells would lose digits.
        scale = self.alpha / float(cells.data.mean(dtype=np.float64)) if cells.nnz else self.alpha
        cells.data *= np.float32(scale)
        key = f"als|item|{self.random_state}|{replicate}"
        start = keyed_normal(history.item_ids, self.factors, key=key) * _START
        report = iteration_callback("als", self.iterations, progress)
        how = LeastSquares(self.regularization, self.iterations, report)
        items, device = fit(self.device, how, cells, start)
        if not np.isfinite(items).all():
            raise ConfigError(
                "model.diverged",
                f"als: the factors did not stay finite; raise regularization ({self.regularization}"
                f") or lower alpha ({self.alpha})",
            )
        # implicit solves the items last, so its user factors belong to the items before that step.
        # Solved again, they are equal to those of fold-in with the training window.
        return AlsScorer(
            item_factors=items,
            **stored(history.user_ids[:0], np.zeros((0, self.factors), np.float32)),
            scale=scale,
            half_life_days=self.half_life_days,
            regularization=self.regularization,
            **self.window(history),
            trained_on=device,
        )


def solve_users(
    item_factors: NDArray[np.float32], cells: sp.csr_matrix, regularization: float
) -> NDArray[np.float32]:
    """Solve, in float64, ``(VᵀV + Vᵀ(C − I)V + λI) u = VᵀC·1`` for each row of `cells`.

    Parameters
    ----------
    item_factors
        ``(n_items, f)`` float32, V.
    cells
        Users × items confidence, already scaled: the diagonals of C.
    regularization
        λ > 0.

    Returns
    -------
    ``(n_users, f)`` float32; a row depends on its own cells alone, and is 0 without any.
    """
    from pipeline.models.als_kernel import solve_rows  # only a process that solves imports numba

    users = np.zeros((cells.shape[0], item_factors.shape[1]), np.float32)
    start, column = cells.indptr.astype(np.int64), cells.indices.astype(np.int32, copy=False)
    with threadpool_limits(1, "blas"):  # the number of threads may change the last bits of a sum
        gram = _gram(item_factors) + regularization * np.eye(users.shape[1])
        solved = _solved(item_factors, np.linalg.inv(gram), column)

    def solve(first: int) -> int:
        rows = slice(first, first + _USERS)
        own = start[first : first + _USERS + 1]
        return solve_rows(
            item_factors, solved, gram, regularization, own, column, cells.data, users[rows]
        )

    list(in_threads(solve, range(0, len(users), _USERS)))
    return users


def _solved(
    matrix: NDArray[np.float32], inverse: NDArray[np.floating[Any]], wanted: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return ``V(VᵀV + λI)⁻¹`` in float64; only the rows of wanted items are written."""
    product, used = np.empty(matrix.shape), np.zeros(len(matrix), np.bool_)
    used[wanted] = True
    for at in range(0, len(matrix), _GRAM_ROWS):
        rows = at + np.flatnonzero(used[at : at + _GRAM_ROWS])
        # One product for each row: in a product of many, its place can change its last bits.
        product[rows] = (matrix[rows, None].astype(np.float64) @ inverse)[:, 0]
    return product


def _gram(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``VᵀV`` in float64."""
    gram = np.zeros((matrix.shape[1], matrix.shape[1]))
    for at in range(0, len(matrix), _GRAM_ROWS):
        part = matrix[at : at + _GRAM_ROWS].astype(np.float64)
        gram += part.T @ part
    return gram
