"""Cases that import Airflow; `test_dag_files` runs them in a process of their own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG, Connection
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    ParamValidationError,
)
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from airflow.utils.types import DagRunTriggeredByType

from dags import (
    alerts,
    common,
    factory,
    links,
    nightly_retrain,
    nightly_task,
    problems,
    review,
    webhook,
)
from dags.common import AirflowWorkspace
from dags.late_night import late_night, watch_nights
from dags.local import runner
from dags.plugins import run_id as run_id_plugin
from dags.run_outcome import RunOutcome, determine_outcome
from dags.settings import BASELINES, MODES
from pipeline.errors import ConfigError
from pipeline.report.headline import Headline
from pipeline.workspace.workspace import Workspace

DAGS = runner.load_dags()
NIGHTLY, FEEDBACK = DAGS["nightly_retrain"], DAGS["feedback_ingest"]
TASKS = [task for dag in DAGS.values() for task in dag.tasks]
EDGES = {
    "backtest": [],
    "feedback_ingest": [
        ("attribution", "drift"),
        ("drift", "policy"),
        ("foldin", "attribution"),
        ("foldin", "report_outcome"),
        ("ingest", "announce_events"),
        ("ingest", "drift"),
        ("ingest", "foldin"),
        ("ingest", "report_outcome"),
        ("policy", "request_retrain"),
    ],
    "maintenance": [],
    "nightly_retrain": [
        ("accept", "refit"),
        ("cold_check", "register"),
        ("evaluate", "gate"),
        ("features", "train"),
        ("gate", "review"),
        ("publish", "report_outcome"),
        ("recommend", "publish"),
        ("refit", "cold_check"),
        ("register", "recommend"),
        ("review", "accept"),
        ("snapshot", "train"),
        ("snapshot", "validate"),
        ("train", "evaluate"),
        ("validate", "features"),
    ],
    "tune": [("search", "mirror")],
}
SINGLE_TASKS = {"backtest": "replay_days", "maintenance": "gc"}


def _edges(dag: Any) -> list[tuple[str, str]]:
    return sorted((task.task_id, after) for task in dag.tasks for after in task.downstream_task_ids)


def test_there_are_five_dags() -> None:
    assert sorted(DAGS) == sorted(EDGES)


@pytest.mark.parametrize("dag", DAGS.values(), ids=lambda dag: dag.dag_id)
def test_the_order_of_tasks(dag: Any) -> None:
    in_edges = {task_id for edge in EDGES[dag.dag_id] for task_id in edge}

    assert _edges(dag) == EDGES[dag.dag_id]
    assert set(dag.task_ids) == (in_edges or {SINGLE_TASKS[dag.dag_id]})


@pytest.mark.parametrize("dag", DAGS.values(), ids=lambda dag: dag.dag_id)
def test_the_order_survives_serialisation(dag: Any) -> None:
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))

    assert _edges(DagSerialization.from_dict(stored)) == EDGES[dag.dag_id]


@pytest.mark.parametrize("dag", DAGS.values(), ids=lambda dag: dag.dag_id)
def test_a_dag_starts_paused_alone_and_without_catching_up(dag: Any) -> None:
    assert dag.is_paused_upon_creation
    assert dag.max_active_runs == 1
    assert not dag.catchup
    assert "nightjar" in dag.tags
    assert dag.doc_md.strip().endswith(".")
    assert "\n**Schedule.** " in dag.doc_md


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.dag_id}.{task.task_id}")
def test_a_task_has_owner_retries_time_limit_and_documentation(task: Any) -> None:
    assert task.owner == "nightjar"
    assert task.retries == (0 if task.task_id == "report_outcome" else 2)
    # A store that `gc` finds locked stays locked for minutes.
    assert task.retry_delay == timedelta(minutes=10 if task.task_id == "gc" else 1)
    if task.task_id == "review":  # it only waits
        assert task.execution_timeout is None
        assert task.response_timeout == timedelta(hours=4)
    else:
        assert timedelta(0) < task.execution_timeout <= timedelta(hours=2)
    assert task.doc_md.strip().endswith(".")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.dag_id}.{task.task_id}")
def test_a_task_logs_no_returned_value(task: Any) -> None:
    if task.task_id != "review":  # it is not a Python operator and logs no value
        operator = task.unmap({"op_kwargs": {"recipe": "als"}}) if task.is_mapped else task
        assert operator.show_return_value_in_logs is False


def test_heavy_tasks_run_one_at_a_time() -> None:
    heavy = {task.task_id: task.pool for task in TASKS if task.pool != "default_pool"}

    assert sorted(heavy) == ["evaluate", "refit", "replay_days", "search", "train"]
    assert set(heavy.values()) == set(common.pools()) == {"nightjar_heavy"}
    assert [slots for slots, _ in common.pools().values()] == [1]


def test_the_tasks_that_run_after_a_skipped_or_failed_task() -> None:
    rules = {
        (t.dag_id, t.task_id): t.trigger_rule.value
        for t in TASKS
        if t.trigger_rule != "all_success"
    }

    assert rules == {
        ("feedback_ingest", "attribution"): "all_done",
        ("feedback_ingest", "drift"): "none_failed",
        ("feedback_ingest", "policy"): "none_failed",
        ("feedback_ingest", "report_outcome"): "none_failed",
        ("nightly_retrain", "evaluate"): "none_failed_min_one_success",
        ("nightly_retrain", "refit"): "none_failed",
        ("nightly_retrain", "register"): "none_failed",
        ("nightly_retrain", "report_outcome"): "all_done",
    }


@pytest.mark.parametrize(
    ("dag_id", "minutes"),
    [("nightly_retrain", 24 * 60), ("maintenance", 24 * 60), ("feedback_ingest", 5)],
)
def test_unpausing_starts_no_run_of_the_past(dag_id: str, minutes: int) -> None:
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(DAGS[dag_id]))
    before = datetime.now(UTC)

    following = scheduled.timetable.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(earliest=None, latest=None, catchup=False),
    )

    assert before < following.run_after <= before + timedelta(minutes=minutes, seconds=5)


@pytest.mark.parametrize("dag_id", ["backtest", "tune"])
def test_only_a_user_starts_it(dag_id: str) -> None:
    assert not DAGS[dag_id].timetable.can_be_scheduled


def _settings(monkeypatch: pytest.MonkeyPatch, home: Path, text: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "nightjar.toml").write_text(text)
    monkeypatch.setenv("NIGHTJAR_HOME", str(home))


def test_by_default_the_cron_alone_starts_a_nightly_run() -> None:
    assert NIGHTLY.timetable.expression == "0 3 * * *"
    assert str(NIGHTLY.timetable.timezone) in ("UTC", "Timezone('UTC')")
    assert NIGHTLY.timetable.asset_condition is None


@pytest.mark.parametrize("mode", ["adaptive", "both"])
def test_a_request_starts_a_nightly_run_where_the_config_chooses_it(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = f'[schedule]\nmode = "{mode}"\ncron = "30 4 * * 1"\ntimezone = "Europe/Berlin"\n'
    _settings(monkeypatch, tmp_path, text)
    schedule = runner.load_dags()["nightly_retrain"].timetable

    assert schedule.timetable.expression == "30 4 * * 1"
    assert "Europe/Berlin" in str(schedule.timetable.timezone)
    assert [asset.name for asset in schedule.asset_condition.objects] == [
        "nightjar_retrain_requested"
    ]


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ('[schedule]\ncron = "nightly"\n', "config.invalid_value"),
        ('[schedule]\ntimezone = "Mars/Olympus"\n', "config.invalid_value"),
        ("[schedule\n", "config.not_toml"),
    ],
)
def test_a_config_that_cannot_be_used_is_a_red_first_task_on_the_default_schedule(
    text: str, id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(monkeypatch, Workspace.init(tmp_path / "ws").home, text)
    nightly = runner.load_dags()["nightly_retrain"]
    problem = _failed_snapshot(nightly, monkeypatch, {})

    assert nightly.timetable.expression == "0 3 * * *"
    assert (problem["id"], problem["exit_code"]) == (id, 2)


def test_an_unknown_recipe_of_a_trigger_is_a_red_first_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(monkeypatch, Workspace.init(tmp_path / "ws").home, '[recipes.mine]\nfamily = "als"\n')
    params = {"as_of": None, "recipes": ["min"], "publish": True}
    problem = _failed_snapshot(NIGHTLY, monkeypatch, params)

    assert (problem["id"], problem["exit_code"]) == ("recipe.unknown", 2)
    assert "'min'" in problem["sentence"] and "mine" in problem["sentence"]


def _failed_snapshot(
    dag: Any, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> dict[str, Any]:
    """Run the first task of a run that a user triggered; return its problem."""
    left: dict[str, Any] = {}
    ti = SimpleNamespace(
        xcom_push=lambda key, value: left.update({key: value}),
        dag_id="nightly_retrain",
        try_number=1,
        max_tries=2,
        log_url="http://127.0.0.1:8080/dags/nightly_retrain/runs/r/tasks/snapshot",
        run_id="r",
    )
    now = datetime.now(UTC)
    run = SimpleNamespace(run_type="manual", data_interval_end=None, run_after=now)
    context = {"ti": ti, "params": params, "dag_run": run}
    # Airflow's own place: the parsed file is another module than the one that is imported.
    place = "airflow.sdk.definitions._internal.contextmanager._CURRENT_CONTEXT"
    monkeypatch.setattr(place, [context])
    assert isinstance(dag.get_task("snapshot").python_callable(), AirflowFailException)
    problem: dict[str, Any] = left[problems.PROBLEM]
    return problem


def test_assets_are_updated_by_tasks_that_can_be_skipped() -> None:
    outlets = {task.task_id: asset.name for task in TASKS for asset in task.outlets}

    assert outlets == {
        "announce_events": "nightjar_events",
        "request_retrain": "nightjar_retrain_requested",
    }


NAMES = {
    "nightjar": ("", "NIGHTJAR_HOME", "nightjar://"),
    "shop": ("shop_", "NIGHTJAR_HOME_SHOP", "nightjar://shop/"),
}


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the DAGs of two workspaces."""
    monkeypatch.setattr(common, "WORKSPACES", tuple(map(AirflowWorkspace, NAMES)))
    return runner.load_dags()


@pytest.mark.parametrize("name", NAMES)
def test_all_names_follow_from_that_of_the_workspace(name: str, both: dict[str, Any]) -> None:
    prefix, variable, root = NAMES[name]
    dags = {dag_id: both[f"{prefix}{dag_id}"] for dag_id in EDGES}
    workspace = AirflowWorkspace(name)

    for dag_id, dag in dags.items():
        assert dag.tags == {name, *DAGS[dag_id].tags} - {"nightjar"} | {name}
        assert _edges(dag) == EDGES[dag_id]
    tasks = [task for dag in dags.values() for task in dag.tasks]
    assert {task.pool for task in tasks} == {"default_pool", f"{name}_heavy"}
    assets = [asset for task in tasks for asset in task.outlets]
    assert sorted(asset.name for asset in assets) == [f"{name}_events", f"{name}_retrain_requested"]
    assert sorted(asset.uri.rstrip("/") for asset in assets) == [
        f"{root}lake/events",
        f"{root}retrain_requested",
    ]
    assert workspace.home_variable == variable
    assert workspace.webhook_connection == f"{name}_webhook"


def test_two_workspaces_share_no_name(both: dict[str, Any]) -> None:
    first, second = map(AirflowWorkspace, NAMES)

    assert sorted(both) == sorted([*EDGES, *(f"shop_{dag_id}" for dag_id in EDGES)])
    assert set(common.pools()) == {"nightjar_heavy", "shop_heavy"}
    for attribute in ("heavy_pool", "home_variable", "webhook_connection"):
        assert getattr(first, attribute) != getattr(second, attribute)
    for attribute in ("events", "retrain_requested"):
        a, b = getattr(first, attribute), getattr(second, attribute)
        assert (a.name != b.name, a.uri != b.uri) == (True, True)


def test_a_task_opens_the_folder_of_its_own_workspace(
    both: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []

    @factory.nightjar_task(opens=lambda workspace: _Folder(workspace, folders))
    def step(_: Any, suffix: str) -> None:
        folders.append(suffix)

    @factory.nightjar_dag(tag="t", doc_md="", params={})
    def example(workspace: AirflowWorkspace) -> None:
        step(workspace, "done")

    for dag, (name, (_, variable, _)) in zip(example, NAMES.items(), strict=True):
        monkeypatch.setenv(variable, f"/folder/{name}")
        operator = dag.get_task("step")
        operator.python_callable(*operator.op_args)

    assert folders == ["/folder/nightjar", "done", "/folder/shop", "done"]


@pytest.mark.parametrize(
    ("raised", "failure", "id"),
    [
        (PermissionError(13, "Permission denied", "/x"), AirflowException, "storage.failed"),
        (MemoryError(), AirflowFailException, "memory.exhausted"),
        (AirflowSkipException("nothing"), AirflowSkipException, None),
        (KeyError("a bug"), KeyError, "bug"),
    ],
)
def test_a_failure_of_the_machine_is_the_sentence_of_a_task(
    raised: Exception,
    failure: type[Exception],
    id: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NIGHTJAR_HOME", str(Workspace.init(tmp_path / "ws").home))
    left: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="tune",
        xcom_push=lambda key, value: left.update(value),
        try_number=1,
        max_tries=2,
    )
    monkeypatch.setattr(factory, "get_current_context", lambda: {"ti": ti})
    with pytest.raises(failure) as caught, factory.open_workspace(AirflowWorkspace()):
        raise raised
    assert type(caught.value) is failure
    assert left.get("id") == id
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == (failure is not AirflowSkipException)
    for line in lines:  # the cause, the lists that stay live, the next step
        assert left["sentence"].rstrip(".") in line
        assert id == "bug" or str(id) in line
        assert "No lists are live yet." in line
        # Airflow logs the exception: it must not repeat the line.
        assert id == "bug" or left["sentence"] not in str(caught.value)
        assert ("Airflow tries again" in line) == (failure is not AirflowFailException)


@pytest.mark.parametrize(
    ("raised", "outside"),
    [(AirflowFailException("sentence"), True), (AirflowException("sentence"), True),
     (AirflowSkipException("nothing"), False), (KeyError("a bug"), False)],
)  # fmt: skip
@pytest.mark.parametrize("opens", [None, nullcontext])
def test_an_expected_failure_is_raised_outside_of_the_task(
    raised: Exception, outside: bool, opens: Any
) -> None:
    @factory.nightjar_task(opens=opens)
    def step(*_: Any) -> None:
        raise raised

    with DAG("example"):
        operator = step(AirflowWorkspace()).operator
    if not outside:  # a bug keeps its whole traceback
        with pytest.raises(type(raised)) as caught:
            operator.python_callable()
        assert caught.traceback[-1].name == "step"
        return
    result = operator.python_callable()
    with pytest.raises(type(raised)) as caught:
        operator._post_execute_hook({}, result)
    assert caught.value is raised and [frame.name for frame in caught.traceback][1:] == [
        "_raise_failure"
    ]


class _Folder:
    def __init__(self, workspace: AirflowWorkspace, folders: list[str]) -> None:
        self.workspace, self.folders = workspace, folders

    def __enter__(self) -> None:
        self.folders.append(str(self.workspace.home()))

    def __exit__(self, *error: object) -> None:
        pass


def test_only_the_default_workspace_has_a_folder_without_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NIGHTJAR_HOME", raising=False)
    monkeypatch.delenv("NIGHTJAR_HOME_SHOP", raising=False)

    assert AirflowWorkspace().home().name == "var"
    with pytest.raises(ConfigError, match="NIGHTJAR_HOME_SHOP is not set"):
        AirflowWorkspace("shop").home()


@pytest.mark.parametrize("name", ["", "Shop", "a-shop", "1shop", "shop/..", "shop\n"])
def test_a_workspace_name_that_airflow_or_the_environment_rejects(name: str) -> None:
    with pytest.raises(ValueError, match="workspace name"):
        AirflowWorkspace(name)


def test_params_are_typed_and_described() -> None:
    params = {name: param for dag in DAGS.values() for name, param in dag.params.items()}

    for param in params.values():
        assert param.schema["type"]
        assert param.schema["title"]
        assert param.description.endswith(".")
    assert {n: p.value for n, p in params.items()} == {
        "as_of": None,
        "at": None,
        "begin": None,
        "budget": "20m",
        "end": None,
        "every": "1d",
        "plant_shift": None,
        "schedules": ["nightly", "weekly", "adaptive", "never"],
        "publish": True,
        "recipe": None,
        "recipes": None,
        "yes": False,
    }
    night = dict(NIGHTLY.params.items())
    assert "2017-12-29T09:00:00Z" in night["as_of"].description


@pytest.mark.parametrize("name", ["begin", "end"])
def test_a_backtest_has_no_period_of_its_own(name: str) -> None:
    with pytest.raises(ParamValidationError):
        dict(DAGS["backtest"].params.items())[name].resolve(None)


def test_recipes_and_schedules_are_chosen_from_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nightjar.toml").write_text('[recipes.fast]\nfamily = "als"\n')
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path))
    dags = runner.load_dags()

    for dag_id, name in (("nightly_retrain", "recipes"), ("tune", "recipe")):
        param = dict(dags[dag_id].params.items())[name]
        assert param.schema["examples"] == [*BASELINES, "fast"]
        assert param.resolve(None) is None
    schedules = dict(dags["backtest"].params.items())["schedules"]
    assert schedules.schema["examples"] == ["nightly", "weekly", "adaptive", "never"]
    with pytest.raises(ParamValidationError):
        schedules.resolve(["hourly"])


def test_the_tasks_of_a_night_are_in_three_groups() -> None:
    groups = {
        name: sorted(group.children)
        for name, group in NIGHTLY.task_group.get_task_group_dict().items()
        if name
    }

    assert groups == {
        "data": ["features", "snapshot", "validate"],
        "models": ["accept", "evaluate", "gate", "review", "train"],
        "release": ["cold_check", "publish", "recommend", "refit", "register"],
    }


@pytest.mark.parametrize(
    ("dag_id", "tag"),
    [
        ("backtest", "by hand"),
        ("feedback_ingest", "every 5 minutes"),
        ("maintenance", "daily 02:37 UTC"),
        ("nightly_retrain", "daily 03:00 UTC"),
    ],
)
def test_a_tag_shows_the_schedule(dag_id: str, tag: str) -> None:
    assert tag in DAGS[dag_id].tags


def test_a_tag_shows_a_schedule_of_the_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toml = '[schedule]\nmode = "both"\ncron = "30 4 * * 1"\ntimezone = "Europe/Berlin"\n'
    (tmp_path / "nightjar.toml").write_text(toml)
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path))

    tags = runner.load_dags()["nightly_retrain"].tags

    assert "30 4 * * 1 Europe/Berlin or on request" in tags


def test_the_last_task_of_a_night_links_to_page_run_and_version() -> None:
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(NIGHTLY))))
    names = ["MLflow run", "model version", "night page"]
    left = {"MLflow run": "http://x/#/runs/1"}
    ti: Any = SimpleNamespace(task_id="report_outcome", xcom_pull=lambda task_ids, key: left)

    assert sorted(stored.get_task("report_outcome").extra_links) == names
    shown = {link.name: link.get_link(None, ti_key=ti) for link in links.LINKS}  # type: ignore[arg-type]
    assert shown == {**dict.fromkeys(names, ""), **left}


@pytest.mark.parametrize(
    ("variables", "tracking_uri", "root"),
    [
        ({}, None, "http://127.0.0.1:5000"),
        ({"MLFLOW_PORT": "5001"}, None, "http://127.0.0.1:5001"),
        ({"MLFLOW_PORT": "5001"}, "https://mlflow.example.org/", "https://mlflow.example.org"),
        (
            {"NIGHTJAR_MLFLOW_URL": "http://localhost:1/"},
            "http://mlflow:5000",
            "http://localhost:1",
        ),
    ],
)
def test_links_lead_to_the_mlflow_that_a_browser_reaches(
    variables: dict[str, str], tracking_uri: str | None, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_PORT", "NIGHTJAR_MLFLOW_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    registry = SimpleNamespace(tracking_uri=tracking_uri, model_name="nightjar")
    ws: Any = SimpleNamespace(config=SimpleNamespace(registry=registry))

    run, ending = "#/experiments/1/runs/7", "?workflowType=machine_learning"
    assert links.addresses(ws, run, None) == {
        "night page": f"{root}/{run}/artifacts/page.html{ending}",
        "MLflow run": f"{root}/{run}{ending}",
    }
    version = links.addresses(ws, run, 3)["model version"]
    assert version == f"{root}/#/models/nightjar/versions/3{ending}"


def _context(
    *, as_of: str | None = None, at: str | None = None, interval_end: datetime | None = None
) -> Any:
    run = SimpleNamespace(
        data_interval_end=interval_end, run_after=datetime(2026, 1, 2, tzinfo=UTC)
    )
    return {"params": {"as_of": as_of, "at": at}, "dag_run": run}


def test_the_param_as_of_comes_first() -> None:
    context = _context(as_of="2017-12-29T10:00:00+01:00", interval_end=datetime.now(UTC))

    assert common.resolve_as_of(context) == datetime(2017, 12, 29, 9, tzinfo=UTC)


def test_the_as_of_of_a_scheduled_run_is_the_end_of_its_data_interval() -> None:
    end = datetime(2026, 1, 1, 3, tzinfo=UTC)

    assert common.resolve_as_of(_context(interval_end=end)) == end


def test_the_as_of_of_a_run_that_an_asset_triggered_is_its_run_after() -> None:
    assert common.resolve_as_of(_context()) == datetime(2026, 1, 2, tzinfo=UTC)


def test_an_as_of_in_the_future_is_rejected() -> None:
    with pytest.raises(ConfigError, match="must not be in the future: 2026-01-02T00:00:01Z"):
        common.resolve_as_of(_context(as_of="2026-01-02T00:00:01Z"))


@pytest.mark.parametrize(
    ("kind", "modes"),
    [
        ("asset_triggered", {"nightly", "adaptive", "both"}),
        ("scheduled", {"adaptive"}),
        ("manual", set()),
    ],
)
def test_the_policy_decides_on_requests_and_under_adaptive_on_the_cron(
    kind: str, modes: set[str]
) -> None:
    from airflow.sdk.api.datamodels._generated import DagRunType

    context: Any = {"dag_run": SimpleNamespace(run_type=DagRunType(kind))}

    assert {mode for mode in MODES if common.asks_policy(context, mode)} == modes


@pytest.mark.parametrize("text", ["2017-12-29T09:00:00", "yesterday"])
def test_an_as_of_without_a_zone_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as"):
        common.resolve_as_of(_context(as_of=text))


def test_the_instant_of_a_pass_is_the_param_or_its_run_after() -> None:
    context = _context(interval_end=datetime(2026, 1, 1, 3, tzinfo=UTC))

    assert common.resolve_at(context) == datetime(2026, 1, 2, tzinfo=UTC)
    assert common.resolve_at(_context(at="2017-12-01T09:00:00Z")).year == 2017


def test_a_pass_in_the_future_is_rejected() -> None:
    with pytest.raises(
        ConfigError, match="param at must not be in the future: 2026-01-02T00:00:01Z"
    ):
        common.resolve_at(_context(at="2026-01-02T00:00:01Z"))


class _Hook(HTTPServer):
    """Answers every POST with `status`, and records it."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[tuple[str, str | None, Any]] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


class _Answer(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = (self.path, self.headers["Authorization"], json.loads(body))
        self.server.received.append(request)
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[_Hook]:
    with _Hook() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


MESSAGE = {"dag": "nightly_retrain", "run_id": "r", "status": "first", "sentence": "better"}


def _connect(monkeypatch: pytest.MonkeyPatch, connection: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NIGHTJAR_WEBHOOK", connection)


def test_without_a_connection_nothing_is_posted() -> None:
    assert webhook.post("nightjar_webhook", MESSAGE) is False


def test_the_webhook_receives_the_message(monkeypatch: pytest.MonkeyPatch, hook: _Hook) -> None:
    connection = {"conn_type": "http", "host": hook.address, "password": "token"}
    _connect(monkeypatch, json.dumps(connection))

    assert webhook.post("nightjar_webhook", MESSAGE) is True
    assert hook.received == [("/secret-path", "Bearer token", MESSAGE)]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_error_response_fails_nothing_and_logs_no_secret(
    status: int, monkeypatch: pytest.MonkeyPatch, hook: _Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = status
    connection = {"conn_type": "http", "host": hook.address, "password": "secret-token"}
    _connect(monkeypatch, json.dumps(connection))

    assert webhook.post("nightjar_webhook", MESSAGE) is False
    assert len(hook.received) == 1
    assert str(status) in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/secret-path",
        "http://127.0.0.1:9/secret path",
        "http://127.0.0.1:secret",
        "ftp://x/secret-path",
        "http://[secret-path",
    ],
)
def test_an_address_that_cannot_be_reached_fails_nothing_and_logs_no_secret(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _connect(monkeypatch, json.dumps({"conn_type": "http", "host": address}))

    assert webhook.post("nightjar_webhook", MESSAGE) is False
    assert "cannot be reached" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        (Connection(conn_id="c", conn_type="http", host="https://h/p?k=v"), "https://h/p?k=v"),
        (
            Connection(conn_id="c", conn_type="http", host="h", schema="https", port=8443),
            "https://h:8443",
        ),
        (Connection(conn_id="c", conn_type="http", host="h", extra='{"path": "/p"}'), "http://h/p"),
        (Connection.from_uri("https://h/p/q", conn_id="c"), "https://h/p/q"),
    ],
)
def test_the_address_of_a_connection(connection: Connection, address: str) -> None:
    assert webhook.address(connection) == address


def test_a_hanging_address_delays_a_run_by_five_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and answers byte by byte
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        _connect(monkeypatch, json.dumps({"conn_type": "http", "host": address}))
        threading.Thread(target=_drip, args=(silent,), daemon=True).start()
        start = time.monotonic()

        assert webhook.post("nightjar_webhook", MESSAGE) is False
        assert 4.5 < time.monotonic() - start < 6
    assert "did not answer within 5 s" in caplog.text


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as endless:
        address = f"http://127.0.0.1:{endless.getsockname()[1]}"
        _connect(monkeypatch, json.dumps({"conn_type": "http", "host": address}))
        threading.Thread(target=_flood, args=(endless,), daemon=True).start()
        start = time.monotonic()

        assert webhook.post("nightjar_webhook", MESSAGE) is True
        assert time.monotonic() - start < 4


def _flood(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.recv(1 << 16)
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.send(b"8\r\nxxxxxxxx\r\n")


def _drip(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        while True:
            connection.send(b" ")
            time.sleep(0.5)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, hook: _Hook, tmp_path: Path) -> dict[str, Any]:
    """Airflow's variables; a webhook exists."""
    values: dict[str, Any] = {}
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path / "home"))
    _connect(monkeypatch, json.dumps({"conn_type": "http", "host": hook.address}))
    fake = SimpleNamespace(
        get=lambda key, default, deserialize_json: deepcopy(values.get(key, default)),
        set=lambda key, value, serialize_json: values.update({key: deepcopy(value)}),
    )
    monkeypatch.setattr(alerts, "Variable", fake)
    return values


NIGHTJAR = AirflowWorkspace()


def _posted(hook: _Hook) -> list[str]:
    return [message["sentence"] for _, _, message in hook.received]


@pytest.mark.usefixtures("variables")
def test_a_cause_is_posted_once_until_it_is_over(hook: _Hook) -> None:
    for cause, place in (("a x", "a.t."), ("a x", "a.t."), ("b y", "b.t."), ("a x", "c.t.")):
        alerts.report(NIGHTJAR, cause, {**MESSAGE, "sentence": cause}, place=place)
    assert _posted(hook) == ["a x", "b y"]

    alerts.end(NIGHTJAR, "a.t.")
    for cause in ("a x", "b y"):
        alerts.report(NIGHTJAR, cause, {**MESSAGE, "sentence": cause}, place="a.t.")
    assert _posted(hook) == ["a x", "b y", "a x"]


def test_a_cause_is_posted_again_after_a_day(hook: _Hook, variables: dict[str, Any]) -> None:
    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert not alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    ago = datetime.now(UTC) - timedelta(hours=23, minutes=1)
    variables["nightjar_alerts"]["a x"]["posted"] = ago.isoformat()

    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert len(hook.received) == 2


@pytest.mark.parametrize("causes", [("a x", "a x"), ("a x", "b y")])
def test_tasks_that_report_at_once_share_the_causes(
    causes: tuple[str, str], hook: _Hook, variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def slow(key: str, default: Any, deserialize_json: bool) -> Any:
        value = deepcopy(variables.get(key, default))
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # without a lock both have read before one writes
        return value

    monkeypatch.setattr(alerts.Variable, "get", slow)
    tasks = [
        threading.Thread(
            target=alerts.report, args=(NIGHTJAR, cause, MESSAGE), kwargs={"place": cause}
        )
        for cause in causes
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()

    assert len(hook.received) == len(set(causes))
    assert set(variables["nightjar_alerts"]) == set(causes)


def test_causes_of_long_ago_are_removed(variables: dict[str, Any]) -> None:
    alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    alerts.report(NIGHTJAR, "b y", MESSAGE, place="b.y.")
    ago = datetime.now(UTC) - alerts.KEPT_FOR - timedelta(minutes=1)
    variables["nightjar_alerts"]["a x"]["seen"] = ago.isoformat()

    alerts.report(NIGHTJAR, "c z", MESSAGE, place="c.z.")

    assert set(variables["nightjar_alerts"]) == {"b y", "c z"}


def test_a_message_needs_no_workspace(hook: _Hook, variables: dict[str, Any]) -> None:
    home = NIGHTJAR.home()
    home.rmdir()

    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert not home.exists()


def test_a_message_that_was_not_received_is_posted_again(hook: _Hook, variables: Any) -> None:
    hook.status = 500
    assert not alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    hook.status = 200

    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert variables["nightjar_alerts"]["a x"]["count"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        "text",
        ["a x"],
        {"a x": 1},
        {"a x": {}},
        {"a x": {"count": 1, "posted": "yesterday"}},
        {"a x": {"count": 1, "seen": "2026-01-01", "posted": None, "places": 1}},
    ],
)
def test_a_damaged_variable_mutes_no_message(hook: _Hook, variables: Any, damage: Any) -> None:
    variables["nightjar_alerts"] = damage

    alerts.end(NIGHTJAR, "b")
    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert not alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    assert len(hook.received) == 1


@pytest.mark.usefixtures("variables")
def test_a_cause_can_need_two_reports(hook: _Hook) -> None:
    assert not alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.", after=2)
    assert alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.", after=2)
    assert len(hook.received) == 1


def test_without_a_webhook_no_variable_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "Variable", None)  # any use of it would raise

    assert not alerts.report(NIGHTJAR, "a x", MESSAGE, place="a.x.")
    alerts.end(NIGHTJAR, "a")


FAILURE = {"id": "lock.held", "sentence": "process 1 holds the lock", "exit_code": 6}


@pytest.mark.parametrize(
    ("problem", "exception", "posts"),
    [(FAILURE, AirflowException, 1), (None, TimeoutError, 1)],
)
@pytest.mark.usefixtures("variables")
def test_a_failed_task_is_noted_and_posted_by_its_error(
    hook: _Hook, problem: dict[str, Any] | None, exception: type[Exception], posts: int
) -> None:
    notes: list[str] = []
    for number in (1, 2):  # the second process has another id, and the same error
        left = problem and {**problem, "sentence": f"process {number} holds the lock"}
        ti = SimpleNamespace(
            dag_id="maintenance",
            task_id="gc",
            run_id="r",
            log_url="http://airflow/dags/maintenance/runs/r/tasks/gc",
            xcom_pull=lambda task_ids, key, left=left: left,
            xcom_push=lambda key, value: notes.append(value),
        )
        alerts.on_failure(NIGHTJAR)({"ti": ti, "exception": exception(f"bug {number}")})  # type: ignore[typeddict-item]

    assert len(hook.received) == posts
    _, _, message = hook.received[0]
    assert message["url"] == "http://airflow/dags/maintenance/runs/r"
    sentence, empty, address = message["text"].splitlines()
    assert (empty, address) == ("", message["url"])
    assert notes[0].startswith("gc failed: ") and notes[0].splitlines()[0] in sentence
    assert f"[log of gc]({message['url']}/tasks/gc)" in notes[0]
    assert problems.restart_text("maintenance") in notes[0]
    assert len(notes) == 2


def test_every_failure_is_reported_once() -> None:
    reporting = {t.dag_id for t in TASKS if t.on_failure_callback}

    assert reporting == set(DAGS) - {"nightly_retrain"}  # its last task reports
    assert all(task.on_success_callback for task in TASKS)


PLACES = (("feedback_ingest", "ingest"), ("maintenance", "gc"), ("nightly_retrain", "snapshot"))


def test_a_failed_training_has_the_name_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"train_0": "success", "train_1": "failed", "report_outcome": "running"}
    problem = {"id": "memory.needed", "sentence": "7 GB are missing", "exit_code": 2}
    left = {("train", 1): problem, ("snapshot", None): {}}
    ti = SimpleNamespace(
        dag_id="nightly_retrain",
        task_id="report_outcome",
        run_id="r",
        log_url="http://airflow/dags/nightly_retrain/runs/r/tasks/report_outcome",
        get_task_states=lambda dag_id, run_ids: {"r": dict(states)},
        xcom_pull=lambda task_ids, key=None, map_indexes=None: left.get((task_ids, map_indexes)),
    )
    monkeypatch.setattr(nightly_task, "get_current_context", lambda: {"ti": ti})
    recipes = ["popularity", "als"]

    outcome = nightly_retrain._outcome(ti, recipes)

    assert (outcome.task, outcome.exit_code) == ("train als", 2)
    assert outcome.sentence == "train als failed: 7 GB are missing"
    address = f"{common.run_address(ti)}/tasks/train/mapped/1"
    assert nightly_retrain._log_of(ti, outcome.task, recipes) == {"log of train als": address}


@pytest.mark.usefixtures("variables")
def test_a_problem_of_several_dags_is_one_message_until_a_task_passes(hook: _Hook) -> None:
    problem = {"id": "config.unknown_setting", "sentence": "unknown setting gate.alpa"}

    def ti(dag_id: str, task_id: str) -> Any:
        return SimpleNamespace(
            dag_id=dag_id,
            task_id=task_id,
            run_id="r",
            log_url=f"http://airflow/dags/{dag_id}/runs/r/tasks/{task_id}",
            xcom_pull=lambda task_ids, key: problem,
            xcom_push=lambda key, value: None,
        )

    def fail_all() -> None:
        for dag_id, task_id in PLACES[:2]:
            context: Any = {"ti": ti(dag_id, task_id), "exception": AirflowFailException()}
            alerts.on_failure(NIGHTJAR)(context)
        failed = determine_outcome({"snapshot": "failed"}, {}, {}, {"snapshot": problem | CODE})
        night = ti("nightly_retrain", "report_outcome")
        message = alerts.message(night, "failed", failed.sentence)
        nightly_retrain._post(NIGHTJAR, night, failed, message)

    fail_all()
    fail_all()
    assert len(hook.received) == 1
    for place in PLACES:
        context: Any = {"ti": ti("tune", "search")}
        alerts.on_success(NIGHTJAR)(context)  # it did not report the problem
        fail_all()
        alerts.on_success(NIGHTJAR)({"ti": ti(*place)})  # type: ignore[typeddict-item]
        assert alerts._read(NIGHTJAR) == {}
        fail_all()
    assert len(hook.received) == 1 + len(PLACES)


CODE = {"exit_code": 2}


def test_a_success_without_a_problem_takes_no_lock(
    variables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_shared_causes", None)  # any use of it would raise

    alerts.end(NIGHTJAR, "feedback_ingest.ingest.")
    assert variables == {}


def test_a_pass_whose_ingest_failed_finds_no_error_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(monkeypatch, Workspace.init(tmp_path / "ws").home, "[gate\n")
    ti = SimpleNamespace(xcom_pull=lambda task_ids: None)
    place = "airflow.sdk.definitions._internal.contextmanager._CURRENT_CONTEXT"
    monkeypatch.setattr(place, [{"ti": ti}])

    with pytest.raises(AirflowSkipException):
        FEEDBACK.get_task("attribution").python_callable()
    assert "ingest" in FEEDBACK.get_task("drift").upstream_task_ids


@pytest.mark.parametrize(("status", "is_red"), [("failed", True), ("refresh", False)])
def test_a_run_whose_workspace_cannot_be_opened_has_a_headline(
    status: str, is_red: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(monkeypatch, Workspace.init(tmp_path / "ws").home, "[gate\n")
    started = {nightly_task.STARTED: {"run_id": "20240101T000000Z-1a2b3c4d"}}
    ti = SimpleNamespace(xcom_pull=lambda task_ids, key: started[key])
    monkeypatch.setattr(nightly_task, "get_current_context", lambda: {"ti": ti})
    outcome = RunOutcome(status, "gate: nightjar.toml is no TOML", is_red, exit_code=2)

    headline = nightly_retrain._headline(NIGHTJAR, outcome, "RESTART")

    assert headline.fact == outcome.sentence
    assert ("RESTART" in headline.todo) == is_red


@pytest.mark.parametrize(
    ("outcome", "fact", "line"),
    [
        (RunOutcome("refresh", "s", False, 0), "Live: als", "Live: als."),
        (RunOutcome("keep", "s", False, 0), "few", "The live lists stay: few. Decision: keep."),
        (
            RunOutcome("block", "s", True, 5, "block"),
            "worse",
            "Blocked, the live lists stay: worse. Decision: block.",
        ),
        (
            RunOutcome("failed", "validate failed: 0 events", True, 3, "x", "validate"),
            "0 events",
            "validate failed: 0 events.",
        ),
    ],
)
def test_the_note_of_a_run_begins_with_its_result(
    outcome: RunOutcome, fact: str, line: str
) -> None:
    assert nightly_retrain._first_line(outcome, Headline("act", "news", "DO.", fact)) == line


DUE_BY_HAND = datetime(2026, 11, 30, 18, 16, 33, 160388, tzinfo=UTC)
ID = f"manual__{DUE_BY_HAND.isoformat()}"


def test_the_address_of_a_run_is_the_one_that_the_pages_link_to() -> None:
    root = "http://127.0.0.1:8080/dags/nightly_retrain/runs"
    # Airflow's own property encodes what its pages do not.
    log_url = f"{root}/{quote(ID)}/tasks/snapshot?try_number=1"
    ti = SimpleNamespace(run_id=ID, log_url=log_url)
    assert common.run_address(ti) == f"{root}/{ID}"
    assert common.run_address(SimpleNamespace(run_id="a <b>", log_url=log_url)).endswith(
        "a%20%3Cb%3E"
    )


@pytest.mark.parametrize(
    ("run_id", "conf", "shown"),
    [
        (ID, {"as_of": None, "recipes": None, "publish": True}, ""),
        (ID, {"as_of": "2017-12-29T09:00:00Z", "recipes": []}, "2017-12-29T09:00:00Z"),
        (ID, {"recipes": ["als", "blend"], "publish": False}, "als+blend"),
        (ID, {"begin": "2017-12-01", "schedules": ["never"]}, "2017-12-01_never"),
        (ID, {"recipe": "é/../<b>@x"}, "-b-x"),
    ],
)
def test_the_id_of_a_manual_run_has_the_values_of_its_form(
    run_id: str, conf: dict[str, Any], shown: str
) -> None:
    run = DagRun(
        run_id=run_id, conf=conf, run_after=DUE_BY_HAND, triggered_by=DagRunTriggeredByType.UI
    )

    own = run_id.removeprefix("manual__")
    assert run.run_id == (f"manual__{shown}__{own}" if shown else run_id)
    assert len(run_id_plugin.describe(run_id, {"recipe": "x" * 999})) < 200


@pytest.mark.parametrize(
    ("run_id", "by"),
    [
        ("manual__mine", DagRunTriggeredByType.UI),
        ("manual__2026-11-30T18:16:33+00:00", DagRunTriggeredByType.UI),
        (ID, DagRunTriggeredByType.REST_API),
        (ID, DagRunTriggeredByType.OPERATOR),
        (ID, DagRunTriggeredByType.TEST),
        (ID, None),
    ],
)
def test_an_id_that_a_user_or_a_client_has_chosen_stays(
    run_id: str, by: DagRunTriggeredByType | None
) -> None:
    conf = {"recipe": "als"}
    run = DagRun(run_id=run_id, conf=conf, run_after=DUE_BY_HAND, triggered_by=by)

    assert run.run_id == run_id


def test_the_line_of_a_problem_names_the_live_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path))
    assert problems.live_text(NIGHTJAR) == "No lists are live yet"
    (tmp_path / "ledger.jsonl").write_text("damaged\n")

    assert problems.live_text(NIGHTJAR) == "The lists that were live stay live"


DUE = datetime(2026, 3, 10, 3, tzinfo=UTC)
DAY_BEFORE = (-24.0, "success", -24.0)


@pytest.mark.parametrize(
    ("nights", "toml", "paused", "end"),
    [
        ([], "", False, None),  # a new installation
        ([DAY_BEFORE], "", False, "did not start"),
        ([DAY_BEFORE], "", True, None),
        ([DAY_BEFORE], 'mode = "adaptive"', False, None),
        ([DAY_BEFORE], 'mode = "both"', False, "did not start"),
        ([DAY_BEFORE, (0, "queued", None)], "", False, "did not start"),
        ([(0, "running", 0)], "", False, "is not over after 3 hours"),
        ([DAY_BEFORE, (0, "success", 0)], "", False, None),
        ([DAY_BEFORE, (0, "failed", 0)], "", False, None),  # its last task has reported it
        # Unpaused later: Airflow starts the night that was due last.
        ([(-48, "success", -48)], "", False, None),
        ([DAY_BEFORE, (0, "running", 3.5)], "", False, None),
        # The cron was moved after its new time.
        ([(0, "success", 0)], 'cron = "30 3 * * *"', False, None),
        ([(0, "success", 0), (0.5, "running", 3.5)], 'cron = "30 3 * * *"', False, None),
        ([DAY_BEFORE], 'cron = "0 4 * * *"\ntimezone = "Europe/Berlin"', False, "did not start"),
    ],
)
def test_a_night_that_is_late_or_never_started(
    nights: list[tuple[float, str, float | None]],
    toml: str,
    paused: bool,
    end: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "nightjar.toml").write_text(f"[schedule]\n{toml}\n")
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path))
    ti = _airflow(nights, monkeypatch, paused=paused)

    sentence = late_night(NIGHTJAR, ti, DUE + timedelta(hours=3, minutes=45))

    assert (sentence is None) == (end is None)
    assert end is None or (sentence or "").endswith(end)
    # Not late yet: the night before is over, or was never due.
    if DAY_BEFORE in nights:
        assert late_night(NIGHTJAR, ti, DUE + timedelta(hours=2)) is None


def _airflow(
    nights: list[tuple[float, str, float | None]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    paused: bool = False,
) -> Any:
    """Return a task instance of an Airflow with nights: hour since `DUE`, state, hour of start."""
    runs = [
        SimpleNamespace(
            logical_date=DUE + timedelta(hours=hour),
            state=state,
            start_date=None if start is None else DUE + timedelta(hours=start),
        )
        for hour, state, start in nights
    ]

    def previous(msg: Any) -> Any:
        assert msg.dag_id == "nightly_retrain"
        before = [run for run in runs if run.logical_date < msg.logical_date]
        return SimpleNamespace(dag_run=before[-1] if before else None)

    supervisor = SimpleNamespace(send=previous)
    monkeypatch.setattr(
        "airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, raising=False
    )
    return SimpleNamespace(
        get_dag=lambda dag_id: SimpleNamespace(is_paused=paused),
        get_dr_count=lambda dag_id, logical_dates=None, states=None: sum(
            run.logical_date in (logical_dates or [run.logical_date])
            and run.state in (states or [run.state])
            for run in runs
        ),
    )


def test_a_task_keeps_the_note_of_its_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: dict[str, str] = {common.NOTE: "the night of 03:00 UTC did not start"}
    ti = SimpleNamespace(
        task_id="ingest",
        xcom_pull=lambda task_ids, key: notes.get(key),
        xcom_push=lambda key, value: notes.update({key: value}),
    )
    monkeypatch.setattr(common, "get_current_context", lambda: {"ti": ti})

    common.leave_note("2 files")
    assert notes[common.NOTE] == "the night of 03:00 UTC did not start\n2 files"


def test_a_pass_measures_lateness_at_its_own_instant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTJAR_HOME", str(tmp_path))
    notes: list[str] = []
    ti = _airflow([DAY_BEFORE], monkeypatch)
    ti.xcom_push = lambda key, value: notes.append(value)
    ti.log_url, ti.dag_id, ti.run_id = "http://airflow", "feedback_ingest", "r"
    run = SimpleNamespace(run_after=DUE + timedelta(hours=4))

    watch_nights(NIGHTJAR)({"ti": ti, "dag_run": run})  # type: ignore[typeddict-item]

    assert notes == ["the night of 2026-03-10 03:00 UTC did not start"]


class _Ti:
    """Task instance for which the gate has left a value."""

    id = "0190"

    def __init__(self, value: Any) -> None:
        self._value = value

    def xcom_pull(self, task_ids: str) -> Any:
        assert task_ids == "gate"
        return self._value


def test_the_review_is_skipped_if_the_gate_requests_none() -> None:
    decision = {"kind": "refresh", "sentence": "x", "review": False}

    with pytest.raises(AirflowSkipException, match="requests no review"):
        NIGHTLY.get_task("review").execute({"ti": _Ti(decision)})


@pytest.mark.parametrize(
    ("chosen", "user", "name"),
    [
        (review.SWITCH, {"id": "1", "name": "Ada"}, "Ada"),
        (review.KEEP, {"id": "1", "name": "Ada"}, None),
        (review.KEEP, None, None),  # no answer in time
    ],
)
def test_only_a_user_switches(chosen: str, user: Any, name: str | None) -> None:
    at = datetime(2024, 3, 11, tzinfo=UTC)
    event = {"chosen_options": [chosen], "params_input": {}, "responded_at": at}

    answer = NIGHTLY.get_task("review").execute_complete({}, {**event, "responded_by_user": user})

    assert review.approved_by(answer) == name
    assert review.approved_by(None) is None
