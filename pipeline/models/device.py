"""Where implicit trains: on the CPU or on a GPU, as the recipe says and never otherwise.

Promises: `cuda` without a usable GPU is an error, no silent change; both devices begin at the same
vectors, take the same steps, and return NaN where the fit did not stay finite.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.errors import ResourceError

_WARP = 32
"""Threads of a GPU that run together."""


@dataclass(frozen=True)
class LeastSquares:
    """What a fit by alternating least squares takes beside its data.

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


def choose_device(wanted: str, usable: Callable[[], bool]) -> Literal["cpu", "cuda"]:
    """Return the device to train on; `usable` tells whether a GPU can be used."""
    if wanted == "cpu":
        return "cpu"
    if usable():
        return "cuda"
    if wanted == "cuda":
        raise ResourceError(
            "device.no_gpu",
            "als: device is 'cuda' and no usable GPU was found; implicit needs a CUDA driver and "
            "the extra 'gpu' (RMM), or set device to 'auto' or 'cpu'",
        )
    return "cpu"


def cuda_usable() -> bool:
    """Tell whether implicit sees a GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a driver is missing: that is our answer
        import implicit.gpu
    return bool(implicit.gpu.HAS_CUDA)


def fit_on_cpu(
    how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit items to confidences on the CPU; users start at zero.

    Parameters
    ----------
    cells
        Users × items confidence, float32, at least one.
    start
        ``(n_items, f)`` float32: where the items begin; may be overwritten.

    Returns
    -------
    ``(n_items, f)`` float32.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.recommender_base import ModelFitError

    factors = start.shape[1]
    with threadpool_limits(1, "blas"):  # implicit threads over rows; BLAS threads would fight it
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=how.regularization,
            alpha=1.0,  # `cells` are confidences already
            iterations=how.iterations,
        )
        model.item_factors = start
        model.user_factors = np.zeros((cells.shape[0], factors), np.float32)
        # NaN ends `fit` with an error after the last round; the caller looks at the factors itself.
        with contextlib.suppress(ModelFitError):
            model.fit(cells, show_progress=False, callback=how.callback)
    return np.asarray(model.item_factors, np.float32)


def fit_on_gpu(
    how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit items to confidences on a GPU; parameters and result as in `fit_on_cpu`."""
    import implicit.gpu
    from implicit.gpu.als import AlternatingLeastSquares

    padded = whole_warps(start)
    factors = padded.shape[1]
    model = AlternatingLeastSquares(
        factors=factors,
        regularization=how.regularization,
        alpha=1.0,  # on the GPU `fit` would ignore another one
        iterations=how.iterations,
    )
    model.item_factors = implicit.gpu.Matrix(padded)
    model.user_factors = implicit.gpu.Matrix(np.zeros((cells.shape[0], factors), np.float32))
    model.fit(cells, show_progress=False, callback=how.callback)
    items = np.asarray(model.item_factors.to_numpy(), np.float32)[:, : start.shape[1]].copy()
    return describe_lost(items, cells)


def whole_warps(start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Append columns of zeros up to a multiple of 32.

    The kernel has a thread a factor and sums over whole warps: what lies past the last thread is
    undefined. A column of zeros stays zero in every step and changes no other.
    """
    return np.pad(start, ((0, 0), (0, -start.shape[1] % _WARP)))


def describe_lost(items: NDArray[np.float32], cells: sp.csr_matrix) -> NDArray[np.float32]:
    """Write NaN where the GPU lost a row: its kernel puts zeros there, and says so on stdout alone.

    An item that somebody has never ends at zero of itself.
    """
    had = np.bincount(cells.indices, minlength=len(items)) > 0
    items[had & ~items.any(axis=1)] = np.nan
    return items
