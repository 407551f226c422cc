"""Training of ALS by implicit, on the CPU or on a GPU as the recipe demands.

Guarantees: `cuda` without a usable GPU is an error, never a silent fall-back; both devices begin at
the same vectors, take the same steps, and return NaN where the fit did not stay finite.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.errors import ResourceError

_WARP = 32
"""Threads of a GPU that run together."""


@dataclass(frozen=True)
class LeastSquares:
    """Settings of a fit by alternating least squares.

    Attributes
    ----------
    regularization, iterations
        As in the recipe.
    callback
        Called after each round with its number, from 0.
    """

    regularization: float
    iterations: int
    callback: Callable[..., None]

    def settings(self, factors: int) -> dict[str, Any]:
        """Return the arguments of implicit's model."""
        # Cells are confidences already, so alpha is 1; on the GPU `fit` would ignore another one.
        fields = {"regularization": self.regularization, "iterations": self.iterations}
        return {"factors": factors, "alpha": 1.0, **fields}


def choose_device(wanted: str) -> Literal["cpu", "cuda"]:
    """Return the device to train on: ``auto`` takes a GPU if there is one.

    Raises
    ------
    ResourceError
        `device.no_gpu`: ``cuda`` is wanted and no GPU can be used.
    """
    usable = wanted != "cpu" and cuda_usable()
    if wanted == "cuda" and not usable:
        raise ResourceError(
            "device.no_gpu",
            "als: device is 'cuda', but implicit finds no usable GPU; install a CUDA driver and "
            "the extra 'gpu' (RMM), or set device to 'auto' or 'cpu'",
        )
    return "cuda" if usable else "cpu"


def cuda_usable() -> bool:
    """Return True if implicit finds a GPU."""
    with warnings.catch_warnings():
        # implicit warns if a driver is missing, which is the result here and not a problem.
        warnings.simplefilter("ignore")
        import implicit.gpu
    return bool(implicit.gpu.HAS_CUDA)


def fit_on_cpu(
    how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit items to confidences on the CPU; users start at zero.

    Parameters
    ----------
    how
        Settings of the fit.
    cells
        Users × items confidence, float32, at least one.
    start
        ``(n_items, f)`` float32 start vectors of the items; may be overwritten.

    Returns
    -------
    ``(n_items, f)`` float32.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.recommender_base import ModelFitError

    with threadpool_limits(1, "blas"):  # implicit threads over rows; BLAS threads would fight it
        model = AlternatingLeastSquares(**how.settings(start.shape[1]))
        model.item_factors = start  # `fit` draws start vectors only where there are none
        model.user_factors = np.zeros((cells.shape[0], start.shape[1]), np.float32)
        # NaN ends `fit` with an error after the last round; the caller checks the factors itself.
        with contextlib.suppress(ModelFitError):
            model.fit(cells, show_progress=False, callback=how.callback)
    return np.asarray(model.item_factors, np.float32)


def fit_on_gpu(
    how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit items to confidences on a GPU; users start at zero.

    Parameters
    ----------
    how, cells, start
        As in `fit_on_cpu`.

    Returns
    -------
    ``(n_items, f)`` float32.
    """
    import implicit.gpu
    from implicit.gpu.als import AlternatingLeastSquares

    padded = whole_warps(start)
    users = np.zeros((cells.shape[0], padded.shape[1]), np.float32)
    model = AlternatingLeastSquares(**how.settings(padded.shape[1]))
    model.item_factors, model.user_factors = map(implicit.gpu.Matrix, (padded, users))
    model.fit(cells, show_progress=False, callback=how.callback)
    items = np.asarray(model.item_factors.to_numpy(), np.float32)[:, : start.shape[1]].copy()
    return describe_lost(items, cells)


def whole_warps(start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Append columns of zeros up to a multiple of 32.

    The kernel runs one thread per factor and sums over whole warps: memory past the last thread is
    undefined. A column of zeros stays zero in every step and changes no other.
    """
    return np.pad(start, ((0, 0), (0, -start.shape[1] % _WARP)))


def describe_lost(items: NDArray[np.float32], cells: sp.csr_matrix) -> NDArray[np.float32]:
    """Write NaN into rows that the GPU lost.

    If a solve fails, the kernel writes zeros and prints a line on stdout only. An item with a user
    does not reach zero by itself, so a row of zeros identifies a failed solve.

    Parameters
    ----------
    items
        ``(n_items, f)`` float32; changed in place.
    cells
        Users × items confidence, the input of the fit.

    Returns
    -------
    `items`.
    """
    had = np.bincount(cells.indices, minlength=len(items)) > 0
    items[had & ~items.any(axis=1)] = np.nan
    return items
