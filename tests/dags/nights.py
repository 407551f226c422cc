"""Runs nights of a small shop through the DAGs and prints their results as JSON.

`test_nights` starts this in a process of its own, and reads its output.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import polars as pl

from dags.local import runner
from pipeline.base import format_instant
from pipeline.workspace.workspace import Workspace
from tests.worlds import CONFIG, NIGHTS, catalogue, land, purchases

FIRST, SECOND, _ = NIGHTS


class Shop:
    """One workspace; the DAGs work in it while it is open."""

    def __init__(self, airflow: runner.Runner, home: Path) -> None:
        self.airflow, self.home = airflow, home
        os.environ["NIGHTJAR_HOME"] = str(home)

    def land(self, events: pl.DataFrame, until: datetime, since: datetime | None = None) -> None:
        land(self.home, events, until, since)

    def feedback(self, at: datetime) -> dict[str, Any]:
        conf = {"at": format_instant(at)}
        run = self.airflow.run("feedback_ingest", conf, result_task="ingest")
        return _summary(run, self.home)

    def night(self, as_of: datetime | str, **params: Any) -> dict[str, Any]:
        instant = as_of if isinstance(as_of, str) else format_instant(as_of)
        conf = {"as_of": instant, **params}
        run = self.airflow.run("nightly_retrain", conf, result_task="report_outcome")
        return _summary(run, self.home)

    def copy(self, name: str) -> Shop:
        shutil.copytree(self.home, self.home.with_name(name))
        return Shop(self.airflow, self.home.with_name(name))


def _summary(run: runner.FinishedRun, home: Path) -> dict[str, Any]:
    bases = Workspace.open(home).lake.read("publications")["base"]
    return {
        "succeeded": run.succeeded,
        "states": run.states,
        "result": run.result,
        "publications": bases.null_count(),
        "patches": bases.count(),
        "run_id": run.run_id,
    }


def _scenarios(airflow: runner.Runner, root: Path, received: list[Any]) -> dict[str, Any]:
    ended: dict[str, Any] = {}
    events = purchases()
    Workspace.init(root / "shop", CONFIG)
    shop = Shop(airflow, root / "shop")
    ended["empty landing"] = shop.feedback(FIRST)
    catalogue(shop.home)
    shop.land(events, FIRST)
    ended["feedback"] = shop.feedback(FIRST)
    ended["first"] = shop.night(FIRST)
    ended["again"] = shop.night(FIRST)
    ended["silence"] = shop.night(FIRST + timedelta(days=60))
    ended["no zone"] = shop.night("2024-03-11T09:00:00")

    bad = shop.copy("a bad file")
    broken = bad.home / "landing" / "events" / "broken.csv"
    broken.write_text("event_id,user_id\n1,2\n")
    os.utime(broken, (FIRST.timestamp(), FIRST.timestamp()))
    ended["bad file"] = bad.feedback(SECOND)

    changed = shop.copy("changed tastes")
    changed.land(purchases(tastes=1, seed=7), SECOND, FIRST)
    ended["folded"] = changed.feedback(SECOND)
    ended["idle"] = changed.feedback(SECOND)
    ended["worse"] = changed.night(SECOND)
    ended["worse, again"] = changed.night(SECOND)
    ended["received"] = list(received)

    quiet = Shop(airflow, shop.home).copy("few users")
    # Above half of the users, so that the check of activity passes.
    few = [f"u{n}" for n in range(320) if n % 5 < 3]
    toml = quiet.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace("[split]", "[split]\nholdout_days_options = [7]"))
    quiet.land(events.filter(pl.col("user_id").is_in(few)), SECOND, FIRST)
    quiet.feedback(SECOND)
    ended["few"] = quiet.night(SECOND)

    away = Shop(airflow, shop.home).copy("registry away")
    away.land(events, SECOND, FIRST)
    away.feedback(SECOND)
    shutil.move(away.home / "mlflow", away.home / "elsewhere")
    (away.home / "mlflow").write_text("in the way")
    ended["away"] = away.night(SECOND)
    (away.home / "mlflow").unlink()
    shutil.move(away.home / "elsewhere", away.home / "mlflow")
    ended["back"] = away.night(SECOND)
    return ended


@contextmanager
def _hook() -> Iterator[list[Any]]:
    received: list[Any] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        address = f"http://127.0.0.1:{server.server_port}/night"
        os.environ["AIRFLOW_CONN_NIGHTJAR_WEBHOOK"] = address
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


def _retry_at_once() -> None:
    parse = runner.load_dags

    def impatient() -> dict[str, Any]:
        dags = parse()
        for dag in dags.values():
            for task in dag.tasks:
                if not task.is_mapped:
                    task.retry_delay = timedelta(0)
        return dags

    runner.load_dags = impatient


def _one_night(root: Path, write: runner.ProgressWriter) -> dict[str, Any]:
    """Start or resume the first night; `write` gets a line when a task ends."""
    Workspace.init(root / "home", CONFIG)
    with runner.airflow(root / "home", write) as airflow:
        shop = Shop(airflow, root / "home")
        shop.land(purchases(), FIRST)
        shop.feedback(FIRST)
        return shop.night(FIRST)


def main(mode: str, root: Path) -> None:
    _retry_at_once()
    if mode == "one-night":
        with os.fdopen(os.dup(2), "w", buffering=1) as terminal:
            print(json.dumps(_one_night(root, lambda line: print(line, file=terminal))))
        return
    lines: list[str] = []
    with _hook() as received, runner.airflow(root / "airflow", lines.append) as airflow:
        ended = _scenarios(airflow, root, received)
    print(json.dumps({**ended, "lines": lines}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
