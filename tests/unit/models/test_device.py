from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from pipeline.errors import ConfigError
from pipeline.models import device, families
from pipeline.models.als import Als
from pipeline.models.device import (
    LeastSquares,
    choose_device,
    cuda_usable,
    describe_lost,
    fit_on_cpu,
    whole_warps,
)
from pipeline.models.topk import top_k
from tests.raising import raises
from tests.windows import random_history

RECIPE = Als(factors=32, regularization=0.5, iterations=15)
no_gpu = pytest.mark.skipif(not cuda_usable(), reason="no usable GPU")


@pytest.mark.parametrize(
    ("wanted", "usable", "chosen"),
    [
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_the_device_is_the_one_of_the_recipe(wanted, usable, chosen, monkeypatch):
    monkeypatch.setattr(device, "cuda_usable", lambda: usable)
    assert choose_device(wanted) == chosen


def test_a_missing_gpu_is_an_error_never_a_silent_fall_back(monkeypatch):
    monkeypatch.setattr(device, "cuda_usable", lambda: False)
    with raises("device.no_gpu"):
        choose_device("cuda")
    with raises("device.no_gpu"):
        RECIPE.model_copy(update={"device": "cuda"}).train(random_history())


@pytest.mark.parametrize("wanted", ["auto", "cpu", pytest.param("cuda", marks=no_gpu)])
def test_the_device_is_recorded_and_not_hashed(wanted):
    recipe = RECIPE.model_copy(update={"device": wanted, "iterations": 1})
    expected = "cuda" if wanted != "cpu" and cuda_usable() else "cpu"
    scorer = recipe.train(random_history())
    assert scorer.trained_on == expected
    assert families.load("als", scorer.arrays()).trained_on == expected
    assert recipe.hash == RECIPE.model_copy(update={"iterations": 1}).hash


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


@no_gpu
@pytest.mark.parametrize("factors", [32, 24])
def test_the_gpu_learns_the_same(factors):
    history = random_history(n_users=1000, n_items=400, events=40_000)
    recipe = RECIPE.model_copy(update={"factors": factors})
    scorers = [recipe.model_copy(update={"device": d}).train(history) for d in ("cuda", "cpu")]
    assert [scorer.trained_on for scorer in scorers] == ["cuda", "cpu"]
    on_gpu, on_cpu = (top_k(scorer.score(history), 10, exclude=history.seen) for scorer in scorers)
    shared = [len(set(on_gpu.of(row)) & set(on_cpu.of(row))) / 10 for row in range(history.n_users)]
    assert np.mean(shared) >= 0.9


@no_gpu
def test_the_gpu_takes_empty_windows_and_refuses_numbers_that_are_not_finite():
    history = random_history()
    recipe = RECIPE.model_copy(update={"device": "cuda"})
    nothing = replace(history, weight=np.zeros_like(history.weight))
    assert not recipe.train(nothing).item_factors.any()
    with pytest.raises(ConfigError, match="did not stay finite"):
        recipe.model_copy(update={"alpha": 1e30}).train(history)
