"""Runs searches, then maintenance, through their DAGs; prints their results for `test_tune_dag`."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from dags.local import runner
from dags.local.activity import ActivityDisplay
from pipeline.base import format_instant
from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.workspace import Workspace
from tests.worlds import CONFIG, NIGHTS, land, purchases


def _summary(run: runner.FinishedRun, home: Path) -> dict[str, Any]:
    entries = Workspace.open(home).ledger.entries()
    return {
        "succeeded": run.succeeded,
        "states": run.states,
        "result": run.result,
        "candidates": [e["recipe"] for e in entries if e["type"] == "candidate"],
    }


def main(root: Path) -> None:
    home = root / "home"
    ws = Workspace.init(home, CONFIG)
    land(home, purchases(), NIGHTS[1])
    feedback(ws, NIGHTS[1])
    conf = {"as_of": format_instant(NIGHTS[1]), "recipe": "mad", "budget": "8s"}
    ended = {}
    with runner.airflow(root / "airflow", ActivityDisplay(io.StringIO())) as airflow:
        os.environ["NIGHTJAR_HOME"] = str(home)
        for name, given in (
            ("found", conf),
            ("too long", {**conf, "budget": "2h"}),
            ("no such recipe", {**conf, "recipe": "missing"}),
        ):
            ended[name] = _summary(airflow.run("tune", given, result_task="search"), home)
        ended["maintenance"] = _summary(airflow.run("maintenance", {}, result_task="gc"), home)
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
