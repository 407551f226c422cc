"""Cases that import Airflow; `test_dag_files` runs them in a process of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

from dags import ask, common, runner, webhook
from pipeline.errors import ConfigError

DAGS = runner.load_dags()
NIGHTLY, FEEDBACK, TUNE = DAGS["nightly_retrain"], DAGS["feedback_ingest"], DAGS["tune"]
UPKEEP = DAGS["maintenance"]
TASKS = [task for dag in DAGS.values() for task in dag.tasks]


def _edges(dag: Any) -> list[tuple[str, str]]:
    return sorted((task.task_id, after) for task in dag.tasks for after in task.downstream_task_ids)


def test_there_are_five_dags() -> None:
    names = ["backtest", "feedback_ingest", "maintenance", "nightly_retrain", "tune"]
    assert sorted(DAGS) == names


def test_the_nights_edges() -> None:
    assert _edges(NIGHTLY) == [
        ("accept", "refit"),
        ("ask", "accept"),
        ("cold_check", "register"),
        ("evaluate", "gate"),
        ("features", "train"),
        ("gate", "ask"),
        ("publish", "verdict"),
        ("recommend", "publish"),
        ("refit", "cold_check"),
        ("register", "recommend"),
        ("snapshot", "train"),
        ("snapshot", "validate"),
        ("train", "evaluate"),
        ("validate", "features"),
    ]


def test_the_passs_edges() -> None:
    assert _edges(FEEDBACK) == [
        ("answers", "drift"),
        ("drift", "policy"),
        ("foldin", "answers"),
        ("foldin", "verdict"),
        ("ingest", "announce_events"),
        ("ingest", "foldin"),
        ("ingest", "verdict"),
        ("policy", "request_retrain"),
    ]


def test_a_search_is_mirrored_by_a_task_of_its_own_and_started_by_hand() -> None:
    assert _edges(TUNE) == [("search", "mirror")]
    assert not TUNE.timetable.can_be_scheduled


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.dag_id}.{task.task_id}")
def test_a_task_says_who_how_often_how_long_and_what(task: Any) -> None:
    assert task.owner == "nightjar"
    assert task.retries == (0 if task.task_id == "verdict" else 2)
    # What upkeep finds held is a pass, or another command at work, and takes longer.
    assert task.retry_delay == timedelta(minutes=10 if task.task_id == "gc" else 1)
    if task.task_id == "ask":  # it waits for a person, and works no second
        assert task.execution_timeout is None
        assert task.response_timeout == timedelta(hours=4)
    else:
        assert timedelta(0) < task.execution_timeout <= timedelta(hours=2)
    assert task.doc_md


def test_what_may_fill_the_machine_runs_one_at_a_time() -> None:
    pooled = sorted(task.task_id for task in TASKS if task.pool != "default_pool")

    assert pooled == ["evaluate", "live_through", "refit", "search", "train"]
    assert {task.pool for task in TASKS} - {"default_pool"} == set(common.POOLS)
    assert common.POOLS[common.HEAVY_POOL][0] == 1


def test_the_tasks_that_run_after_something_was_skipped_or_failed() -> None:
    rules = {
        (t.dag_id, t.task_id): t.trigger_rule.value
        for t in TASKS
        if t.trigger_rule != "all_success"
    }

    assert rules == {
        ("feedback_ingest", "answers"): "all_done",
        ("feedback_ingest", "drift"): "none_failed",
        ("feedback_ingest", "foldin"): "none_failed",
        ("feedback_ingest", "policy"): "none_failed",
        ("feedback_ingest", "verdict"): "none_failed",
        ("nightly_retrain", "evaluate"): "none_failed_min_one_success",
        ("nightly_retrain", "refit"): "none_failed",
        ("nightly_retrain", "register"): "none_failed",
        ("nightly_retrain", "verdict"): "all_done",
    }


@pytest.mark.parametrize("dag", DAGS.values(), ids=lambda dag: dag.dag_id)
def test_a_dag_starts_paused_alone_and_without_catching_up(dag: Any) -> None:
    assert dag.is_paused_upon_creation
    assert dag.max_active_runs == 1
    assert not dag.catchup
    assert "nightjar" in dag.tags
    assert dag.doc_md.strip().startswith(("Retrain", "Take in", "Search", "Keep", "Live"))


@pytest.mark.parametrize("dag", DAGS.values(), ids=lambda dag: dag.dag_id)
def test_a_dag_survives_serialisation(dag: Any) -> None:
    stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    again = DagSerialization.from_dict(stored)

    assert _edges(again) == _edges(dag)


@pytest.mark.parametrize(("dag", "every"), [(NIGHTLY, 24 * 60), (UPKEEP, 24 * 60), (FEEDBACK, 5)])
def test_unpausing_starts_no_run_of_the_past(dag: Any, every: int) -> None:
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    before = datetime.now(UTC)

    following = scheduled.timetable.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(earliest=None, latest=None, catchup=False),
    )

    assert before < following.run_after <= before + timedelta(minutes=every, seconds=5)


def test_the_night_is_started_by_the_cron_or_by_the_asset() -> None:
    schedule = NIGHTLY.timetable

    assert schedule.timetable.expression == "0 3 * * *"
    assert str(schedule.timetable.timezone) in ("UTC", "Timezone('UTC')")
    assert [asset.name for asset in schedule.asset_condition.objects] == [
        "nightjar_retrain_requested"
    ]


def test_assets_are_emitted_by_tasks_that_can_be_skipped() -> None:
    outlets = {task.task_id: [asset.name for asset in task.outlets] for task in FEEDBACK.tasks}

    assert outlets == {
        "ingest": [],
        "foldin": [],
        "answers": [],
        "drift": [],
        "policy": [],
        "announce_events": ["nightjar_events"],
        "request_retrain": ["nightjar_retrain_requested"],
        "verdict": [],
    }


def test_params_are_typed_and_described() -> None:
    params = {name: param for dag in DAGS.values() for name, param in dag.params.items()}

    for param in params.values():
        assert param.schema["type"]
        assert param.schema["title"]
        assert param.description.endswith(".")
    assert {n: p.value for n, p in params.items()} == {
        "as_of": None,
        "at": None,
        "begin": "2017-11-01T09:00:00Z",
        "budget": "20m",
        "end": "2017-12-01T09:00:00Z",
        "every": "1d",
        "plant_shift": None,
        "policies": ["nightly", "weekly", "adaptive", "never"],
        "publish": True,
        "recipe": None,
        "recipes": None,
    }
    night = dict(NIGHTLY.params.items())
    assert "2017-12-29T09:00:00Z" in night["as_of"].description


def _context(
    *, as_of: str | None = None, at: str | None = None, interval_end: datetime | None = None
) -> Any:
    run = SimpleNamespace(
        data_interval_end=interval_end, run_after=datetime(2026, 1, 2, tzinfo=UTC)
    )
    return {"params": {"as_of": as_of, "at": at}, "dag_run": run}


def test_a_given_as_of_wins() -> None:
    context = _context(as_of="2017-12-29T10:00:00+01:00", interval_end=datetime.now(UTC))

    assert common.resolve_as_of(context) == datetime(2017, 12, 29, 9, tzinfo=UTC)


def test_a_scheduled_night_ends_with_its_data_interval() -> None:
    end = datetime(2026, 1, 1, 3, tzinfo=UTC)

    assert common.resolve_as_of(_context(interval_end=end)) == end


def test_a_night_that_an_asset_triggered_has_only_its_run_after() -> None:
    assert common.resolve_as_of(_context()) == datetime(2026, 1, 2, tzinfo=UTC)


def test_an_as_of_in_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="2026-01-02T00:00:01Z lies in the future"):
        common.resolve_as_of(_context(as_of="2026-01-02T00:00:01Z"))


@pytest.mark.parametrize(
    ("kind", "asked"), [("asset_triggered", True), ("scheduled", False), ("manual", False)]
)
def test_only_an_assets_event_is_a_request(kind: str, asked: bool) -> None:
    from airflow.sdk.api.datamodels._generated import DagRunType

    context: Any = {"dag_run": SimpleNamespace(run_type=DagRunType(kind))}

    assert common.was_asked_for(context) is asked


@pytest.mark.parametrize("text", ["2017-12-29T09:00:00", "yesterday"])
def test_an_as_of_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as"):
        common.resolve_as_of(_context(as_of=text))


def test_a_pass_is_dated_when_it_is_due_whatever_its_interval() -> None:
    context = _context(interval_end=datetime(2026, 1, 1, 3, tzinfo=UTC))

    assert common.resolve_at(context) == datetime(2026, 1, 2, tzinfo=UTC)
    assert common.resolve_at(_context(at="2017-12-01T09:00:00Z")).year == 2017


def test_a_pass_in_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="at = 2026-01-02T00:00:01Z lies in the future"):
        common.resolve_at(_context(at="2026-01-02T00:00:01Z"))


def test_the_workspace_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTJAR_HOME", "/somewhere")
    assert str(common.home()) == "/somewhere"

    monkeypatch.delenv("NIGHTJAR_HOME")
    assert common.home().name == "var"


class _Hook(HTTPServer):
    """Answers every POST with `status`, and remembers it."""

    def __init__(self) -> None:
        self.status = 200
        self.heard: list[tuple[str, str | None, Any]] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


class _Answer(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = (self.path, self.headers["Authorization"], json.loads(body))
        self.server.heard.append(said)
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


def test_without_a_connection_nobody_is_told() -> None:
    assert webhook.post(MESSAGE) is False


def test_the_webhook_hears_the_message(monkeypatch: pytest.MonkeyPatch, hook: _Hook) -> None:
    connection = {"conn_type": "http", "host": hook.address, "password": "token"}
    _connect(monkeypatch, json.dumps(connection))

    assert webhook.post(MESSAGE) is True
    assert hook.heard == [("/secret-path", "Bearer token", MESSAGE)]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_is_no_yes_fails_nothing_and_leaks_nothing(
    status: int, monkeypatch: pytest.MonkeyPatch, hook: _Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.status = status
    _connect(monkeypatch, hook.address)

    assert webhook.post(MESSAGE) is False
    assert len(hook.heard) == 1
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
def test_an_address_that_cannot_be_reached_fails_nothing_and_leaks_nothing(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _connect(monkeypatch, json.dumps({"conn_type": "http", "host": address}))

    assert webhook.post(MESSAGE) is False
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
def test_what_address_a_connection_means(connection: Connection, address: str) -> None:
    assert webhook.address(connection) == address


class _Ti:
    """A task instance that others have left a value for."""

    id = "0190"

    def __init__(self, value: Any) -> None:
        self._value = value

    def xcom_pull(self, task_ids: str) -> Any:
        assert task_ids == "gate"
        return self._value


def test_nobody_is_asked_where_there_is_no_question() -> None:
    decided = {"kind": "refresh", "sentence": "x", "ask": False}

    with pytest.raises(AirflowSkipException, match="nothing to ask"):
        NIGHTLY.get_task("ask").execute({"ti": _Ti(decided)})


@pytest.mark.parametrize(
    ("chosen", "user", "who"),
    [
        (ask.SWITCH, {"id": "1", "name": "Ada"}, "Ada"),
        (ask.KEEP, {"id": "1", "name": "Ada"}, None),
        (ask.KEEP, None, None),  # nobody answered in time
    ],
)
def test_only_a_person_switches(chosen: str, user: Any, who: str | None) -> None:
    at = datetime(2024, 3, 11, tzinfo=UTC)
    event = {"chosen_options": [chosen], "params_input": {}, "responded_at": at}

    answer = NIGHTLY.get_task("ask").execute_complete({}, {**event, "responded_by_user": user})

    assert ask.who_switches(answer) == who
    assert ask.who_switches(None) is None
