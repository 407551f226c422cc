from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import gpu as benchmark
from pipeline.models import device
from tests import gpu_stand_in
from tests.gpu_stand_in import GpuStandIn

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--size", "120", "100", "1500", "--factors", "8", "--sample", "50", "--json"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GpuStandIn]:
    yield gpu_stand_in.install(monkeypatch, tmp_path)
    device._checked_gpu.cache_clear()


def test_both_devices_are_measured_and_their_lists_agree(
    gpu: GpuStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(SMALL) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["matrix"], row["factors"]) == ("drawn", 8)
    assert row["overlap"] >= 0.99 and row["search"] >= 0.99
    assert all(seconds > 0 for what in ("iteration", "solve", "lists") for seconds in row[what])


def test_a_gpu_whose_lists_differ_ends_the_benchmark_with_an_error(
    gpu: GpuStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    device.usable_gpu()
    gpu.noise = 1.0
    assert benchmark.main(SMALL) == 1
    assert json.loads(capsys.readouterr().out)[0]["overlap"] < 0.99


def test_without_a_gpu_the_cause_is_printed(
    gpu: GpuStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.version = 12080
    assert benchmark.main(SMALL) == 2
    assert capsys.readouterr().err.startswith("device.driver_too_old: ")


def test_no_row_begins_after_the_time(gpu: GpuStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*SMALL, "--minutes", "0"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_matrix_is_written_and_read_back(
    gpu: GpuStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.npz"
    assert benchmark.main([*SMALL, "--write", str(file)]) == 0
    matrix = sp.load_npz(file)
    assert (matrix.shape, matrix.sum()) == ((120, 100), 1500)
    assert benchmark.main([*SMALL, str(file)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["matrix"] == "small"


def test_the_plain_lists_are_the_best_items_that_the_user_did_not_have() -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 4)).astype(np.float32) for n in (30, 40))
    seen = sp.random(30, 40, 0.2, "csr", dtype=np.float32, random_state=0)
    scores = users @ items.T
    scores[seen.nonzero()] = -np.inf
    expected = np.argsort(-scores, axis=1)[:, : benchmark.K]
    assert np.array_equal(benchmark.plain_lists(users, items, seen), expected)
    assert benchmark.overlap(expected, expected[:, ::-1]) == 1


def test_a_bare_machine_can_import_it() -> None:
    code = (
        "import sys\n"
        "for name in ('polars', 'pydantic', 'numba', 'structlog', 'mlflow', 'airflow', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu\n"
        "print(*sorted(n for n in sys.modules if n.startswith('pipeline')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    taken_along = {"pipeline", "pipeline.errors", "pipeline.models"}
    taken_along |= {"pipeline.models.device", "pipeline.models.gpu_driver"}
    assert set(done.stdout.split()) == taken_along
