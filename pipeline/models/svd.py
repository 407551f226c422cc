"""Randomised SVD of the training window, each user and each item divided by its degree.

Guarantees: no user is stored, a user is scored from their own history; the random projection
belongs to item ids, so the result depends on the data, the seed and the replicate alone, never on
pseudonyms or on the order of rows; it is the same to the bit for any number of threads. Signs and
rotations of the singular vectors cancel out of every score.

With R the decayed confidence, d the sums of its rows and columns and τ a share of their mean::

    (d_u + τ_u)^-½ R (d_i + τ_i)^-½  ≈  U Σ Vᵀ
    scores of a history x  =  x (d_i + τ_i)^-½ V Σ^damping Vᵀ (d_i + τ_i)^½

Its left part are the user's factors, its right part the items'. A few rounds of subspace iteration
find V (Halko, Martinsson and Tropp 2011); more rounds come closer to the exact V and recommend no
better. Without τ, a user with a single item that no other user has is a direction of its own, as
strong as any (Qin and Rohe 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Recipe, Scorer, Scores, Span
from pipeline.models.keyed_random import keyed_normal

_NOTHING = 1e-6
"""A squared singular value below this share of the largest is rounding of float32."""


@dataclass(frozen=True, eq=False)
class SvdScorer(Scorer):
    """Factors and degrees of the items; users come with their history.

    Attributes
    ----------
    item_factors
        ``(n_items, f)`` float32: ``(d_i + τ_i)^½ V Σ^(damping/2)``. If the window has fewer than
        ``f`` directions, the last columns are 0.
    degree
        ``(n_items,)`` float32 > 0: ``d_i + τ_i``.
    half_life_days
        As in the recipe.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True)

    item_factors: NDArray[np.float32]
    degree: NDArray[np.float32]
    half_life_days: float | None

    def _fold_in(self, history: History) -> Scores:
        """Sum the factors of each user's items; 0 and no list without confidence."""
        cells = history.confidence(self.half_life_days)
        cells.data /= self.degree[cells.indices]
        return Scores(cells @ self.item_factors, self.item_factors)


class Svd(Recipe):
    """Degree-normalised randomised SVD."""

    scorer: ClassVar[type[Scorer]] = SvdScorer
    rough: ClassVar[Mapping[str, int]] = {"factors": 128}
    space: ClassVar[Mapping[str, Span]] = {
        "half_life_days": Span((7.0, 15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
        "factors": Span((32, 64, 128, 256, 512), 8, 1024),
        "damping": Span((0.0, 0.5, 1.0), 0.0, 2.0, log=False),
        "smoothing": Span((0.1, 0.3, 1.0), 0.01, 10.0),
    }

    family: Literal["svd"] = Field(default="svd", description=FAMILY)
    factors: int = Field(
        default=128, ge=1, le=2048, description="Factors per item; those beyond the rank are 0."
    )
    half_life_days: HalfLife | None = Field(
        default=60.0, description="Days after which an event counts half; null means no decay."
    )
    damping: float = Field(
        default=0.5, ge=0, le=4, description="Exponent of the singular values; 0 weighs all alike."
    )
    smoothing: float = Field(
        default=0.3, ge=0, le=100, description="Addition to every degree, as a share of their mean."
    )
    oversampling: int = Field(
        default=32, ge=0, le=1024, description="Directions searched in addition to those kept."
    )
    iterations: int = Field(default=3, ge=1, le=100, description="Rounds of subspace iteration.")
    random_state: int = Field(default=0, ge=0, description="Seed of the random projection.")

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of the events during their sum, and a round of the iteration.

        A round holds cells in both directions, and the directions in several forms.
        """
        width = min(self.factors + self.oversampling, history.n_items)
        block = (history.n_users + 3 * history.n_items) * width * 4
        return max(len(history.item) * 16, int(history.seen.nnz) * 24 + block + width**2 * 32)

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the item factors; users have none."""
        return history.n_items * self.factors * 4

    def cpu_seconds(self, history: History) -> float:
        """Estimate the rounds: two sparse products, and an orthonormal basis of the items."""
        width = min(self.factors + self.oversampling, history.n_items)
        a_round = int(history.seen.nnz) * width * 1.3e-9 + history.n_items * width**2 * 1.5e-10
        return (self.iterations + 0.5) * a_round

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Find the directions of the window."""
        cells = history.confidence(self.half_life_days)
        users, degree = (self._degrees(cells.sum(axis=axis)) for axis in (1, 0))
        cells.data /= np.repeat(np.sqrt(users), np.diff(cells.indptr))
        cells.data /= np.sqrt(degree)[cells.indices]
        width = min(self.factors + self.oversampling, history.n_items)
        key = f"svd|item|{self.random_state}|{replicate}"
        start = keyed_normal(history.item_ids, width, key=key)
        values, vectors = right_singular_vectors(cells, start, self.iterations, progress)
        # Both factors of a score carry the square root of Σ^damping.
        strength = values[: self.factors] ** (self.damping / 2)
        factors = np.zeros((history.n_items, self.factors), np.float32)
        factors[:, : len(strength)] = np.sqrt(degree)[:, None] * vectors[:, : self.factors]
        factors[:, : len(strength)] *= strength
        return SvdScorer(
            item_factors=factors,
            degree=degree.astype(np.float32),
            half_life_days=self.half_life_days,
            **self.window(history),
        )

    def _degrees(self, sums: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the smoothed degrees of the rows or the columns; 1 instead of 0."""
        degree = np.asarray(sums, np.float64).ravel()
        degree += self.smoothing * degree.mean()
        return np.where(degree > 0, degree, 1.0)


def right_singular_vectors(
    matrix: sp.csr_matrix, start: NDArray[np.float32], iterations: int, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Find the strongest right singular vectors by subspace iteration.

    Parameters
    ----------
    matrix
        Rows × columns float32.
    start
        ``(n_columns, w)`` float32, w ≤ n_columns: first guess of the subspace.
    iterations
        Rounds, ≥ 1, each a product with ``matrixᵀ matrix``.
    progress
        Receives one line per round.

    Returns
    -------
    Singular values ``(r,)`` float64, falling, > 0, and vectors ``(n_columns, r)`` float32, with r
    the smaller of w and the rank at the precision of float32.
    """
    transposed, block = matrix.T.tocsr(), start
    with threadpool_limits(1, "blas"):  # sums of several threads depend on their number
        for done in range(iterations):
            progress(f"svd: iteration {done + 1} of {iterations}")
            # Without an orthonormal basis in each round, all columns approach the same direction.
            block, _ = scipy.linalg.qr(
                transposed @ (matrix @ block), mode="economic", overwrite_a=True, check_finite=False
            )
        # The Gram matrix of the image is w × w, however many users there are.
        image = matrix @ block
        squares, turn = np.linalg.eigh((image.T @ image).astype(np.float64))
        present = squares > max(squares[-1] * _NOTHING, 0.0)
        squares, turn = squares[present][::-1], turn[:, present][:, ::-1]  # `eigh` sorts rising
        return np.sqrt(squares), block @ turn.astype(np.float32)
