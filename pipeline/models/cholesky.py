"""Inverse of a symmetric positive definite matrix, in place.

Guarantees: equal input gives equal bytes, whatever the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.errors import ConfigError


def invert(matrix: NDArray[np.float64], family: str, regularization: float) -> NDArray[np.float64]:
    """Invert a matrix by Cholesky's method.

    Parameters
    ----------
    matrix
        ``(n, n)`` float64 in column order, so that LAPACK works in place; it is overwritten, and
        only its lower triangle is read.
    family, regularization
        Named in the error; `regularization` is already on the diagonal.

    Returns
    -------
    ``(n, n)`` float64; only the lower triangle holds the inverse.

    Raises
    ------
    ConfigError
        `model.singular`: the matrix is not positive definite.
    """
    from scipy.linalg import lapack

    # LAPACK's wrappers copy a matrix that is not in column order; in place it exists once.
    # Two threads split the work in another way than one does, which shows in the last bits.
    with threadpool_limits(1, "blas"):
        inverse, failed = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        if not failed:
            inverse, failed = lapack.dpotri(inverse, lower=1, overwrite_c=1)
    if failed:
        raise ConfigError(
            "model.singular",
            f"{family}: regularization {regularization:g} is too small to invert; raise it",
        )
    lower: NDArray[np.float64] = inverse
    return lower
