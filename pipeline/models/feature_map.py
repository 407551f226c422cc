"""What features say of factors: ridge regression, in closed form and in float64.

For factors V of those who teach, their features X and the means of both,
``B = (X'X + λI)⁻¹ X'V`` over centred X and V is ridge regression (Hoerl and Kennard 1970), and
``v = v̄ + (x − x̄) B`` what it says of somebody else. λ is the one that best predicts each teacher
from all others: leaving one out costs no second fit, its error is ``e / (1 − h)`` with the leverage
h (Allen 1974).

Promises: equal data give equal bytes, whatever the number of threads; a row without features gets
no factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.errors import ConfigError

WIDEST = 4096
"""Features that are learnt from, the most common ones: memory grows with their square."""
_ROWS = 1 << 11


@dataclass(frozen=True)
class FeatureMap:
    """What features say of factors: ``offset + features @ weights``.

    Attributes
    ----------
    names
        ``(p,)`` str, the features.
    weights, offset
        ``(p, f)`` and ``(f,)`` float32.
    regularization
        λ.
    """

    names: NDArray[np.str_]
    weights: NDArray[np.float32]
    offset: NDArray[np.float32]
    regularization: float

    def factors(self, known: FeatureMatrix) -> NDArray[np.float32]:
        """``(n, f)`` float32; 0 for a row without features."""
        if not np.array_equal(known.names, self.names):
            raise ValueError("these are described by other features than those learnt from")
        factors: NDArray[np.float32] = known.cells @ self.weights
        factors += self.offset
        factors[np.diff(known.cells.indptr) == 0] = 0.0
        return factors


def memory_of(known: FeatureMatrix, factors: int) -> int:
    """Bytes that `learn_map` needs at most: squares of features, a block, the factors."""
    rows, wide = len(known.cells.indptr) - 1, min(len(known.names), WIDEST)
    squares = 20 * wide**2 + 16 * wide * _ROWS
    return squares + 24 * int(known.cells.nnz) + 16 * rows * factors


def learn_map(
    known: FeatureMatrix, factors: NDArray[np.float32], regularizations: Sequence[float]
) -> FeatureMap:
    """Learn factors from features, with the λ that predicts best who was left out.

    Parameters
    ----------
    known, factors
        Those who teach: ``(n, p)`` features and ``(n, f)`` float32 factors, n ≥ 2.
    regularizations
        Values of λ > 0 to choose from; of equally good ones the first.
    """
    common = np.bincount(known.cells.indices, minlength=len(known.names))
    columns = np.sort(np.argsort(-common, kind="stable")[:WIDEST])
    x = known.cells[:, columns].astype(np.float64)
    v = factors.astype(np.float64)
    x_mean, v_mean = np.asarray(x.mean(axis=0)).ravel(), v.mean(axis=0)
    gram = (x.T @ x).toarray()
    gram -= np.outer(len(v) * x_mean, x_mean)
    right = x.T @ v - np.outer(len(v) * x_mean, v_mean)
    least, best, chosen = np.inf, np.zeros_like(right), regularizations[0]
    with threadpool_limits(1, "blas"):  # the same bytes whatever the number of threads
        for value in regularizations:
            inverse = _inverse(gram, value)
            weights = inverse @ right
            if len(regularizations) == 1:
                best = weights
                break
            error = _left_out(x, v, x_mean, v_mean, inverse, weights)
            if error < least:
                least, best, chosen = error, weights, value
    everywhere = np.zeros((len(known.names), v.shape[1]), np.float32)
    everywhere[columns] = best
    offset = (v_mean - x_mean @ best).astype(np.float32)
    return FeatureMap(known.names, everywhere, offset, chosen)


def _inverse(gram: NDArray[np.float64], regularization: float) -> NDArray[np.float64]:
    """Return ``(gram + λI)⁻¹``, which is symmetric and positive definite."""
    lower = gram.T.copy(order="F")
    lower[np.diag_indices_from(lower)] += regularization
    lower, failed = lapack.dpotrf(lower, lower=1, overwrite_a=1)
    if not failed:
        lower, failed = lapack.dpotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise ConfigError(
            "model.singular", f"regularization {regularization:g} is too small for the features"
        )
    for row in range(len(lower) - 1):  # what LAPACK leaves above the diagonal is not the inverse
        lower[row, row + 1 :] = lower[row + 1 :, row]
    inverse: NDArray[np.float64] = lower
    return inverse


def _left_out(
    x: sp.csr_matrix,
    v: NDArray[np.float64],
    x_mean: NDArray[np.float64],
    v_mean: NDArray[np.float64],
    inverse: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> float:
    """Sum the squared errors for each row, if all others had taught."""
    centre, total = inverse @ x_mean, 0.0
    for at in range(0, len(v), _ROWS):
        rows = x[at : at + _ROWS]
        spread = rows @ inverse
        leverage = np.asarray(rows.multiply(spread).sum(axis=1)).ravel()
        leverage += x_mean @ centre - 2 * (rows @ centre) + 1 / len(v)
        off = v[at : at + _ROWS] - v_mean - (rows @ weights - x_mean @ weights)
        total += float(((off / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2).sum())
    return total
