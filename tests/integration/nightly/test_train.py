"""The training of a night: its cost, and recipes that need more memory than there is."""

import html

import pytest

from pipeline.base import plain
from pipeline.models import device
from pipeline.steps import demo
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.workspace import Workspace
from tests import gpu_stand_in
from tests.integration.nightly.contents import mlflow_client
from tests.raising import raises
from tests.worlds import NIGHTS

COST = ("fit_seconds", "fit_cpu_seconds", "peak_mb", "parameters", "examples_per_second")


def mlflow_children(ws, run_id):
    client = mlflow_client(ws)
    experiment = client.get_experiment_by_name("nightjar").experiment_id
    runs = client.search_runs([experiment], f"tags.`nightjar.run_id` = '{run_id}'")
    return {run.data.tags["nightjar.recipe"]: run for run in runs}


def test_training_cost_is_in_json_mlflow_and_on_the_page(shop):
    home, first, _ = shop
    ws = Workspace.open(home)
    shown = plain(first)["cost"]
    assert set(shown) == {
        "popularity",
        "decayed_popularity",
        "als",
        "mad",
    }  # lists may not repeat items
    assert [name for name in shown if "refit" in shown[name]] == ["als"]
    run, als = ws.run(first.run_id), shown["als"]
    window = len(run.arrays("features", "train")["item"])
    assert als["examples_per_second"] == pytest.approx(window / als["fit_seconds"])
    assert als["parameters"] > 8 * (300 + 150) > shown["mad"]["parameters"]
    assert als["trained_on"] == als["refit"]["trained_on"] == "cpu"
    runs = mlflow_children(ws, first.run_id)
    for name, cost in shown.items():
        logged = runs[name].data.metrics
        assert {key: logged[f"cost/{key}"] for key in COST} == {key: cost[key] for key in COST}
        assert runs[name].data.params["trained_on"] == cost["trained_on"]
    refit = {key: runs["als"].data.metrics[f"cost/refit_{key}"] for key in COST}
    assert refit == {key: als["refit"][key] for key in COST}
    page = (run.folder / "page.html").read_text()
    assert "Training cost" in page and f"{als['parameters']:,}" in page
    assert "cost: 4 recipes in " in first.text() and "; refit: " in first.text()


def test_a_gpu_that_is_not_used_is_named_in_the_summary_on_the_page_and_in_mlflow(
    third, monkeypatch, tmp_path
):
    gpu_stand_in.install(monkeypatch, tmp_path).version = 12080
    ws = Workspace.open(third.home)
    done = nightly(ws, NIGHTS[2])
    device._checked_gpu.cache_clear()
    cause = done.cost["als"].fit.gpu_cause
    assert cause.startswith("device.driver_too_old: ")
    assert cause in html.unescape((ws.run(done.run_id).folder / "page.html").read_text())
    runs = mlflow_children(ws, done.run_id)
    assert runs["als"].data.params["trained_on"] == "cpu"
    assert {
        name: run.data.tags["nightjar.gpu_not_used"]
        for name, run in runs.items()
        if "nightjar.gpu_not_used" in run.data.tags
    } == {"als": cause, "mad": cause}
    monkeypatch.setattr(demo, "NIGHTS", NIGHTS[2:3])
    assert [night.gpu_causes for night in demo.summary(ws).nights] == [(cause,)]


def test_a_champion_that_memory_cannot_hold_stops_the_night(third, monkeypatch):
    monkeypatch.setenv("NIGHTJAR__TRAIN__MEMORY_GB", "0.0001")
    ws = Workspace.open(third.home)
    with raises("memory.recipe_too_large"):
        nightly(ws, NIGHTS[2])
