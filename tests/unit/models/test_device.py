from __future__ import annotations

import gc

import numpy as np
import pytest
import scipy.sparse as sp

from pipeline.models import device, families
from pipeline.models.als import Als
from pipeline.models.device import (
    GpuUse,
    LeastSquares,
    describe_lost,
    fit_on_cpu,
    gpu_bytes,
    watch_gpu,
    whole_warps,
)
from tests import gpu_stand_in
from tests.gpu_stand_in import MB, GpuStandIn
from tests.raising import raises
from tests.windows import random_history

RECIPE = Als(factors=32, regularization=0.5, iterations=15)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    yield gpu_stand_in.install(monkeypatch, tmp_path)
    device._checked_gpu.cache_clear()


@pytest.mark.parametrize(
    ("wanted", "launched", "trained_on"),
    [
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_the_device_is_recorded_and_not_hashed(wanted, launched, trained_on, gpu):
    gpu.launched = launched
    recipe = RECIPE.model_copy(update={"device": wanted, "iterations": 1})
    scorer = recipe.train(random_history())
    assert scorer.trained_on == trained_on
    assert families.load("als", scorer.arrays()).trained_on == trained_on
    assert recipe.hash == RECIPE.model_copy(update={"iterations": 1}).hash


def test_a_gpu_that_cannot_be_used_is_an_error_never_a_silent_fall_back(gpu):
    gpu.version = 12080
    with raises("device.driver_too_old"):
        RECIPE.model_copy(update={"device": "cuda"}).train(random_history())
    with watch_gpu() as use:
        RECIPE.model_copy(update={"device": "auto", "iterations": 1}).train(random_history())
    assert use.cause.id == "device.driver_too_old"


def test_a_machine_without_a_gpu_has_nothing_to_report(gpu):
    gpu.missing = {"libcuda.so.1"}
    (gpu.pci / "0000:01:00.0/vendor").unlink()
    with watch_gpu() as use:
        RECIPE.model_copy(update={"device": "auto", "iterations": 1}).train(random_history())
    assert use == GpuUse()
    with raises("device.no_card"):
        RECIPE.model_copy(update={"device": "cuda"}).train(random_history())


@pytest.mark.parametrize("factors", [32, 24, 1])
def test_a_gpu_takes_the_steps_of_the_cpu(factors, gpu):
    history = random_history()
    recipe = RECIPE.model_copy(update={"factors": factors, "iterations": 5})
    on_gpu, on_cpu = (
        recipe.model_copy(update={"device": wanted}).train(history) for wanted in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu.item_factors, on_cpu.item_factors, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("Cuda Error: unspecified launch failure"), "device.lost"),
        (RuntimeError("cublas error: CUBLAS_STATUS_ALLOC_FAILED"), "device.no_memory"),
        (RuntimeError("Cuda Error: out of memory"), "device.no_memory"),
        (MemoryError("rmm"), "device.no_memory"),
    ],
)
def test_a_gpu_that_disappears_in_the_middle_of_a_fit(error, cause, gpu):
    history, recipe = random_history(), RECIPE.model_copy(update={"iterations": 3})
    expected = recipe.model_copy(update={"device": "cpu"}).train(history).item_factors
    device.usable_gpu()
    gpu.error, gpu.fails_at = error, gpu.launches + 3  # in the second round
    with raises(cause):
        recipe.model_copy(update={"device": "cuda"}).train(history)
    gpu.fails_at = gpu.launches + 3
    with watch_gpu() as use:
        scorer = recipe.model_copy(update={"device": "auto"}).train(history)
    assert (scorer.trained_on, use.cause.id) == ("cpu", cause)
    assert np.array_equal(scorer.item_factors, expected)


@pytest.mark.parametrize("error", [RuntimeError("Cuda Error"), MemoryError("rmm")])
def test_only_the_solver_of_a_lost_gpu_is_never_freed(error, gpu):
    device.usable_gpu()
    gc.collect()
    gpu.freed, gpu.error, gpu.fails_at = 0, error, gpu.launches + 1
    with watch_gpu() as use:
        RECIPE.model_copy(update={"device": "auto", "iterations": 1}).train(random_history())
    gc.collect()
    assert use.cause is not None
    assert gpu.freed == isinstance(error, MemoryError)


def test_a_gpu_that_does_not_answer_between_two_rounds_is_lost_at_the_next(gpu, monkeypatch):
    device.usable_gpu()
    gpu.fails_at = gpu.launches + 3  # in the second round

    def solve(*arguments):
        gpu.memory_code = 999
        GpuStandIn.least_squares(gpu, *arguments)

    monkeypatch.setattr(gpu, "least_squares", solve)
    with raises("device.lost") as raised:
        RECIPE.model_copy(update={"device": "cuda"}).train(random_history())
    assert "launch failure" in raised.value.sentence


def test_a_gpu_that_starts_no_kernel_for_so_many_factors(gpu):
    device.usable_gpu()
    gpu.launched = False
    recipe = RECIPE.model_copy(update={"factors": 1023, "iterations": 1})
    with raises("device.not_trained"):
        recipe.model_copy(update={"device": "cuda"}).train(random_history(n_users=20, events=200))


def test_the_memory_of_the_gpu_is_estimated_and_its_peak_recorded(gpu, monkeypatch):
    cells = random_history().confidence(90.0)
    users, items = cells.shape
    start = np.ones((items, 40), np.float32)
    how = LeastSquares(regularization=0.5, iterations=2, callback=lambda *_: None)
    estimate = gpu_bytes(cells, 40)
    own = 4 * 64 * (users + items) + 16 * cells.nnz + 4 * (users + items + 2) + 8 * 64**2
    assert estimate == own + 256 * MB
    device.usable_gpu()
    free = gpu.free

    def solve(*arguments):
        gpu.free = free - 300 * MB
        GpuStandIn.least_squares(gpu, *arguments)

    monkeypatch.setattr(gpu, "least_squares", solve)
    with watch_gpu() as use:
        device.fit("cuda", how, cells, start)
    assert (use.peak_bytes, use.estimated_bytes) == (300 * MB, estimate)
    gpu.free = estimate - 1
    with raises("device.no_memory"):
        device.fit("cuda", how, cells, start)
    gpu.free = estimate
    assert device.fit("cuda", how, cells, start)[1] == "cuda"


@pytest.mark.parametrize(("factors", "padded"), [(1, 32), (24, 32), (32, 32), (33, 64)])
def test_whole_warps(factors, padded):
    start = np.ones((5, factors), np.float32)
    wide = whole_warps(start)
    assert (wide.shape, wide.dtype) == ((5, padded), np.float32)
    assert np.array_equal(wide[:, :factors], start)
    assert not wide[:, factors:].any()
    wide += 1  # what is handed over is a copy of its own, or nothing was added
    assert (start == 1).all() or factors == padded


def test_columns_of_zeros_stay_zero_and_change_nothing():
    # The same steps as on the GPU, so what holds here holds there.
    cells = random_history().confidence(90.0)
    start = np.random.default_rng(0).normal(0, 0.01, (cells.shape[1], 24)).astype(np.float32)
    how = LeastSquares(regularization=0.5, iterations=10, callback=lambda *_: None)
    wide = fit_on_cpu(how, cells, whole_warps(start))
    assert not wide[:, 24:].any()
    np.testing.assert_allclose(wide[:, :24], fit_on_cpu(how, cells, start), rtol=0, atol=1e-3)


def test_a_row_that_the_gpu_lost_becomes_nan():
    cells = sp.csr_matrix(np.array([[1, 1, 0, 0], [0, 1, 1, 0]], np.float32))
    items = np.array([[1, 2], [0, 0], [0, 3], [0, 0]], np.float32)  # no user has the last
    marked = describe_lost(items.copy(), cells)
    assert np.isnan(marked[1]).all()
    assert np.array_equal(marked[[0, 2, 3]], items[[0, 2, 3]])
