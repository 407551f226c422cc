"""Training of ALS by implicit, on the CPU or on a GPU as the recipe demands.

Guarantees: a GPU is used only after two small fits on it equalled those on the CPU; `cuda` without
a usable GPU is an error that names the cause, and `auto` records the cause and takes the CPU; both
devices begin at the same vectors, take the same steps, and return NaN where the fit did not stay
finite.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.models.gpu_driver import (
    Gpu,
    GpuError,
    check_kernels,
    find_gpu,
    import_implicit,
    load_implicit,
    load_libraries,
    lost,
    megabytes,
    too_little,
)

_WARP: Final = 32
"""Threads of a GPU that run together."""
_ALLOWANCE: Final = 256 << 20
"""Bytes for the workspace of cuBLAS and the code of the kernels, which no interface reports."""
_FULL: Final = re.compile("out of memory|ALLOC_FAILED|ALLOCATION_FAILED")
"""Messages of CUDA, cuBLAS and cuRAND about a GPU without free memory."""
_CANARY: Final = (32, 128)
"""Factors of the fits that a GPU must pass: one warp, and several whose sums are combined."""


@dataclass
class GpuUse:
    """Use of the GPU by the fits of a block.

    Attributes
    ----------
    cause
        Reason for which a fit took the CPU although the machine has a GPU.
    estimated_bytes, peak_bytes
        Memory of the GPU: the estimate before the largest fit, and the most that a fit took.
    """

    cause: GpuError | None = None
    estimated_bytes: int = 0
    peak_bytes: int = 0


_use: ContextVar[GpuUse | None] = ContextVar("gpu_use", default=None)


@contextlib.contextmanager
def watch_gpu() -> Iterator[GpuUse]:
    """Record how the fits of the block use the GPU."""
    use = GpuUse()
    token = _use.set(use)
    try:
        yield use
    finally:
        _use.reset(token)


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


def fit(
    wanted: str, how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> tuple[NDArray[np.float32], Literal["cpu", "cuda"]]:
    """Fit items to confidences on the wanted device; ``auto`` takes a GPU if one is usable.

    Parameters
    ----------
    wanted
        ``auto``, ``cpu`` or ``cuda``.
    how, cells, start
        As in `fit_on_cpu`.

    Returns
    -------
    ``(n_items, f)`` float32, 0 without any cell, and the device of the fit.

    Raises
    ------
    GpuError
        `device.*`: ``cuda`` is wanted and the GPU cannot be used, for the cause that the id names.
    """
    if wanted != "cpu":
        use = _use.get() or GpuUse()
        try:
            return _fit_in_memory(usable_gpu(), use, how, cells, start), "cuda"
        except GpuError as cause:
            if wanted == "cuda":
                raise
            # A machine without a GPU trains on its CPU as intended: there is nothing to report.
            if cause.id != "device.no_card":
                use.cause = _bare(cause)
    return (fit_on_cpu(how, cells, start) if cells.nnz else np.zeros_like(start)), "cpu"


def _fit_in_memory(
    gpu: Gpu, use: GpuUse, how: LeastSquares, cells: sp.csr_matrix, start: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fit on the GPU if the fit has room there, and record its memory."""
    estimate, (free, total) = gpu_bytes(cells, start.shape[1]), gpu.memory()
    if not cells.nnz:
        return np.zeros_like(start)
    if estimate > free:
        raise too_little(
            f"{megabytes(free)} of {megabytes(total)}, and the fit needs {megabytes(estimate)}"
        )

    def report(*done: object) -> None:
        # implicit allocates all matrices before its first round. A GPU that does not answer ends
        # the fit at its next step, in `fit_on_gpu`.
        with contextlib.suppress(GpuError):
            use.peak_bytes = max(use.peak_bytes, free - gpu.memory()[0])
        how.callback(*done)

    use.estimated_bytes = max(use.estimated_bytes, estimate)
    items = fit_on_gpu(replace(how, callback=report), cells, start)
    if np.array_equal(items, start):
        # implicit does not check the launch of a kernel, only what follows it.
        raise GpuError(
            "device.not_trained",
            f"the GPU returned its start vectors of {start.shape[1]:,} factors unchanged; choose "
            "fewer factors, or set device to 'cpu'",
        )
    return items


def gpu_bytes(cells: sp.csr_matrix, factors: int) -> int:
    """Estimate the memory of the GPU that a fit takes: both factors, the cells twice, and 256 MB.

    Parameters
    ----------
    cells
        Users × items confidence.
    factors
        Length of a factor vector.
    """
    width, rows = factors + -factors % _WARP, int(cells.shape[0] + cells.shape[1])
    # implicit holds the cells by user and by item; positions and values have 4 bytes.
    matrices = 2 * 8 * int(cells.nnz) + 4 * (rows + 2)
    return matrices + 4 * width * rows + 2 * 4 * width**2 + _ALLOWANCE


def usable_gpu() -> Gpu:
    """Return the GPU, checked once per process.

    Raises
    ------
    GpuError
        `device.*`: no GPU can be used, for the cause that the id names.
    """
    gpu = _checked_gpu()
    if isinstance(gpu, GpuError):
        raise _bare(gpu)
    return gpu


def _bare(cause: GpuError) -> GpuError:
    """Return a cause without its traceback, which keeps the matrices of a fit in memory."""
    return GpuError(cause.id, cause.sentence)


@cache
def _checked_gpu() -> Gpu | GpuError:
    try:
        name, capability = find_gpu()
        check_kernels(capability)
        gpu = Gpu(name, capability, load_libraries())
        load_implicit()
        free, total = gpu.memory()
        if free < _ALLOWANCE:
            raise too_little(f"{megabytes(free)} of {megabytes(total)}")
        check_fits()
    except GpuError as cause:
        return _bare(cause)
    return gpu


def check_fits() -> None:
    """Fit a matrix of 20 × 20 on the GPU and on the CPU, and compare.

    Raises
    ------
    GpuError
        `device.canary_failed`: the results differ by more than 0.001, or the GPU changed nothing.
    """
    rng = np.random.default_rng(0)
    cells = sp.csr_matrix((rng.random((20, 20)) < 0.4) * rng.uniform(0.5, 3, (20, 20)), dtype="f4")
    how = LeastSquares(regularization=1.0, iterations=3, callback=lambda *_: None)
    for factors in _CANARY:
        start = rng.normal(0, 0.1, (20, factors)).astype(np.float32)
        on_gpu = fit_on_gpu(how, cells, start)
        apart = float(np.abs(on_gpu - fit_on_cpu(how, cells, start.copy())).max())
        moved = not np.array_equal(on_gpu, start)
        if not (moved and apart <= 1e-3):  # NaN is above every limit
            raise GpuError(
                "device.canary_failed",
                f"a small fit of {factors} factors on the GPU "
                + (f"differs from the CPU's by {apart:.3g}" if moved else "changed nothing")
                + "; set device to 'cpu', and report the GPU and its driver",
            )


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
    import_implicit()
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

    Raises
    ------
    GpuError
        `device.no_memory`: the GPU has no more. `device.lost`: it failed for any other reason.
    """
    import implicit.gpu
    from implicit.gpu.als import AlternatingLeastSquares

    padded = whole_warps(start)
    users = np.zeros((cells.shape[0], padded.shape[1]), np.float32)
    model = AlternatingLeastSquares(**how.settings(padded.shape[1]))
    try:
        model.item_factors, model.user_factors = map(implicit.gpu.Matrix, (padded, users))
        model.fit(cells, show_progress=False, callback=how.callback)
        items = np.asarray(model.item_factors.to_numpy(), np.float32)[:, : start.shape[1]].copy()
    except MemoryError as error:
        raise too_little(str(error)) from error
    except RuntimeError as error:
        # implicit's solver ends the process if it cannot be freed, as on a GPU that was lost.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(model._solver))
        raise (too_little if _FULL.search(str(error)) else lost)(str(error)) from error
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
