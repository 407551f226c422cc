"""Runs DAGs in this process, one task after the other, against the database that `make ui` opens.

Promises: what Airflow and the libraries below it say goes into files (a task's words into the file
where Airflow's page looks for them), so that the terminal keeps one line a task; runs that a
killed process left open are closed; an interrupt ends the process at once, which is always safe.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from dags import environment

Say = Callable[[str], None]
"""Shows one line of progress."""


@dataclass(frozen=True)
class Finished:
    """A DAG run that came to its end.

    Attributes
    ----------
    states
        State of each task; a mapped one has its index behind it (``train_0``).
    handed_on
        What the DAG's last words are: the value of the task that was asked for, else ``None``.
    """

    dag_id: str
    run_id: str
    succeeded: bool
    states: dict[str, str]
    handed_on: Any


class _Logs:
    """The stream that all log lines go to: the file of the running task, else the runner's own."""

    def __init__(self, own: Path) -> None:
        own.parent.mkdir(parents=True, exist_ok=True)
        self._own: BinaryIO = own.open("ab", buffering=0)
        self._task: BinaryIO | None = None

    def write(self, data: bytes) -> int:
        return (self._task or self._own).write(data)

    def flush(self) -> None:
        (self._task or self._own).flush()

    def fileno(self) -> int:
        return self._own.fileno()

    def begin(self, path: Path) -> None:
        self.end()
        self._task = path.open("ab", buffering=0)

    def end(self) -> None:
        if self._task:
            self._task.close()
        self._task = None


class _Progress:
    """Airflow's listener: a task begins (its log file opens) and ends (its line is shown)."""

    def __init__(self, logs: _Logs, say: Say) -> None:
        from airflow.utils.helpers import log_filename_template_renderer

        self._logs, self._say = logs, say
        self._file_name = log_filename_template_renderer()
        self._began = time.monotonic()

    def running(self, task_instance: Any) -> None:
        from airflow.sdk.log import init_log_file

        for number in (signal.SIGINT, signal.SIGTERM):  # Airflow's own SIGTERM handler ends nothing
            signal.signal(number, _stop)
        self._began = time.monotonic()
        name = self._file_name(ti=task_instance, try_number=task_instance.try_number)
        self._logs.begin(init_log_file(name))

    def ended(self, task_instance: Any, outcome: str) -> None:
        self._logs.end()
        name = task_instance.task_id
        if task_instance.map_index >= 0:
            name += f" {task_instance.rendered_map_index or task_instance.map_index}"
        self._say(f"  {name:<28} {outcome:<8} {time.monotonic() - self._began:5.1f} s")


def _listener(progress: _Progress) -> object:
    from airflow.listeners import hookimpl

    class Listener:
        @hookimpl
        def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
            progress.running(task_instance)

        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
            progress.ended(task_instance, "done")

        @hookimpl
        def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
            progress.ended(task_instance, "skipped")

        @hookimpl
        def on_task_instance_failed(
            self, previous_state: Any, task_instance: Any, error: Any
        ) -> None:
            retried = task_instance.state == "up_for_retry"
            progress.ended(task_instance, "again" if retried else "FAILED")

    return Listener()


class Runner:
    """Airflow in this process; made by `airflow`."""

    def run(self, dag_id: str, conf: Mapping[str, Any], *, ask: str) -> Finished:
        """Run a DAG to its end, and ask one of its tasks for what it handed on.

        Failures of tasks do not raise: look at `Finished.succeeded`.
        """
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        # A freshly parsed DAG: its params remember what the run before was given. A logical date
        # of its own: without one, `test` replaces the run before.
        run = load_dags()[dag_id].test(run_conf=dict(conf), logical_date=datetime.now(UTC))
        with create_session() as session:
            states = {
                ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}": str(ti.state)
                for ti in run.get_task_instances(session=session)
            }
            value = session.scalars(
                XComModel.get_many(
                    run_id=run.run_id, key="return_value", task_ids=ask, dag_ids=dag_id
                )
            ).first()
            handed_on = None if value is None else XComModel.deserialize_value(value)
        return Finished(dag_id, run.run_id, run.state == "success", states, handed_on)


@contextmanager
def airflow(home: Path, say: Say) -> Iterator[Runner]:
    """Open Airflow over the workspace `home`, quietly; `say` is handed one line a task.

    While it is open, the process's stdout and stderr go to `log_file`.
    """
    environment.apply(home)
    logs = _Logs(log_file(home))
    with _only_one(home), _redirected(logs.fileno()):
        environment.set_up(home)

        from airflow.sdk.listener import get_listener_manager
        from airflow.sdk.log import configure_logging

        configure_logging(json_output=True, output=logs)
        get_listener_manager().add_listener(_listener(_Progress(logs, say)))
        sys.excepthook = sys.__excepthook__  # Airflow's would log what ends this process
        dags = load_dags()
        _require_to_ourselves(dags)
        _close_left_over(dags)
        yield Runner()


def log_file(home: Path) -> Path:
    """Return where everything goes that no task said."""
    return environment.airflow_home(home) / "logs" / "runner.log"


def load_dags() -> dict[str, Any]:
    """Parse the DAGs of this folder; a file that cannot be parsed raises `RuntimeError`."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(environment.ROOT / "dags")
    if bag.import_errors:
        raise RuntimeError("; ".join(bag.import_errors.values()))
    return dict(bag.dags)


def _require_to_ourselves(dags: Mapping[str, Any]) -> None:
    """Refuse to run beside a scheduler that would run the same tasks."""
    from airflow.jobs.job import most_recent_job
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        scheduler = most_recent_job("SchedulerJob", session=session)
        if scheduler is None or not scheduler.is_alive():
            return
        switched_on = session.scalars(
            select(DagModel.dag_id).where(DagModel.dag_id.in_(dags), DagModel.is_paused.is_(False))
        ).all()
    if switched_on:
        from pipeline.errors import ConcurrencyError

        raise ConcurrencyError(
            f"a scheduler is at work on {' and '.join(sorted(switched_on))}: "
            "pause it on Airflow's page, or stop `make ui`"
        )


def _close_left_over(dags: Mapping[str, Any]) -> None:
    """Fail the runs of killed runners: nobody would ever finish them."""
    from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
    from airflow.models.dagrun import DagRun
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType
    from sqlalchemy import select

    with create_session() as session:
        left = session.scalars(
            select(DagRun).where(
                DagRun.state == "running",
                DagRun.triggered_by == DagRunTriggeredByType.TEST,
                DagRun.dag_id.in_(dags),
            )
        ).all()
        for run in left:
            dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dags[run.dag_id]))
            set_dag_run_state_to_failed(dag=dag, run_id=run.run_id, commit=True, session=session)


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (environment.airflow_home(home) / "runner.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            from pipeline.errors import ConcurrencyError

            raise ConcurrencyError(f"another runner is at work in {home}") from None
        yield


@contextmanager
def _redirected(target: int) -> Iterator[None]:
    """Send what this process and its children print to a file, below Python's own streams."""
    kept = {number: os.dup(number) for number in (1, 2)}
    sys.stdout.flush()
    sys.stderr.flush()
    for number in kept:
        os.dup2(target, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _stop(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
