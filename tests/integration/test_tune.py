"""Tuning on a small shop: its result, data that it must not read, and the decision."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from pipeline.base import as_of, format_instant, plain
from pipeline.cli import main
from pipeline.errors import RegistryError
from pipeline.steps.experiments.tuning.report import mirror
from pipeline.steps.experiments.tuning.tune import default_as_of, parse_budget, tune
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history
from pipeline.steps.maintenance.register_all import register_all
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.stores.studies.files import StudyFiles
from pipeline.workspace import task_log
from pipeline.workspace.experiment_artifacts import StudyFile
from pipeline.workspace.ledger import CandidateEntry
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import NIGHTS, START, land, purchases

CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "purchase" }

[split]
task = "discovery"
min_users = 60

[gate]
min_users = 60

[publish]
live_from = "as_of"

[recipes.als]
family = "als"
factors = 8
alpha = 100.0
regularization = 300.0
iterations = 5

[recipes.mixed]
family = "blend"
weights = { als = 1.0, popular = 4.0 }

[recipes.mixed.parts.als]
family = "als"
factors = 8
alpha = 100.0
regularization = 300.0
iterations = 5

[recipes.mixed.parts.popular]
family = "decayed_popularity"
"""
EVENTS = purchases(users=150, items=80)
AS_OF = NIGHTS[0]
UNTIL = AS_OF - timedelta(days=28)


@pytest.fixture(scope="module", autouse=True)
def _every_line():
    """Progress without a pause between two lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_log, "PROGRESS_SECONDS", 0.0)
        yield


def ticking():
    """A clock that advances by a second with each reading."""
    seconds = count()
    return lambda: float(next(seconds))


def stored_study(ws, study):
    return StudyFile.parse(StudyFiles(ws.home / "studies", study).read("study.json"), study)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A workspace with events, and no night yet."""
    ws = Workspace.init(tmp_path_factory.mktemp("shop") / "home", CONFIG)
    land(ws.home, EVENTS, NIGHTS[2])
    feedback(ws, NIGHTS[2])
    return ws.home


@pytest.fixture
def copy(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    return Workspace.open(tmp_path / "home")


@pytest.fixture(scope="module")
def tuned(home, tmp_path_factory):
    """A first search, its result and its lines of progress."""
    folder = tmp_path_factory.mktemp("tuned") / "home"
    shutil.copytree(home, folder)
    ws, lines = Workspace.open(folder), []
    result = tune(ws, AS_OF, budget=60, elapsed=ticking(), recipe="als", progress=lines.append)
    return ws, result, lines


def test_a_bad_start_is_detected_and_becomes_a_candidate(tuned):
    ws, result, lines = tuned
    assert (result.status, result.candidate, result.name) == ("candidate", True, "als")
    assert result.best > 1.05 * result.start > 0
    assert result.recipe.alpha < 100
    assert result.trials["complete"] > 2
    assert result.trials["pruned"] > 2
    (entry,) = [e for e in history(ws) if isinstance(e, CandidateEntry)]
    assert entry.recipe == result.recipe
    assert (entry.as_of, entry.study) == (AS_OF, result.study)
    assert entry.sentence == result.sentence
    assert "on 3 windows before" in result.sentence
    first = next(line for line in lines if line.startswith("trial 0"))
    assert first.startswith(f"trial 0: {result.start:.4f}, best {result.start:.4f}, ")
    assert first.endswith(" left")
    assert any("stopped after window 1, best " in line for line in lines)


def test_its_windows_end_before_the_longest_holdout_begins(tuned):
    ws, result, _ = tuned
    study = stored_study(ws, result.study)
    assert study.until == UNTIL
    assert result.windows == tuple(UNTIL - timedelta(days=7 * n) for n in (1, 2, 3))


def test_its_files_hold_every_trial(tuned):
    ws, result, _ = tuned
    files = StudyFiles(ws.home / "studies", result.study)
    assert files.names == ("coordinates.png", "history.png", "importance.png", "study.json")
    study = stored_study(ws, result.study)
    assert len(study.trials) == sum(result.trials.values())
    start = study.trials[0]
    assert start.fields == {"alpha": 100.0, "regularization": 300.0, "half_life_days": 90.0}
    assert (start.start, start.lift, len(start.windows)) == (True, 0.0, 3)
    assert sum(study.importance.values()) == pytest.approx(1.0)


def test_the_same_call_goes_on_and_measures_nothing_twice(tuned, tmp_path):
    shutil.copytree(tuned[0].home, tmp_path / "home")
    ws, before = Workspace.open(tmp_path / "home"), tuned[1]
    land(ws.home, EVENTS, NIGHTS[2] + timedelta(days=2), NIGHTS[2])
    feedback(ws, NIGHTS[2] + timedelta(days=2))  # the study stays on the lake it has pinned
    result = tune(ws, AS_OF, budget=12, elapsed=ticking(), recipe="als")
    assert result.study == before.study
    assert result.best >= before.best
    was, now = stored_study(tuned[0], result.study).trials, stored_study(ws, result.study).trials
    assert now[: len(was)] == was
    assert len(now) > len(was)
    fields = [tuple(trial.fields.items()) for trial in now]
    assert len(set(fields)) == len(fields)


def test_the_next_study_begins_with_the_best_of_the_last(tuned, tmp_path):
    shutil.copytree(tuned[0].home, tmp_path / "home")
    ws, lines = Workspace.open(tmp_path / "home"), []
    result = tune(ws, NIGHTS[1], budget=16, elapsed=ticking(), recipe="als", progress=lines.append)
    assert result.study != tuned[1].study
    assert f"begins with the best trials of {tuned[1].study}" in lines
    trials = stored_study(ws, result.study).trials
    best = {f: getattr(tuned[1].recipe, f) for f in ("alpha", "regularization", "half_life_days")}
    assert trials[1].fields == best


def test_data_of_the_holdout_alone_change_nothing(tuned, copy):
    late = pl.col("timestamp") >= format_instant(UNTIL)
    planted = EVENTS.filter(late).with_columns(
        pl.lit("i79").alias("item_id"), (pl.col("event_id") + "x").alias("event_id")
    )
    land(copy.home, planted, NIGHTS[2])
    assert feedback(copy, NIGHTS[2]).accepted > 1000
    result = tune(copy, AS_OF, budget=25, elapsed=ticking(), recipe="als")
    unchanged = stored_study(tuned[0], tuned[1].study).trials
    trials = stored_study(copy, result.study).trials
    assert len(trials) > 2
    for actual, expected in zip(trials, unchanged, strict=False):
        assert (actual.fields, actual.windows) == (expected.fields, expected.windows)


def test_a_good_start_is_left_alone(copy):
    toml = copy.home / "nightjar.toml"
    good = toml.read_text().replace("alpha = 100.0\nregularization = 300.0", "alpha = 4.0")
    toml.write_text(good)
    ws = Workspace.open(copy.home)
    result = tune(ws, AS_OF, budget=5, elapsed=ticking(), recipe="als")
    assert (result.status, result.candidate) == ("nothing_better", False)
    assert result.best == result.start
    assert result.recipe.alpha == 4.0
    assert "no recipe is clearly better than als" in result.sentence
    assert history(ws) == ()


def test_a_budget_that_ends_within_the_first_trial_is_reported_and_goes_on(copy):
    first = tune(copy, AS_OF, budget=3, elapsed=ticking(), recipe="als")
    assert (first.status, first.start, first.candidate) == ("unfinished", None, False)
    assert "run the same command again" in first.sentence
    second = tune(copy, AS_OF, budget=8, elapsed=ticking(), recipe="als")
    assert second.study == first.study
    assert second.start > 0


def test_a_measured_trial_is_not_measured_again(copy, monkeypatch):
    monkeypatch.setattr("pipeline.models.search.Axis.snap", lambda axis, _: axis.high)
    monkeypatch.setattr("pipeline.steps.experiments.tuning.search._STUCK", 3)
    result = tune(copy, AS_OF, budget=1e6, elapsed=ticking(), recipe="als")
    assert sum(result.trials.values()) == 2


@pytest.mark.slow
def test_a_blend_moves_its_parts_and_then_mixes_them_anew(copy):
    lines = []
    result = tune(copy, AS_OF, budget=80, elapsed=ticking(), recipe="mixed", progress=lines.append)
    assert result.status == "candidate"
    assert "mixture: selecting it for the best parts" in lines
    assert result.recipe.parts["als"].alpha < 100
    assert result.recipe.weights != {"als": 1.0, "popular": 4.0}
    assert "a new mixture" in result.sentence
    again = []
    same = tune(copy, AS_OF, budget=1, elapsed=ticking(), recipe="mixed", progress=again.append)
    assert same.recipe == result.recipe
    assert "mixture: selecting it for the best parts" not in again


def test_a_trial_larger_than_memory_is_refused_as_in_a_night(copy, monkeypatch):
    monkeypatch.setenv("NIGHTJAR__TRAIN__MEMORY_GB", "0.00001")
    with raises("memory.recipe_too_large"):
        tune(Workspace.open(copy.home), AS_OF, budget=60, elapsed=ticking(), recipe="als")
    monkeypatch.delenv("NIGHTJAR__TRAIN__MEMORY_GB")
    result = tune(Workspace.open(copy.home), AS_OF, budget=8, elapsed=ticking(), recipe="als")
    assert result.start > 0


@pytest.mark.parametrize("text", ["0m", "0", "20", "-5m", "nan", "1e3s", "soon", "", "20 m"])
def test_a_budget_of_nothing_or_nonsense_is_refused(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["nightjar", "tune", "--budget", text, "--home", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is not a time above 0" in printed.err
    assert printed.err.count("\n") == 1


def test_budgets_are_read():
    assert [parse_budget(t) for t in ("90s", "20m", "1h", "0.5m")] == [90, 1200, 3600, 30]


def test_bad_questions_are_refused_in_one_sentence(copy):
    def asked(as_of=AS_OF, budget=5.0, **rest):
        return tune(copy, as_of, budget=budget, elapsed=ticking(), **rest)

    with raises("recipe.unknown"):
        asked(recipe="als2")
    with raises("tuning.nothing_to_tune"):
        asked(recipe="popularity")
    with raises("tuning.invalid_budget"):
        asked(budget=0.0)
    with raises("tuning.history_too_short"):
        asked(as_of(START + timedelta(days=20)))
    with raises("tuning.history_too_short"):
        asked(as_of(NIGHTS[2] + timedelta(days=400)))
    empty = Workspace.init(copy.home.parent / "empty", CONFIG)
    with raises("tuning.history_too_short"):
        tune(empty, AS_OF, budget=5, elapsed=ticking())


def test_before_the_first_night_the_as_of_is_now(copy):
    assert default_as_of(copy, NIGHTS[2]) == NIGHTS[2]


@pytest.fixture(scope="module")
def judged(home, tmp_path_factory):
    """A first night with a bad recipe, a search, and the nights after it.

    The e-process of the new recipe opens at the first of them; the others record two blocks.
    """
    ws = Workspace.open(shutil.copytree(home, tmp_path_factory.mktemp("judged") / "home"))
    first = nightly(ws, NIGHTS[0], recipes=["als"])
    result = tune(ws, default_as_of(ws, as_of(NIGHTS[2])), budget=60, elapsed=ticking())
    nights = [nightly(ws, as_of(NIGHTS[1] + timedelta(days=days))) for days in (0, 7, 14)]
    return ws, first, result, nights


@pytest.mark.slow
def test_the_command_line_prints_one_object(copy):
    options = ["--budget", "1s", "--as-of", format_instant(AS_OF), "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "tune", *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NIGHTJAR_HOME": str(copy.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    printed = json.loads(ran.stdout)
    assert (printed["name"], printed["as_of"]) == ("als", format_instant(AS_OF))
    names = {"status", "candidate", "recipe", "study", "best", "start", "sentence"}
    assert names <= set(printed)


@pytest.mark.slow
def test_the_next_nights_judge_the_tuned_recipe_and_the_gate_decides(judged):
    ws, first, result, (opened, once, twice) = judged
    assert (first.decision, first.recipe) == ("first", "als")
    assert (result.status, result.candidate, result.name) == ("candidate", True, "als")
    assert result.as_of == NIGHTS[0]
    night = Night.read(ws, ws.run(opened.run_id))
    assert night.recipes["tuned"] == result.recipe
    assert plain(result)["recipe"] == result.recipe.model_dump(mode="json")
    # One block is never enough, however large the lift is.
    assert [run.decision for run in (opened, once)] == ["refresh", "refresh"]
    assert (twice.decision, twice.recipe) == ("switch", "tuned")
    assert "tuned replaces als" in twice.sentence


@pytest.mark.slow
def test_a_champion_that_was_tuned_competes_under_one_name(judged, tmp_path):
    shutil.copytree(judged[0].home, tmp_path / "home")
    ws = Workspace.open(tmp_path / "home")
    later = as_of(NIGHTS[2] + timedelta(days=1))
    begun = snapshot(ws, later)
    assert [name for name in begun.recipes if name.startswith("tuned")] == ["tuned"]
    assert Night.read(ws, ws.run(begun.run_id)).champion_name == "tuned"
    only = snapshot(ws, later, recipes=["mixed"])
    assert set(only.recipes) - set(begun.recipes) == set()
    assert {"mixed", "tuned"} < set(only.recipes)
    assert "als" not in only.recipes


@pytest.mark.slow
def test_a_study_is_shown_in_mlflow_once_however_often_it_is_mirrored(judged):
    from mlflow import MlflowClient

    ws, _, result, _ = judged
    uri = ws.tracking_uri
    parent = mirror(ws, result.study)
    assert mirror(ws, result.study) == parent
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("nightjar-tuning").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    trials = [run for run in runs if run.info.run_id != parent]
    study = stored_study(ws, result.study)
    assert len(trials) == len(study.trials)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent}
    assert {run.info.status for run in runs} == {"FINISHED"}
    start = next(run for run in trials if run.data.tags["nightjar.start"] == "true")
    assert float(start.data.params["alpha"]) == 100.0
    points = client.get_metric_history(start.info.run_id, "ndcg_at_20")
    assert [(p.step, p.value) for p in points] == [
        (step, value) for step, value in enumerate(study.trials[0].windows, start=1)
    ]
    whole = next(run for run in runs if run.info.run_id == parent)
    assert whole.data.tags["mlflow.note.content"] == result.sentence
    assert whole.data.metrics["value"] == pytest.approx(result.best)
    assert {a.path for a in client.list_artifacts(parent)} == {
        "coordinates.png",
        "history.png",
        "importance.png",
        "study.json",
    }


@pytest.mark.slow
def test_a_registry_that_is_away_loses_nothing(tuned, tmp_path):
    shutil.copytree(tuned[0].home, tmp_path / "home")
    from mlflow import MlflowClient

    ws = Workspace.open(tmp_path / "home")
    (ws.home / "mlflow").write_text("in the way")
    with pytest.raises(RegistryError):
        mirror(ws, tuned[1].study)
    (ws.home / "mlflow").unlink()
    # No run is registered yet, so the studies are all that an empty MLflow gets.
    result = register_all(ws)
    assert (result.runs, result.studies) == (0, 1)
    client = MlflowClient(ws.tracking_uri, registry_uri=ws.tracking_uri)
    experiment = client.get_experiment_by_name("nightjar-tuning").experiment_id
    assert mirror(ws, tuned[1].study) in {r.info.run_id for r in client.search_runs([experiment])}


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(copy):
    code = (
        "import os, signal, sys, time; from pathlib import Path; from datetime import datetime\n"
        "from pipeline.workspace.workspace import Workspace\n"
        "from pipeline.steps.experiments.tuning.tune import tune\n"
        "from pipeline.base import as_of\n"
        "from pipeline.workspace import task_log\n"
        "task_log.PROGRESS_SECONDS = 0.0\n"
        "def report(line):\n"
        "    if line.startswith('trial 5:'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "tune(Workspace.open(Path(sys.argv[1])), as_of(sys.argv[2]), budget=600,\n"
        "     elapsed=lambda: 0.0, recipe='als', progress=report)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", code, str(copy.home), format_instant(AS_OF)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    result = tune(copy, AS_OF, budget=8, elapsed=ticking(), recipe="als")
    numbers = [trial.number for trial in stored_study(copy, result.study).trials]
    assert numbers[:6] == list(range(6))
    assert len(numbers) > 6
