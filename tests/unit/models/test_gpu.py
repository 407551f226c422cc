"""Training on a GPU; `make test-gpu` runs these tests, which a machine without a GPU skips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.models.als import Als
from pipeline.models.device import gpu_bytes, usable_gpu, watch_gpu
from pipeline.models.gpu_driver import GpuError, find_gpu
from pipeline.models.topk import top_k
from tests.windows import random_history

pytestmark = pytest.mark.gpu
RECIPE = Als(factors=32, regularization=0.5, iterations=15, device="cuda")


@pytest.fixture(autouse=True)
def _gpu() -> None:
    """Skip where no GPU is; one that cannot be used fails the tests with its cause."""
    try:
        find_gpu()
    except GpuError as cause:
        if cause.id == "device.no_card":
            pytest.skip(cause.sentence)
    usable_gpu()


@pytest.mark.parametrize("factors", [32, 24, 128, 256, 1023])
def test_the_gpu_learns_the_same(factors: int) -> None:
    history = random_history(n_users=1000, n_items=400, events=40_000)
    recipe = RECIPE.model_copy(update={"factors": factors})
    with watch_gpu() as use:
        on_gpu = recipe.train(history)
    on_cpu = recipe.model_copy(update={"device": "cpu"}).train(history)
    assert [on_gpu.trained_on, on_cpu.trained_on] == ["cuda", "cpu"]
    lists = [top_k(s.score(history), 10, exclude=history.seen) for s in (on_gpu, on_cpu)]
    shared = [len(set(lists[0].of(u)) & set(lists[1].of(u))) / 10 for u in range(history.n_users)]
    assert np.mean(shared) >= 0.9
    assert use.cause is None
    assert use.peak_bytes <= use.estimated_bytes == gpu_bytes(history.confidence(90.0), factors)


def test_the_gpu_takes_empty_windows_and_refuses_numbers_that_are_not_finite() -> None:
    history = random_history()
    nothing = replace(history, weight=np.zeros_like(history.weight))
    assert not RECIPE.train(nothing).item_factors.any()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="did not stay finite"):
        RECIPE.model_copy(update={"alpha": 1e30}).train(history)
