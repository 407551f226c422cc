"""Estimates of a nightly run before it starts."""

import pytest

from dags.factory import HEAVY_TASK_ARGS
from pipeline.base import silent
from pipeline.models.families import default_recipes
from pipeline.steps.diagnostics import night_estimate
from pipeline.steps.diagnostics.night_estimate import (
    HEAVY_TASK_SECONDS,
    TaskEstimate,
    estimate_night,
    refuse_night,
)
from pipeline.workspace.memory import TrainConfig
from tests.raising import raises

GB = 1 << 30
SHOP = {"first": True, "events": 1_000_000, "users": 20_000, "items": 5_000}


def estimates(config=TrainConfig(), **counts):
    tasks = estimate_night(default_recipes(), config, **{**SHOP, **counts})
    return {task.task: task for task in tasks}


def test_each_task_that_grows_has_an_estimate_which_grows_with_the_events():
    small, large = estimates(), estimates(events=3_000_000)
    assert list(small) == [
        "validate",
        "features",
        *(f"train/{name}" for name in default_recipes()),
        "evaluate",
        "refit",
        "recommend",
    ]
    for name in ("validate", "features", "train/als", "train/blend", "refit"):
        assert small[name].cpu_seconds < large[name].cpu_seconds < 3.5 * small[name].cpu_seconds
    for name in small:
        assert small[name].bytes < large[name].bytes < 3.5 * small[name].bytes
    assert estimates() == small


def test_a_selection_takes_at_most_its_budget():
    assert default_recipes()["blend"].has_free_params
    fit = estimates()["refit"].cpu_seconds  # that of the blend, the largest
    unlimited = estimates(TrainConfig(search_budget=1e6))["train/blend"].cpu_seconds
    assert unlimited == pytest.approx(12 * fit)
    assert estimates(TrainConfig(search_budget=1.0))["train/blend"].cpu_seconds == fit + 60
    budget = TrainConfig(search_budget=1.0)
    assert estimates(budget)["train/als"] == estimates()["train/als"]


def test_lists_grow_with_users_and_items():
    assert (
        estimates(items=50_000)["recommend"].cpu_seconds > 5 * estimates()["recommend"].cpu_seconds
    )


def test_a_task_that_does_not_fit_into_memory_is_refused_with_all_estimates(monkeypatch):
    monkeypatch.setattr(night_estimate, "free_memory", lambda: GB)
    tasks = [TaskEstimate("validate", 60.0, GB), TaskEstimate("features", 90.0, 2 * GB)]
    with raises("memory.night_too_large") as error:
        refuse_night(tasks, TrainConfig(), silent)
    assert "features needs about 2.0 GB" in error.value.sentence
    assert "validate about 1.0 CPU minutes and 1.0 GB" in error.value.sentence


def test_a_training_that_is_too_large_is_named_and_does_not_stop_the_run():
    lines: list[str] = []
    tasks = [TaskEstimate("train/blend", 1.0, 3 * GB, trains=True)]
    refuse_night(tasks, TrainConfig(memory_gb=2), lines.append)
    assert len(lines) == 2
    assert "train/blend needs about 3.0 GB" in lines[1]


def test_a_task_that_airflow_would_end_is_named():
    lines: list[str] = []
    assert HEAVY_TASK_ARGS["execution_timeout"].total_seconds() == HEAVY_TASK_SECONDS
    refuse_night([TaskEstimate("evaluate", 3 * 3600.0, 1)], TrainConfig(), lines.append)
    assert "evaluate takes about 3.0 CPU hours" in lines[1]
