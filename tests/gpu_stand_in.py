"""A stand-in for an NVIDIA GPU, its driver, CUDA's libraries, RMM and implicit's compiled part.

implicit's own Python code runs on it; the steps of its kernel (`least_squares_cg_kernel` in
`als.cu`) are written down in numpy.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import implicit.gpu
import numpy as np
import pytest

from pipeline.models import device, gpu_driver

CUDA = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")
MB = 1 << 20


def buffer(values: Any, kind: str) -> Any:
    """Take an array as implicit's compiled part does: of one type, in C's order, writable."""
    assert (values.dtype, values.flags.c_contiguous, values.flags.writeable) == (kind, True, True)
    return values


class Matrix:
    def __init__(self, values: Any) -> None:
        self.values = buffer(values, "f4").copy()
        self.shape = self.values.shape

    @classmethod
    def zeros(cls, rows: int, columns: int) -> Matrix:
        return cls(np.zeros((rows, columns), np.float32))

    def __getitem__(self, rows: Any) -> Matrix:
        return Matrix(self.values[rows])

    def astype(self, _: Any) -> Matrix:
        return self

    def to_numpy(self) -> Any:
        return self.values


def csr(cells: Any) -> Any:
    """Take the three arrays of a matrix."""
    assert [buffer(array, "i4").ndim for array in (cells.indptr, cells.indices)] == [1, 1]
    return cells


def coo(cells: Any) -> Any:
    """Take the places of a matrix."""
    assert [buffer(array, "i4").ndim for array in (cells.row, cells.col)] == [1, 1]
    return cells


class Solver:
    """implicit's solver; the real one ends the process if a lost GPU cannot free it."""

    def __init__(self, gpu: GpuStandIn) -> None:
        self.calculate_yty, self.least_squares = gpu.calculate_yty, gpu.least_squares
        self.gpu = gpu

    def __del__(self) -> None:
        self.gpu.freed += 1


class KnnQuery:
    def topk(
        self, items: Matrix, queries: Matrix, k: int, *, query_filter: Any, item_filter: None
    ) -> tuple[Any, Any]:
        scores = queries.values @ items.values.T
        if query_filter is not None:
            scores[query_filter.row, query_filter.col] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :k]
        return best, np.take_along_axis(scores, best, axis=1)


class GpuStandIn:
    """A machine with a GPU; its attributes are what can be wrong with it."""

    def __init__(self, tmp_path: Path) -> None:
        self.name, self.capability, self.version = b"NVIDIA Stand-in", (9, 0), 13010
        self.code, self.count = 0, 1
        self.free, self.total = 70_000 * MB, 80_000 * MB
        self.memory_code = 0
        self.missing: set[str] = set()
        self.opened: list[tuple[str, int]] = []
        self.launches, self.fails_at = 0, -1
        self.error: Exception = RuntimeError("Cuda Error: unspecified launch failure")
        self.freed = 0
        self.launched = True
        self.noise = 0.0
        self.dev, self.pci = tmp_path / "dev", tmp_path / "pci"
        self.dev.mkdir()
        (self.pci / "0000:01:00.0").mkdir(parents=True)
        (self.pci / "0000:01:00.0/vendor").write_text("0x10de\n")
        (self.pci / "0000:01:00.0/class").write_text("0x030200\n")

    # --- the loader, the driver and the runtime

    def open(self, path: str, mode: int = ctypes.DEFAULT_MODE) -> Any:
        name = Path(path).name
        if name not in (*CUDA, "libcuda.so.1"):
            return LOADED(path, mode=mode)
        self.opened.append((path, mode))
        if name in self.missing:
            raise OSError(f"{name}: cannot open shared object file")
        return self

    def cuInit(self, _: int) -> int:
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGet(self, number: Any, _: int) -> int:
        number._obj.value = 0
        return 0

    def cuDeviceGetName(self, name: Any, _: int, __: Any) -> int:
        name.value = self.name
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: Any) -> int:
        value._obj.value = self.capability[attribute - 75]
        return 0

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:
        if not self.memory_code:
            free._obj.value, total._obj.value = self.free, self.total
        return self.memory_code

    # --- implicit's compiled part

    def calculate_yty(self, y: Matrix, yty: Matrix, regularization: float) -> None:
        yty.values[:] = y.values.T @ y.values + regularization * np.eye(y.shape[1])

    def least_squares(self, cells: Any, x: Matrix, yty: Matrix, y: Matrix, cg_steps: int) -> None:
        self.launches += 1
        if self.launches == self.fails_at:
            raise type(self.error)(*self.error.args)
        if not self.launched:
            return
        for row in range(x.shape[0]):
            own = slice(cells.indptr[row], cells.indptr[row + 1])
            x.values[row] = _solve(
                x.values[row], yty.values, y.values[cells.indices[own]], cells.data[own], cg_steps
            )
        x.values += np.float32(self.noise)


def _solve(x: Any, yty: Any, items: Any, confidence: Any, cg_steps: int) -> Any:
    """Take conjugate gradient steps as `least_squares_cg_kernel` does."""
    if not len(confidence):
        return np.zeros_like(x)

    def times(vector: Any) -> Any:
        return yty @ vector + items.T @ ((confidence - 1) * (items @ vector))

    r = items.T @ confidence - times(x)
    p, before = r, r @ r
    if before < 1e-20:
        return x
    for _ in range(cg_steps):
        moved = times(p)
        step = before / (p @ moved)
        x, r = x + step * p, r - step * moved
        now = r @ r
        if now < 1e-20:
            break
        p, before = r + now / before * p, now
    return x


LOADED = ctypes.CDLL


def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GpuStandIn:
    """Put a stand-in into the place of the machine's GPU."""
    gpu = GpuStandIn(tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", gpu.open)
    monkeypatch.setattr(gpu_driver, "_DEV", gpu.dev)
    monkeypatch.setattr(gpu_driver, "_PCI", gpu.pci)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "rmm", SimpleNamespace(__version__="26.04.00"))
    names = {"HAS_CUDA": True, "HAS_RMM": True, "Matrix": Matrix, "CSRMatrix": csr}
    names |= {"KnnQuery": KnnQuery, "COOMatrix": coo}
    names["RandomState"] = lambda _: None  # drawn from only where there are no start vectors
    names["LeastSquaresSolver"] = lambda: Solver(gpu)
    for name, value in names.items():
        monkeypatch.setattr(implicit.gpu, name, value, raising=False)
    device._checked_gpu.cache_clear()
    return gpu
