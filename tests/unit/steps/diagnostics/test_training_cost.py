"""The cost of a training is measured, reported, and excluded from checksums that must repeat."""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from structlog.testing import capture_logs

from pipeline import columns as c
from pipeline.base import plain
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.models import device
from pipeline.models.als import Als
from pipeline.models.blend import Blend
from pipeline.steps.diagnostics.training_cost import Meter, TrainingCosts, cost_line, costs, fit
from pipeline.stores.runs import Runs
from pipeline.workspace.artifacts import CostFile, train_step
from pipeline.workspace.memory import TrainConfig
from tests import gpu_stand_in
from tests.raising import raises

MB = 1 << 20
END = datetime(2026, 3, 1, tzinfo=UTC)
COST = CostFile(
    fit_seconds=1.5,
    fit_cpu_seconds=2.5,
    peak_mb=35.0,
    parameters=12_345,
    examples_per_second=52_000.0,
    estimated_mb=40.0,
    trained_on="cpu",
)


def measured(code: str) -> Any:
    """Run in a process of its own, whose size no other code changes; return its last line."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import numpy as np; from pipeline.steps.diagnostics.training_cost import Meter\n"
            + code,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path.cwd(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def small_window():
    rows = [(f"u{n % 30}", f"i{n % 17}", END - timedelta(hours=n + 1), 1.0) for n in range(400)]
    schema = {
        c.USER_ID: pl.String(),
        c.ITEM_ID: pl.String(),
        c.TIMESTAMP: c.INSTANT,
        WEIGHT: pl.Float32(),
    }
    return build_history(pl.DataFrame(rows, schema=schema, orient="row"), END)


def test_a_new_record_is_measured_within_a_third():
    peak = measured("""
with Meter() as meter:
    a = np.ones(25_000_000)   # 191 MB, given back before the block ends
    del a
print(meter.peak_bytes / 2**20)
""")
    assert 0.7 * 191 < peak < 1.3 * 191


def test_a_peak_below_the_record_of_the_process_is_measured_within_a_third():
    peak = measured("""
big = np.ones(100_000_000)    # 763 MB, long gone when training starts
del big
with Meter() as meter:
    a = np.ones(25_000_000)
    a = np.sqrt(a, out=a)
    del a
print(meter.peak_bytes / 2**20)
""")
    assert 0.7 * 191 < peak < 1.3 * 191


def test_what_no_look_caught_is_measured_by_the_kernel_or_by_the_last_look():
    record, kept = measured("""
import json
from pipeline.steps.diagnostics import training_cost as cost
cost._EVERY_SECONDS = 60
with Meter() as spike:
    a = np.ones(25_000_000)
    del a
with Meter() as rest:         # below the record, and still there when the block ends
    b = np.ones(12_500_000)
print(json.dumps([spike.peak_bytes / 2**20, rest.peak_bytes / 2**20]))
""")
    assert 0.7 * 191 < record < 1.3 * 191
    assert 0.7 * 95 < kept < 1.3 * 95


def test_earlier_memory_does_not_count():
    peak = measured("""
big = np.ones(100_000_000)
with Meter() as meter:
    a = big[:10].copy()
print(meter.peak_bytes / 2**20)
""")
    assert peak < 20


def test_seconds_by_the_wall_and_by_the_processor():
    with Meter() as idle:
        time.sleep(0.2)
    with Meter() as busy:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
    scorer, history = Als(factors=2, iterations=1).train(small_window()), small_window()
    slept, worked = idle.cost(scorer, history, 0), busy.cost(scorer, history, 0)
    assert slept.fit_seconds >= 0.2
    assert slept.fit_cpu_seconds < 0.15
    assert worked.fit_cpu_seconds >= 0.2


def test_the_meter_ends_with_its_block_whatever_happens():
    with pytest.raises(KeyError), Meter() as meter:
        raise KeyError("x")
    assert not meter._watch.is_alive()


def test_fit_reports_its_cost():
    history = small_window()
    scorer, cost = fit("als", Als(factors=2, iterations=3), history, TrainConfig(), lambda _: None)
    assert cost.parameters == scorer.parameters > 2 * (30 + 17)
    assert cost.examples_per_second == pytest.approx(400 / cost.fit_seconds)
    assert cost.estimated_mb == Als(factors=2).peak_bytes(history) / MB
    assert cost.trained_on == "cpu"
    assert set(cost.metrics("refit.")) == {
        "refit.fit_seconds",
        "refit.fit_cpu_seconds",
        "refit.peak_mb",
        "refit.parameters",
        "refit.examples_per_second",
    }
    with raises("memory.recipe_too_large"):
        fit("wide", Als(factors=1024), history, TrainConfig(memory_gb=1e-4), lambda _: None)


@pytest.mark.parametrize(("version", "trained_on"), [(13000, "cuda"), (12080, "cpu")])
def test_the_cost_has_the_memory_of_the_gpu_or_the_cause_and_a_warning(
    version, trained_on, monkeypatch, tmp_path
):
    gpu = gpu_stand_in.install(monkeypatch, tmp_path)
    gpu.version = version
    # The recipe is a part of another one: the cause is not lost on the way.
    blend = Blend(parts={"als": Als(factors=2, iterations=1)})
    with capture_logs() as lines:
        _, cost = fit("mix", blend, small_window(), TrainConfig(), lambda _: None)
    device._checked_gpu.cache_clear()
    assert cost.trained_on == trained_on
    warnings = [line for line in lines if line["log_level"] == "warning"]
    if trained_on == "cuda":
        assert (cost.gpu_cause, warnings) == (None, [])
        assert cost.gpu_peak_mb == 0 < cost.gpu_estimated_mb
        assert cost.metrics()["gpu_peak_mb"] == 0
    else:
        (warning,) = warnings
        assert (warning["event"], warning["recipe"]) == ("gpu_not_used", "mix")
        assert warning["error_id"] == "device.driver_too_old"
        assert cost.gpu_cause == f"device.driver_too_old: {warning['error']}"
        assert "gpu_peak_mb" not in cost.metrics()


def test_a_cost_is_read_back_and_no_sum_that_must_repeat_covers_it(tmp_path):
    refs, step = [], train_step("als")
    for name, cost in (("one", COST), ("two", COST.model_copy(update={"fit_seconds": 9.0}))):
        run = Runs(tmp_path / name).open("20260301T000000Z-0badcafe")
        assert costs(run, ["als"], "als") == {}
        with run.draft(step) as draft:
            draft.arrays("scorer", {"x": np.arange(3.0)})
            draft.write(cost)
            draft.rows = 3
        assert run.read(CostFile, step) == cost
        assert costs(run, ["als", "mad"], "als") == {"als": TrainingCosts(cost)}
        refs.append(run.ref(step))
    assert refs[0] == refs[1]


def test_the_refit_is_below_its_recipe_in_json():
    alone, refitted = TrainingCosts(COST), TrainingCosts(COST, COST)
    figures = COST.plain()
    assert figures["parameters"] == 12_345
    assert plain(alone) == figures
    assert plain(refitted) == {**figures, "refit": figures}


def test_a_person_reads_it_in_one_line():
    als, quick = TrainingCosts(COST), COST.model_copy(update={"fit_seconds": 0.25})
    each = "35 MB, 12,345 parameters, 52,000 events a second"
    assert cost_line({"quick": TrainingCosts(quick), "als": als}) == (
        f"2 recipes in 1.8 s, als longest: 1.5 s, {each}"
    )
    assert cost_line({"quick": TrainingCosts(quick, COST)}) == (
        f"1 recipe in 0.2 s, quick longest: 0.2 s, {each}; refit: 1.5 s, {each}"
    )
