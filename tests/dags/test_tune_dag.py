"""A search and maintenance through their DAGs, in one process, on Airflow's own database."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dags.conftest import ROOT

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a search")


@pytest.fixture(scope="module")
def ended(root: Path) -> dict[str, Any]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTEST"))}
    ran = subprocess.run(
        [sys.executable, "tests/dags/tuning.py", str(root)],
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
    summaries: dict[str, Any] = json.loads(ran.stdout)
    return summaries


def test_a_better_recipe_becomes_a_candidate_and_is_mirrored(
    ended: dict[str, Any], root: Path
) -> None:
    result = ended["found"]

    assert result["states"] == {"search": "success", "mirror": "success"}
    assert result["result"]["status"] == "candidate"
    assert result["result"]["best"] > result["result"]["start"]
    assert len(result["candidates"]) == 1
    assert (root / "home" / "studies" / result["result"]["study"] / "study.json").is_file()
    assert (root / "home" / "mlflow" / "mlflow.db").is_file()


@pytest.mark.parametrize("bad", ["too long", "no such recipe"])
def test_an_invalid_search_is_red_and_changes_nothing(bad: str, ended: dict[str, Any]) -> None:
    assert not ended[bad]["succeeded"]
    assert ended[bad]["states"] == {"search": "failed", "mirror": "upstream_failed"}
    assert ended[bad]["candidates"] == ended["found"]["candidates"]


@pytest.mark.usefixtures("ended")
def test_a_red_search_has_a_note_with_the_task_and_the_next_step(root: Path) -> None:
    with sqlite3.connect(root / "airflow" / "airflow" / "airflow.db") as database:
        notes = database.execute(
            "SELECT content FROM dag_run JOIN dag_run_note ON dag_run.id = dag_run_id"
            " WHERE state = 'failed'"
        ).fetchall()

    assert len(notes) == 2
    for (note,) in notes:
        assert note.startswith("search failed: ")
        assert "*Clear Dag Run*" in note and "[log of search](http" in note


def test_maintenance_compacts_every_store(ended: dict[str, Any]) -> None:
    maintenance = ended["maintenance"]

    assert maintenance["states"] == {"gc": "success"}
    assert maintenance["result"]["left"] == {}
    [batches] = [table for table in maintenance["result"]["tables"] if table["table"] == "batches"]
    assert (batches["before"], batches["after"]) == (2, 1)
