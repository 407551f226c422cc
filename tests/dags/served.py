"""A real Airflow for tests: the servers of `make ui` over a workspace, and the REST API."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import psutil

from dags.local import environment
from tests.dags.conftest import ROOT

Seen = TypeVar("Seen")
_SIGNAL_AT_PARENTS_DEATH = 1  # Linux's PR_SET_PDEATHSIG


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """The servers of `make ui`, and their output so far."""

    home: Path
    port: int
    mlflow_port: int
    process: subprocess.Popen[str]
    output: str = ""
    token: str = ""

    @property
    def passwords(self) -> tuple[str, str]:
        """The passwords of Airflow and of MLflow in the printed addresses."""
        airflow, mlflow = re.findall(r"http://127\.0\.0\.1:\d+/\?login=(\S+)", self.output)
        return airflow, mlflow

    @property
    def logs(self) -> Path:
        return environment.airflow_home(self.home) / "logs"

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Call Airflow's REST API, and return the JSON of its response."""
        request = Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", f"/api/v2{path}?{urlencode(query)}")

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/api/v2/dags/{dag_id}", is_paused=False)

    def trigger(self, dag_id: str, **conf: Any) -> str:
        path = f"/api/v2/dags/{dag_id}/dagRuns"
        begun = self.call("POST", path, logical_date=None, conf=conf)
        return str(begun["dag_run_id"])

    def states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a run; a mapped one has its index behind it."""
        instances = self.get(f"{_run(dag_id, run_id)}/taskInstances")["task_instances"]
        return {
            one["task_id"] + (f"_{one['map_index']}" if one["map_index"] >= 0 else ""): one["state"]
            for one in instances
        }

    def processes(self, dag_id: str, run_id: str) -> set[str]:
        """Return the tasks of a run for which Airflow started a process."""
        instances = self.get(f"{_run(dag_id, run_id)}/taskInstances")["task_instances"]
        return {one["task_id"] for one in instances if one["pid"] is not None}

    def events(self, dag_id: str, run_id: str) -> list[Any]:
        """Return the events of assets that started a run; it must have begun."""
        return list(self.get(f"{_run(dag_id, run_id)}/upstreamAssetEvents")["asset_events"])

    def question(self, dag_id: str, run_id: str) -> Any:
        """Wait for the question of the task `review` of a run, and return it."""

        def put() -> bool | None:
            states = self.states(dag_id, run_id)
            assert "failed" not in states.values(), f"{states}; logs: {self.logs}"
            return True if states.get("review") == "awaiting_input" else None

        self.wait(put, lambda: f"question; {self.states(dag_id, run_id)}")
        return self.get(f"{_run(dag_id, run_id)}/taskInstances/review/-1/hitlDetails")

    def answer(self, dag_id: str, run_id: str, option: str) -> None:
        """Answer it, as Airflow's page *Required actions* does, once for each attempt.

        An answer in the same second as the question can reach the scheduler before the message
        that the task's process has ended; Airflow then fails that attempt, and the next one puts
        the question again.
        """

        def received() -> bool | None:
            state = self.states(dag_id, run_id)["review"]
            assert state != "failed", f"the answer was not received; logs: {self.logs}"
            if state == "awaiting_input":
                self.call("PATCH", path, chosen_options=[option], params_input={})
            return True if state == "success" else None

        path = f"/api/v2{_run(dag_id, run_id)}/taskInstances/review/-1/hitlDetails"
        time.sleep(2)
        self.wait(received, lambda: f"receipt of the answer; {self.states(dag_id, run_id)}")

    def end(self, dag_id: str, run_id: str) -> Any:
        """Wait for the end of a run, and return Airflow's record of it."""

        def over() -> Any:
            run = self.get(_run(dag_id, run_id))
            return run if run["state"] in ("success", "failed") else None

        return self.wait(over, lambda: f"end of a run; {self.states(dag_id, run_id)}")

    def wait(
        self, look: Callable[[], Seen | None], what: Callable[[], str], within_s: float = 240
    ) -> Seen:
        """Poll until there is a value; `what` names it in an error."""
        until = time.monotonic() + within_s
        while (seen := look()) is None:
            assert self.process.poll() is None, "the servers have stopped"
            assert time.monotonic() < until, f"no {what()}; logs: {self.logs}"
            time.sleep(0.5)
        return seen

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(environment.database(self.home), timeout=30)

    def family(self) -> list[psutil.Process]:
        """Return all processes of the servers."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def stop(self) -> int:
        """Interrupt the servers, as Ctrl-C does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.output += self.process.communicate(timeout=60)[1]
        return self.process.returncode


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


@contextmanager
def serve(home: Path, settings: dict[str, str]) -> Iterator[Served]:
    """Run `make ui` over the workspace `home`; in the end none of its processes is left."""
    port, mlflow_port = free_port(), free_port()
    own = ("AIRFLOW", "MLFLOW", "NIGHTJAR", "PYTEST")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    options = ("--port", str(port), "--mlflow-port", str(mlflow_port), "--home", str(home))
    process = subprocess.Popen(
        [sys.executable, "-m", "dags.local.ui", *options],
        cwd=ROOT,
        env={**env, "PYTHONPATH": str(ROOT), **settings},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whatever ends the tests ends the servers.
        preexec_fn=partial(ctypes.CDLL(None).prctl, _SIGNAL_AT_PARENTS_DEATH, signal.SIGINT),
    )
    served = Served(home, port, mlflow_port, process)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            served.output += line
            if "Ctrl-C" in line:
                break
        assert process.poll() is None, served.output
        login = {"username": "admin", "password": served.passwords[0]}
        served.token = served.call("POST", "/auth/token", **login)["access_token"]
        yield served
    finally:
        family = served.family()
        try:
            served.stop()
        finally:
            for left in [*family, *served.family()]:
                with suppress(psutil.NoSuchProcess):
                    left.kill()
            process.kill()
            process.wait()
            process.stderr.close()
