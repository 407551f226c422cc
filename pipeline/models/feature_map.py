"""Ridge regression of factors on features, in closed form and in float64.

For factors V of the training rows, their features X and the means of both,
``B = (X'X + λI)⁻¹ X'V`` over centred X and V is ridge regression (Hoerl and Kennard 1970), and
``v = v̄ + (x − x̄) B`` its prediction for another row. λ minimises the squared leave-one-out errors.
These need no further fits: the error of a row is its residual ÷ (1 − h) with the leverage h (Allen
1974).

Guarantees: equal data give equal bytes, whatever the number of threads; a row without features gets
no factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.models.cholesky import invert

# The memory of a regression grows with the square of this number.
WIDEST = 4096
"""Maximum number of features in a regression; the most common ones are used."""
_ROWS = 1 << 11
"""Rows whose error is computed at a time."""
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureMap:
    """Linear map from features to factors: ``offset + features @ weights``.

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

    def factors(self, features: FeatureMatrix) -> NDArray[np.float32]:
        """Return ``(n, f)`` float32; 0 for a row without features."""
        if not np.array_equal(features.names, self.names):
            raise ValueError("the rows have other features than those of the training rows")
        factors: NDArray[np.float32] = features.cells @ self.weights
        factors += self.offset
        factors[np.diff(features.cells.indptr) == 0] = 0.0
        return factors


def memory_of(features: FeatureMatrix, factors: int) -> int:
    """Return an upper bound of the bytes that `learn_map` needs.

    Parameters
    ----------
    features
        Features of the training rows.
    factors
        Length of a factor vector.
    """
    rows, wide = len(features.cells.indptr) - 1, min(len(features.names), WIDEST)
    squares = 20 * wide**2 + 16 * wide * _ROWS
    return squares + 24 * int(features.cells.nnz) + 16 * rows * factors


def learn_map(
    features: FeatureMatrix, factors: NDArray[np.float32], regularizations: Sequence[float]
) -> FeatureMap:
    """Fit a map from features to factors, with the λ of the smallest leave-one-out error.

    Parameters
    ----------
    features, factors
        Training rows: ``(n, p)`` features and ``(n, f)`` float32 factors, n ≥ 2.
    regularizations
        Values of λ > 0 to choose from; of equally good ones the first.

    Raises
    ------
    ConfigError
        `model.singular`: a λ is too small for the features.
    """
    common = np.bincount(features.cells.indices, minlength=len(features.names))
    columns = np.sort(np.argsort(-common, kind="stable")[:WIDEST])
    x = features.cells[:, columns].astype(np.float64)
    v = factors.astype(np.float64)
    x_mean, v_mean = np.asarray(x.mean(axis=0)).ravel(), v.mean(axis=0)
    # Centred products, without a dense copy of the centred X.
    gram = (x.T @ x).toarray()
    gram -= np.outer(len(v) * x_mean, x_mean)
    right = x.T @ v - np.outer(len(v) * x_mean, v_mean)
    least, best, chosen = np.inf, np.zeros_like(right), regularizations[0]
    with threadpool_limits(1, "blas"):  # sums of several threads depend on their number
        for value in regularizations:
            inverse = _inverse(gram, value)
            weights = inverse @ right
            if len(regularizations) == 1:  # a single λ needs no comparison
                best = weights
                break
            error = _left_out(x, v, (x_mean, v_mean), inverse, weights)
            if error < least:
                least, best, chosen = error, weights, value
    everywhere = np.zeros((len(features.names), v.shape[1]), np.float32)
    everywhere[columns] = best
    offset = (v_mean - x_mean @ best).astype(np.float32)
    return FeatureMap(features.names, everywhere, offset, chosen)


def _inverse(gram: NDArray[np.float64], regularization: float) -> NDArray[np.float64]:
    """Return ``(gram + λI)⁻¹``, both triangles filled."""
    damped = gram.T.copy(order="F")
    damped[np.diag_indices_from(damped)] += regularization
    inverse = invert(damped, "ridge", regularization)
    for row in range(len(inverse) - 1):  # LAPACK fills the lower triangle only
        inverse[row, row + 1 :] = inverse[row + 1 :, row]
    return inverse


def _left_out(
    x: sp.csr_matrix, v: _Floats, means: tuple[_Floats, _Floats], inverse: _Floats, weights: _Floats
) -> float:
    """Sum the squared errors of each row, predicted from all others."""
    x_mean, v_mean = means
    centre, total = inverse @ x_mean, 0.0
    for at in range(0, len(v), _ROWS):
        rows = x[at : at + _ROWS]
        spread = rows @ inverse
        leverage = np.asarray(rows.multiply(spread).sum(axis=1)).ravel()
        leverage += x_mean @ centre - 2 * (rows @ centre) + 1 / len(v)
        off = v[at : at + _ROWS] - v_mean - (rows @ weights - x_mean @ weights)
        # A leverage of 1 is a row that the others cannot predict: its error must stay finite.
        total += float(((off / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2).sum())
    return total
