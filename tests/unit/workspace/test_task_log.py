"""Two log lines for each task, with run, as-of, seconds, rows and result."""

import json
from datetime import UTC, datetime

import pytest
import structlog
from structlog.testing import capture_logs

from pipeline.cli.terminal import Console, configure_logging
from pipeline.errors import GateError
from pipeline.workspace.task_log import at_most_every, task_log

AS_OF = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_a_task_has_a_line_at_its_start_and_one_at_its_end():
    with capture_logs() as lines, task_log("evaluate", AS_OF, run_id="run-1") as log:
        log.rows, log.result = 219, "als 0.3105 (0.2788 to 0.3439), mad 0.0862"
    bound = {"task": "evaluate", "run_id": "run-1", "as_of": "2026-03-01T09:00:00Z"}
    seconds = lines[1].pop("seconds")
    assert 0 <= seconds < 1
    assert lines == [
        {**bound, "event": "task_started", "log_level": "info"},
        {
            **bound,
            "event": "task_finished",
            "log_level": "info",
            "rows": 219,
            "result": "als 0.3105 (0.2788 to 0.3439), mad 0.0862",
        },
    ]


def test_progress_has_the_fields_of_its_task(capsys: pytest.CaptureFixture[str]):
    configure_logging()
    progress = Console(None, json=False).progress
    try:
        with task_log("ingest", AS_OF, run_id="run-1", progress=progress) as log:
            log.progress("reading a.csv")
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["task_started", "progress", "task_finished"]
    bound = {"task": "ingest", "run_id": "run-1", "as_of": "2026-03-01T09:00:00Z"}
    assert all(line.items() >= bound.items() for line in lines)
    assert structlog.contextvars.get_contextvars() == {}


def test_a_run_that_the_task_makes_is_in_the_last_line():
    with capture_logs() as lines, task_log("snapshot", AS_OF) as log:
        log.run_id = "run-2"
    assert [line["run_id"] for line in lines] == ["", "run-2"]


def test_a_failure_is_logged_with_its_sentence():
    with capture_logs() as lines, pytest.raises(GateError), task_log("cold_check", AS_OF):
        raise GateError("gate.other_lists", "other lists")
    assert [line["event"] for line in lines] == ["task_started", "task_failed"]
    assert lines[1]["error"] == "other lists"
    # The caller reports the error, once.
    assert lines[1]["log_level"] == "info"


def test_progress_is_limited(monkeypatch):
    now = iter([0.0, 9.9, 10.0, 10.1])
    monkeypatch.setattr("pipeline.workspace.task_log.time.perf_counter", lambda: next(now))
    texts = []
    limited = at_most_every(10.0, texts.append)
    for text in ("a", "b", "c", "d"):
        limited(text)
    assert texts == ["a", "c"]


def test_progress_beyond_the_limit_is_logged_for_debugging():
    with capture_logs() as lines:
        limited = at_most_every(10.0, lambda text: None)
        for text in ("a", "b"):
            limited(text)
    assert lines == [{"event": "progress", "log_level": "debug", "text": "b"}]
