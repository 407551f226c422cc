"""Figures of a version in MLflow: lifts on equal users, their reasons, and the page."""

import re
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import compact_instant, format_instant, silent
from pipeline.evaluation.lift import chained
from pipeline.report.headline import headline, night_facts
from pipeline.steps.nightly import version_figures
from pipeline.steps.nightly.before_page import BEFORE_PAGE, version_before_page
from pipeline.steps.nightly.night_record import night_record
from pipeline.steps.nightly.registered_check import check_registered
from pipeline.steps.nightly.version_figures import (
    figures_of,
    shown_figures,
    write_replaced,
)
from pipeline.steps.reporting.comparison_rows import lift_rows
from pipeline.stores.registry.client import PAGES
from pipeline.workspace import lifts
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.lifts import pair_with_version_before
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import DecisionFile, MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import mlflow_client
from tests.raising import raises

LEVELS = ["4 ndcg_at_20", "5 users", "6 days", "7 minutes"]


def lifts_of(*names):
    return [f"{name}{end}" for name in names for end in ("", " high", " low")]


BASELINE = lifts_of("3 lift over baseline pct")
ALL = [*lifts_of("1 lift over version 1 pct", "2 lift over version before pct"), *BASELINE, *LEVELS]


@pytest.fixture(scope="module")
def nights(two_nights):
    home, first, second = two_nights
    ws = Workspace.open(home)
    return ws, open_night(ws, first.run_id), open_night(ws, second.run_id)


def runs_of(ws, night, version):
    """Return MLflow's run of the night, and the one that owns the version."""
    client = mlflow_client(ws)
    owner = client.get_model_version("nightjar", str(version)).run_id
    return client.get_run(night.run.read(MlflowFile).run), client.get_run(owner)


def test_both_runs_of_a_version_show_its_lifts_first(nights):
    ws, first, second = nights
    for night, version, names in ((first, 1, [*BASELINE, *LEVELS]), (second, 2, ALL)):
        shown = shown_figures(night, figures_of(night)).metrics
        assert sorted(shown) == names
        for run in runs_of(ws, night, version):
            outside = sorted(name for name in run.data.metrics if "/" not in name)
            assert outside == sorted(run.data.metrics)[: len(names)] == names
            assert {name: run.data.metrics[name] for name in names} == pytest.approx(shown)
            folders = {name.partition("/")[0] for name in run.data.metrics if "/" in name}
            assert folders <= {"attribution", "churn", "cost", "drift", "slice"}


def test_lifts_are_those_of_the_gate(nights):
    _, _, night = nights
    file, decision = figures_of(night), night.run.read(DecisionFile).root
    [last] = [rule for rule in decision.rules if rule.name == "refresh.last"]
    assert file.over_before.lift == pytest.approx(last.figure)
    [row] = [r for r in lift_rows(night, file.over_baseline.against) if r.name == "als"]
    assert file.over_baseline.interval == pytest.approx((row.lift, row.lo, row.hi))
    assert file.links == (file.over_before,)
    assert chained(file.links)[0] == pytest.approx(file.over_before.lift)
    split = night.run.read(SplitFile)
    shown = shown_figures(night, file).metrics
    assert shown["6 days"] == split.holdout_days
    assert shown["5 users"] == night.run.manifest("evaluate")["rows"]


@pytest.mark.parametrize("name", ["als", "mad", "personal_frequency"])
def test_the_page_has_the_lifts_of_mlflow(nights, name, monkeypatch):
    _, _, night = nights
    decision = replace(night.run.read(DecisionFile).root, recipe=name)
    for module in ("pipeline.report.headline", "pipeline.steps.nightly.version_figures"):
        monkeypatch.setattr(f"{module}.decision_of", lambda _: decision)
    facts, file = night_facts(night.run), version_figures._measure(night)
    shown, lift = facts.over_baseline, file.over_baseline
    assert (shown is None) == (lift is None)
    assert shown is None or (shown.lift, shown.lo, shown.hi) == lift.interval
    assert shown is None or shown.users == lift.users
    if name == night.champion_name:
        before = facts.over_before
        assert (before.lift, before.lo, before.hi) == file.over_before.interval
        assert facts.over_baseline.over == f"the best baseline {file.over_baseline.against}"


def test_a_lift_that_does_not_exist_has_a_reason(nights):
    ws, first, _ = nights
    for run in runs_of(ws, first, 1):
        reasons = {n: t for n, t in run.data.tags.items() if n.startswith("nightjar.no_")}
        assert reasons == dict.fromkeys(
            ("nightjar.no_lift_over_version_before", "nightjar.no_lift_over_version_1"),
            "there is no version before this one",
        )


def test_the_description_of_the_first_version_begins_with_that_and_names_the_baseline(nights):
    ws, first, _ = nights
    description = mlflow_client(ws).get_model_version("nightjar", "1").description
    baseline = figures_of(first).over_baseline.against
    assert re.match(
        rf"First version; [+−][\d.]+ % \([^)]+\) over the best baseline {baseline}: [a-z ]+\.",
        description,
    )


def test_a_scorer_that_was_skipped_leaves_its_lift_out(nights, monkeypatch):
    _, _, night = nights
    monkeypatch.setattr(lifts, "pair_with_version_before", lambda *_: "it was skipped")
    file = version_figures._measure(night)
    assert (file.over_before, file.links) == (None, ())
    assert set(file.absent.values()) == {"it was skipped"} and len(file.absent) == 2
    assert sorted(shown_figures(night, file).metrics) == [*BASELINE, *LEVELS]


def test_compare_shows_what_a_version_was_measured_on(nights):
    ws, _, night = nights
    parent, run = runs_of(ws, night, 2)
    holdout = night.run.read(SplitFile).holdout
    wanted = {
        "as_of": format_instant(night.as_of),
        "holdout": f"{holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}",
        "list_length": "20",
        "task": "discovery",
        "trained_on": "cpu",
        "deterministic": "true",
    }
    assert wanted.items() <= run.data.params.items()
    inputs = {i.dataset.name: i.tags[0].value for i in run.inputs.dataset_inputs}
    assert inputs["holdout"] == "evaluation"
    # Two runs of one day have other holdouts, so the as-of is a part of their digests.
    digests = {i.dataset.digest for i in run.inputs.dataset_inputs}
    assert all(digest.endswith(compact_instant(night.as_of)) for digest in digests)
    assert run.data.tags["mlflow.source.git.commit"] == night.snapshot.commit
    began, ended = night.span
    for one in (parent, run):
        assert one.info.start_time == round(began.timestamp() * 1000)
        assert one.info.end_time == round(ended.timestamp() * 1000)
        # Cut after 26 characters in the table of runs.
        assert re.match(r"[0-9-]{10} refresh [+−]\d+\.\d %( \(als\))?$", one.info.run_name)
    client = mlflow_client(ws)
    version = client.get_model_version("nightjar", "2")
    assert version.description.startswith(shown_figures(night, figures_of(night)).sentence)
    assert re.match(
        r"[+−][\d.]+ % \([+−]?[\d.]+ to [+−]?[\d.]+\) over version 1: [a-z ]+; [+−]",
        version.description,
    )
    assert len(version.tags) == 3
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"page.html", "version_figures.json", "bounds.json", "comparisons"} <= names
    [page] = client.list_artifacts(run.info.run_id, "comparisons")
    assert f"artifacts/{page.path}" in version.description
    logged = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    tied = {metric.key: metric.dataset_name for metric in logged.metrics}
    assert tied["2 lift over version before pct"] == "holdout"


def test_the_page_beside_the_version_before_evaluates_nothing(nights, monkeypatch):
    ws, first, second = nights
    assert version_before_page(first, 1) is None

    def evaluated(*_, **__):
        raise AssertionError

    monkeypatch.setattr("pipeline.evaluation.evaluate.evaluate_stored", evaluated)
    began = time.monotonic()
    page = version_before_page(second, 2).decode()
    assert time.monotonic() - began < 5
    assert "Version 1 beside version 2" in page
    assert f"{figures_of(second).over_before.users:,}" in page
    _, owner = runs_of(ws, second, 2)
    stored = mlflow_client(ws).download_artifacts(owner.info.run_id, f"{PAGES}/{BEFORE_PAGE}")
    # That of MLflow was made before the lists were published.
    assert "not published yet when this page was made" in Path(stored).read_text()
    assert "not published yet when this page was made" not in page


def test_after_a_switch_the_scorer_of_the_old_recipe_is_the_reference(nights):
    _, _, night = nights
    frames = {}

    class Draft:
        def frame(self, name, frame):
            frames[name] = frame

    write_replaced(night, night.champion_name, Draft(), silent)
    assert frames == {}  # a refresh has been compared by `evaluate`
    write_replaced(night, "mad", Draft(), silent)
    assert set(frames) == {"replaced-tonight", "replaced-stored"}
    _, stored = pair_with_version_before(night.run, night.snapshot, night.champion_name)
    # Users, ground truth and values of the old scorer are those of the gate's comparison.
    replaced = frames["replaced-stored"].sort(c.USER_ID)
    assert replaced.equals(stored.sort(c.USER_ID).select(replaced.columns))
    mad = night.run.frame("evaluate", "users-mad")
    both = frames["replaced-tonight"].join(mad, on=c.USER_ID, suffix="_own")
    assert both.filter(pl.col("ndcg") == pl.col("ndcg_own")).height > 0.8 * both.height


def test_page_and_mlflow_answer_with_one_lift_after_a_switch(nights, monkeypatch):
    """Both show the holdout's lift over the version before, and name that of the e-process."""
    _, _, night = nights
    frames = pair_with_version_before(night.run, night.snapshot, night.champion_name)
    status = night.run.read(DecisionFile).root.e_processes[0]
    decision = replace(night.run.read(DecisionFile).root, kind="switch", recipe=status.recipe)
    for module in ("pipeline.report.headline", "pipeline.steps.nightly.version_figures"):
        monkeypatch.setattr(f"{module}.decision_of", lambda _: decision)
    assert night_facts(night.run).over_before is None  # there is no refit of this recipe
    monkeypatch.setattr(lifts, "pair_with_version_before", lambda *_: frames)
    facts, file = night_facts(night.run), version_figures._measure(night)
    before, blocks = facts.over_before, facts.over_blocks
    assert (before.lift, before.lo, before.hi) == file.over_before.interval
    assert (blocks.lift, blocks.lo, blocks.hi) == (status.lift, status.lift_lo, status.lift_hi)
    assert blocks.text in headline(facts).news and before.text in headline(facts).news


def test_the_registered_model_must_return_the_lists_of_the_refit(nights):
    _, _, night = nights
    check_registered(night, 2)
    with raises("register.lists_differ") as caught:
        check_registered(night, 1)
    assert caught.value.exit_code == 5


def test_runs_link_to_airflow(nights):
    _, _, night = nights
    address = "http://127.0.0.1:8080/dags/nightly_retrain/runs/manual__1"
    snapshot = night.snapshot.model_copy(update={"airflow_run": address})
    assert snapshot.run_digest == night.snapshot.run_digest
    linked = type(night)(night.ws, night.run, snapshot, night.config, night.recipes)
    record = night_record(linked, version=2, taken=frozenset())
    assert record.tags["nightjar.airflow_run"] == address
    assert f"({address})" in record.note


def test_ids_are_translated_both_ways(nights):
    from pipeline.steps.lists import translate

    ws, _, _ = nights
    there = translate(ws, ["u3", "u1"])
    assert list(there) == ["u3", "u1"] and not set(there.values()) & {"u1", "u3"}
    assert translate(ws, list(there.values())) == {name: user for user, name in there.items()}
    with raises("user.unknown") as caught:
        translate(ws, ["u1", "stranger"])
    assert "stranger" not in caught.value.sentence
