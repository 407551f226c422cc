"""Nights of a small shop through the DAGs, in one process, on Airflow's own database."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.dags.conftest import ROOT

pytestmark = pytest.mark.servers

REVIEW = {"review", "accept"}
LATER = {*REVIEW, "refit", "cold_check", "recommend", "publish"}
Summary = dict[str, Any]


def _start(what: str, root: Path) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTEST"))}
    return subprocess.Popen(
        [sys.executable, "tests/dags/nights.py", what, str(root)],
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("some nights")


@pytest.fixture(scope="module")
def nights(root: Path) -> dict[str, Summary]:
    with _start("scenarios", root) as process:
        output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert errors == ""
    summaries: dict[str, Summary] = json.loads(output)
    return summaries


def _with_state(night: Summary, state: str) -> set[str]:
    return {task for task, reached in night["states"].items() if reached == state}


def test_a_pass_over_an_empty_folder_is_green_and_runs_one_task(nights: dict[str, Summary]) -> None:
    for name in ("empty landing", "idle"):
        ended = nights[name]
        assert ended["succeeded"]
        assert _with_state(ended, "success") == {"ingest"}
        assert _with_state(ended, "skipped") == ended["states"].keys() - {"ingest"}


def test_a_pass_that_took_events_in_announces_them(nights: dict[str, Summary]) -> None:
    ended = nights["feedback"]

    assert ended["succeeded"]
    assert ended["result"]["accepted"] > 5000
    assert ended["states"]["announce_events"] == "success"
    assert ended["states"]["request_retrain"] == "skipped"


def test_a_pass_over_a_live_model_folds_in_and_ends_in_a_list(nights: dict[str, Summary]) -> None:
    assert nights["feedback"]["states"]["foldin"] == "skipped"  # nothing is published yet
    ended = nights["folded"]

    assert ended["succeeded"]
    assert ended["states"]["foldin"] == "success"
    assert (ended["publications"], ended["patches"]) == (1, 1)


def test_a_pass_with_a_bad_file_is_red_and_names_it(nights: dict[str, Summary]) -> None:
    ended = nights["bad file"]

    assert not ended["succeeded"]
    assert ended["states"]["ingest"] == "success"
    assert ended["states"]["report_outcome"] == "failed"
    assert "broken.csv" in ended["result"]["problems"][0]


def test_a_first_night_publishes(nights: dict[str, Summary]) -> None:
    ended = nights["first"]

    assert ended["succeeded"]
    assert ended["result"]["status"] == "first"
    assert set(ended["states"].values()) == {"success", "skipped"}
    assert _with_state(ended, "skipped") == REVIEW
    assert {"train_0", "train_4", "report_outcome"} < set(ended["states"])
    assert ended["publications"] == 1
    # MLflow links to this address.
    assert ended["airflow_run"].endswith(f"/dags/nightly_retrain/runs/{ended['run_id']}")


def test_a_second_start_is_already_done(nights: dict[str, Summary]) -> None:
    ended = nights["again"]

    assert ended["succeeded"]
    assert ended["result"]["status"] == "already_done"
    assert ended["result"]["run_id"] == nights["first"]["result"]["run_id"]
    assert _with_state(ended, "success") == {"snapshot", "report_outcome"}
    assert ended["publications"] == 1


def test_silence_is_green(nights: dict[str, Summary]) -> None:
    ended = nights["silence"]

    assert ended["succeeded"]
    assert ended["result"]["status"] == "nothing_to_do"
    assert _with_state(ended, "success") == {"snapshot", "report_outcome"}
    assert ended["publications"] == 1
    assert "ingest newer events, or give an as-of" in ended["result"]["sentence"]


def test_an_as_of_without_a_zone_is_red(nights: dict[str, Summary]) -> None:
    ended = nights["no zone"]

    assert not ended["succeeded"]
    assert "has no time zone" in ended["result"]["sentence"]
    assert ended["result"]["exit_code"] == 2


@pytest.mark.parametrize("night", ["worse", "worse, again"])
def test_a_block_is_red_and_registered(night: str, nights: dict[str, Summary]) -> None:
    ended = nights[night]

    assert not ended["succeeded"]
    assert ended["result"]["status"] == "block"
    assert ended["result"]["sentence"].startswith("block: ")
    assert _with_state(ended, "failed") == {"report_outcome"}
    assert _with_state(ended, "skipped") == LATER
    assert ended["states"]["register"] == "success"
    assert ended["publications"] == 1


def test_a_keep_is_green_and_registered(nights: dict[str, Summary]) -> None:
    ended = nights["few"]

    assert ended["succeeded"]
    assert ended["result"]["status"] == "keep"
    assert _with_state(ended, "skipped") == LATER
    assert ended["states"]["register"] == "success"
    assert ended["publications"] == 1


def test_a_store_that_is_away_is_tried_again_and_then_red(nights: dict[str, Summary]) -> None:
    ended = nights["away"]
    tries = [line for line in nights["lines"] if line.split()[:2] == ["register", "retry"]]

    assert not ended["succeeded"]
    assert ended["result"]["sentence"].startswith("register failed: MLflow")
    assert ended["result"]["exit_code"] == 6
    assert len(tries) == 2


def test_each_task_is_shown_by_name_when_it_begins_and_ends(nights: dict[str, Summary]) -> None:
    shown = [line.split() for line in nights["lines"]]

    for name in ("ingest", "train als", "train popularity", "report_outcome"):
        words = name.split()
        later = shown[shown.index([*words, "begins"]) :]
        assert [*words, "done"] in [line[: len(words) + 1] for line in later]
    waits = [words for words in shown if words[:4] == ["waiting", "to", "try", "register"]]
    assert len(waits) == 2


def test_a_night_goes_on_once_the_store_is_back(nights: dict[str, Summary]) -> None:
    ended = nights["back"]

    assert ended["succeeded"]
    assert ended["result"]["status"] == "refresh"
    assert ended["publications"] == 2


def test_the_webhook_receives_decisions_and_red_nights_alone(nights: dict[str, Summary]) -> None:
    expected = ["first", "no zone", "worse"]  # the same cause is not posted again

    assert [message for message in nights["received"] if message["dag"] == "nightly_retrain"] == [
        {key: value for key, value in nights[night]["result"].items() if key != "exit_code"}
        for night in expected
    ]


def test_the_webhook_receives_red_passes(nights: dict[str, Summary]) -> None:
    (message,) = [one for one in nights["received"] if one["dag"] == "feedback_ingest"]

    assert message["status"] == "failed"
    assert "broken.csv" in message["text"]


def test_a_message_has_a_text_with_the_headline_and_the_address(nights: dict[str, Summary]) -> None:
    for message in nights["received"]:
        assert message["text"].startswith(f"{message['dag']}: {message['status']}. ")
        assert message["text"].endswith(message["url"])
        assert f"/dags/{message['dag']}/runs/manual__" in message["url"]
    first = nights["received"][0]
    assert "lists are live" in first["text"]
    assert "lists are live" not in first["sentence"]


def test_a_run_has_its_as_of_a_note_and_links(nights: dict[str, Summary], root: Path) -> None:
    with sqlite3.connect(root / "airflow" / "airflow" / "airflow.db") as database:
        rows = database.execute(
            "SELECT dag_id, run_id, content"
            " FROM dag_run JOIN dag_run_note ON dag_run.id = dag_run_id"
        ).fetchall()
        links = dict(
            database.execute(
                "SELECT key, value FROM xcom WHERE run_id = ? AND task_id = 'report_outcome'"
                " AND key LIKE '_link%'",
                (nights["first"]["run_id"],),
            ).fetchall()
        )
        extra = database.execute(
            "SELECT extra FROM asset_event WHERE source_dag_id = 'feedback_ingest'"
            " ORDER BY id LIMIT 1"
        ).fetchone()[0]

    as_of = nights["first"]["result"]["as_of"]
    notes = {run_id: text for dag_id, run_id, text in rows if dag_id == "nightly_retrain"}
    passes = {run_id: text for dag_id, run_id, text in rows if dag_id == "feedback_ingest"}
    assert nights["first"]["run_id"] == f"manual__{as_of.replace('Z', '+00:00')}"
    assert nights["again"]["run_id"] == f"manual__{as_of.replace(':00Z', ':01+00:00')}"
    note = notes[nights["first"]["run_id"]]
    assert note.startswith("Live: als; decision first; ")
    assert "\n\nFirst lists are live: " in note
    assert f"\n\nAs of {as_of}. " in note
    assert "[MLflow run](" in note
    assert notes[nights["worse"]["run_id"]].startswith("Blocked, the live lists stay: ")
    no_zone = notes[nights["no zone"]["run_id"]]
    assert no_zone.startswith("snapshot failed: ")
    assert no_zone.count("has no time zone") == no_zone.count("*Clear Dag Run*") == 1
    assert "[log of snapshot](http" in no_zone and "As of" not in no_zone
    assert "[log of register](http" in notes[nights["away"]["run_id"]]
    assert passes[nights["feedback"]["run_id"]].startswith("2 files: ")
    assert passes[nights["bad file"]["run_id"]].startswith("report_outcome failed: broken.csv")
    assert sorted(links) == ["_link_MLflow_run", "_link_model_version", "_link_night_page"]
    assert all(json.loads(value).startswith("http://") for value in links.values())
    assert json.loads(extra)["events"] == nights["feedback"]["result"]["events"]


def test_a_red_task_has_one_line_above_the_traceback(
    nights: dict[str, Summary], root: Path
) -> None:
    logs = root / "airflow" / "airflow" / "logs" / "dag_id=nightly_retrain"
    for night, task, words in (
        ("no zone", "snapshot", ("has no time zone", "Live: version 1 ", "*Clear Dag Run*")),
        ("no zone", "report_outcome", ("snapshot failed: ", "/tasks/snapshot", "*Clear Dag Run*")),
        ("away", "register", ("MLflow", "Live: version 1 ", "Airflow tries again")),
        ("worse", "report_outcome", ("block: ", "Live: version 1 ", "gate accept")),
    ):
        log = logs / f"run_id={nights[night]['run_id']}" / f"task_id={task}" / "attempt=1.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        errors = [line for line in lines if line["level"] == "error"]
        loud = [json.dumps(line) for line in lines if line["level"] in ("warning", "error")]
        assert sum(words[0] in line for line in loud) == 1
        assert all(word in errors[0]["event"] for word in words), errors[0]
        assert len(errors) == 1 or errors[1]["event"] == "Task failed with exception"
        assert len(errors) <= 2
        # The end of a log is what Airflow shows: the line must be on the same screen.
        assert all(len(part["frames"]) <= 6 for part in errors[-1].get("error_detail", ()))


def test_the_pages_find_every_run_and_its_logs(nights: dict[str, Summary], root: Path) -> None:
    folder = root / "airflow" / "airflow"
    run_id = nights["first"]["run_id"]
    with sqlite3.connect(folder / "airflow.db") as database:
        runs = database.execute("SELECT run_id, state FROM dag_run").fetchall()
        (paused,) = database.execute("SELECT min(is_paused) FROM dag").fetchone()
    logs = folder / "logs" / "dag_id=nightly_retrain" / f"run_id={run_id}"

    assert (run_id, "success") in runs
    assert (nights["worse"]["run_id"], "failed") in runs
    assert paused == 1
    gate = (logs / "task_id=gate" / "attempt=1.log").read_text()
    assert nights["first"]["result"]["sentence"] in gate
    assert (logs / "task_id=train" / "map_index=0" / "attempt=1.log").stat().st_size > 0


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A night whose runner was killed, and the result of the next runner."""
    root = tmp_path_factory.mktemp("killed")
    with _start("one-night", root) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if line.split()[:2] == ["features", "done"]:
                os.kill(killed.pid, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    with _start("one-night", root) as second:
        output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    summary: Summary = json.loads(output)
    return root, summary


def _database(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "home" / "airflow" / "airflow.db")


def test_a_killed_runner_is_followed_by_one_that_ends_the_night(
    resumed: tuple[Path, Summary],
) -> None:
    root, ended = resumed

    assert ended["result"]["status"] == "first"
    assert ended["publications"] == 1
    with _database(root) as database:
        rows = database.execute(
            "SELECT state, count(*) FROM dag_run WHERE dag_id = 'nightly_retrain' GROUP BY state"
        ).fetchall()
        running = "SELECT count(*) FROM task_instance WHERE state = 'running'"
        assert database.execute(running).fetchone() == (0,)
    assert sorted(rows) == [("failed", 1), ("success", 1)]


def test_a_runner_does_not_start_beside_a_scheduler(resumed: tuple[Path, Summary]) -> None:
    root, _ = resumed
    with _database(root) as database:
        database.execute("UPDATE dag SET is_paused = 0 WHERE dag_id = 'nightly_retrain'")
        database.execute(
            "INSERT INTO job (job_type, state, latest_heartbeat) VALUES (?, 'running', ?)",
            ("SchedulerJob", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")),
        )

    with _start("one-night", root) as refused:
        _, errors = refused.communicate(timeout=60)

    assert refused.returncode != 0
    assert "a scheduler is running nightly_retrain" in errors
