"""Runs DAGs in this process, one task after the other, on the database that `make ui` opens.

Guarantees:

* All output of Airflow and of libraries goes to files, that of a task to the file that Airflow's
  page shows; the terminal gets the lines of `ActivityDisplay`. A task's progress is the text that
  it logs.
* Runs that a killed process left unfinished are marked as failed.
* An interrupt ends the process at once, which is always safe, and prints how to continue.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final, NoReturn

from dags.local import environment
from dags.local.activity import ActivityDisplay

_OF_TASK: Final = b'"logger":"airflow.task"'
"""In the log lines that the tasks of `dags` write."""


@dataclass(frozen=True)
class FinishedRun:
    """DAG run that ended.

    Attributes
    ----------
    states
        State of each task; the name of a mapped one ends in its index (``train_0``).
    result
        Value of the result task, ``None`` if it has none.
    """

    dag_id: str
    run_id: str
    succeeded: bool
    states: dict[str, str]
    result: Any


class _Logs:
    """Stream of all log lines: writes to the file of the running task, else to the runner's.

    `note` gets the texts that a task logs.
    """

    def __init__(self, own: Path, note: Callable[[str], None]) -> None:
        own.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, because an interrupt ends the process without emptying buffers.
        self._own: BinaryIO = own.open("ab", buffering=0)
        self._task: BinaryIO | None = None
        self._note = note

    def write(self, data: bytes) -> int:
        if self._task and _OF_TASK in data:
            self._note(json.loads(data)["event"].partition("\n")[0])
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


class _TaskLines:
    """Opens a task's log file when it starts, and shows it as the activity until it ends."""

    def __init__(self, logs: _Logs, display: ActivityDisplay) -> None:
        from airflow.utils.helpers import log_filename_template_renderer

        self._logs, self._display = logs, display
        self._file_name = log_filename_template_renderer()

    def running(self, task_instance: Any) -> None:
        from airflow.sdk.log import init_log_file

        stop_at_signals(self._display)  # Airflow's SIGTERM handler does not end the process
        name = self._file_name(ti=task_instance, try_number=task_instance.try_number)
        self._logs.begin(init_log_file(name))
        self._display.begin(_task_name(task_instance))

    def ended(self, task_instance: Any, outcome: str) -> None:
        self._logs.end()
        name = _task_name(task_instance)
        self._display.end(outcome, name)
        if outcome == "retry":
            self._display.begin(f"waiting to try {name}")


def _task_name(task_instance: Any) -> str:
    if task_instance.map_index < 0:
        return str(task_instance.task_id)
    index = task_instance.rendered_map_index or task_instance.map_index
    return f"{task_instance.task_id} {index}"


def _listener(lines: _TaskLines) -> object:
    from airflow.listeners import hookimpl

    class Listener:
        @hookimpl
        def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
            lines.running(task_instance)

        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
            lines.ended(task_instance, "done")

        @hookimpl
        def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
            lines.ended(task_instance, "skipped")

        @hookimpl
        def on_task_instance_failed(
            self, previous_state: Any, task_instance: Any, error: Any
        ) -> None:
            is_retried = task_instance.state == "up_for_retry"
            lines.ended(task_instance, "retry" if is_retried else "FAILED")

    return Listener()


class Runner:
    """Airflow in this process; `airflow` returns it."""

    def __init__(self, display: ActivityDisplay) -> None:
        self._display = display

    def run(self, dag_id: str, conf: Mapping[str, Any], *, result_task: str) -> FinishedRun:
        """Run a DAG to its end. A failed task raises nothing: check `FinishedRun.succeeded`.

        Parameters
        ----------
        dag_id
            DAG of the folder `dags`.
        conf
            Values of its params; those left out have their defaults.
        result_task
            Task whose value is returned.

        Returns
        -------
        States of the tasks, and the value of one of them.
        """
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        from dags.plugins.run_note import copy_note

        self._display.begin(f"starting {dag_id}")
        # The DAG is parsed again because its params keep the values of the last run. It gets a
        # logical date because `test` without one replaces the last run.
        run = load_dags()[dag_id].test(
            run_conf=dict(conf), logical_date=datetime.now(UTC), run_after=_due(dag_id, conf)
        )
        with create_session() as session:
            copy_note(session.merge(run))
            states = {
                ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}": str(ti.state)
                for ti in run.get_task_instances(session=session)
            }
            value = session.scalars(
                XComModel.get_many(
                    run_id=run.run_id, key="return_value", task_ids=result_task, dag_ids=dag_id
                )
            ).first()
            result = None if value is None else XComModel.deserialize_value(value)
        return FinishedRun(dag_id, run.run_id, run.state == "success", states, result)


@contextmanager
def airflow(home: Path, display: ActivityDisplay) -> Iterator[Runner]:
    """Start Airflow in this process; until the end, its stdout and stderr go to `log_file`.

    Parameters
    ----------
    home
        Folder of the workspace.
    display
        Shows the task that runs.

    Yields
    ------
    Runner of DAGs.

    Raises
    ------
    ConcurrencyError
        `dags.scheduler_running`: `make ui` runs the same DAGs; or another runner holds the lock.
    """
    from pipeline.stores.locks import locked

    # Airflow reads these settings when it is first imported.
    environment.apply(home)
    logs = _Logs(log_file(home), display.note)
    lock = environment.airflow_home(home) / "runner.lock"
    with locked(lock, f"the runner of {home}"), _redirected(logs.fileno()):
        environment.set_up(home)

        from airflow.sdk.listener import get_listener_manager
        from airflow.sdk.log import configure_logging

        configure_logging(json_output=True, output=logs)
        get_listener_manager().add_listener(_listener(_TaskLines(logs, display)))
        sys.excepthook = sys.__excepthook__  # Airflow's logs the exception that ends this process
        dags = load_dags()
        _require_no_scheduler(dags)
        _fail_abandoned_runs(dags)
        yield Runner(display)


def log_file(home: Path) -> Path:
    """Return the file of all output that does not belong to a task."""
    return environment.airflow_home(home) / "logs" / "runner.log"


def load_dags() -> dict[str, Any]:
    """Parse the folder of the DAGs; a file that cannot be parsed raises `RuntimeError`."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(environment.ROOT / "dags")
    if bag.import_errors:
        raise RuntimeError("; ".join(bag.import_errors.values()))
    return dict(bag.dags)


def _due(dag_id: str, conf: Mapping[str, Any]) -> datetime:
    """Return the instant of a run, from which Airflow makes its id and its place in the grid.

    It is the `as_of` or `at` of the params, as for a run that the schedule starts; a run that is
    repeated gets one of the next seconds, because Airflow keeps one run per id.
    """
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import select

    now = datetime.now(UTC)
    try:
        due = datetime.fromisoformat(conf.get("as_of") or conf.get("at") or "")
    except ValueError:
        return now  # the first task refuses it
    if due.tzinfo is None or due > now:
        return now
    with create_session() as session:
        taken = set(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == dag_id)))
    while (
        DagRun.generate_run_id(run_type=DagRunType.MANUAL, logical_date=now, run_after=due) in taken
    ):
        due += timedelta(seconds=1)
    return due


def _require_no_scheduler(dags: Mapping[str, Any]) -> None:
    """Raise `ConcurrencyError` if a scheduler that is running could start the same tasks."""
    from airflow.jobs.job import most_recent_job
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        scheduler = most_recent_job("SchedulerJob", session=session)
        if scheduler is None or not scheduler.is_alive():
            return
        # A scheduler does not start paused DAGs, so it may run beside this process.
        unpaused = session.scalars(
            select(DagModel.dag_id).where(DagModel.dag_id.in_(dags), DagModel.is_paused.is_(False))
        ).all()
    if unpaused:
        from pipeline.errors import ConcurrencyError

        raise ConcurrencyError(
            "dags.scheduler_running",
            f"a scheduler is running {' and '.join(sorted(unpaused))}: "
            "pause the DAG on Airflow's page, or stop `make ui`",
        )


def _fail_abandoned_runs(dags: Mapping[str, Any]) -> None:
    """Mark the unfinished runs of killed runners as failed."""
    from airflow.api.common.mark_tasks import set_dag_run_state_to_failed
    from airflow.models.dagrun import DagRun
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunTriggeredByType
    from sqlalchemy import select

    with create_session() as session:
        # Runs of `DAG.test` are those of a runner. The lock excludes a second one, so all that
        # are still running belong to a process that has ended.
        abandoned = session.scalars(
            select(DagRun).where(
                DagRun.state == "running",
                DagRun.triggered_by == DagRunTriggeredByType.TEST,
                DagRun.dag_id.in_(dags),
            )
        ).all()
        for run in abandoned:
            # `set_dag_run_state_to_failed` takes the serialized form of a DAG.
            dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dags[run.dag_id]))
            set_dag_run_state_to_failed(dag=dag, run_id=run.run_id, commit=True, session=session)


@contextmanager
def _redirected(target: int) -> Iterator[None]:
    """Redirect the output of this process and its children to a file, below Python's streams."""
    # Libraries in C and child processes write to these descriptors, not to Python's streams.
    copies = {number: os.dup(number) for number in (1, 2)}
    sys.stdout.flush()
    sys.stderr.flush()
    for number in copies:
        os.dup2(target, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in copies.items():
            os.dup2(copy, number)
            os.close(copy)


def stop_at_signals(display: ActivityDisplay) -> None:
    """Set handlers of SIGINT and SIGTERM that print how to continue, and end the process."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        display.write_at_signal(
            "\nStopped. Nothing is lost: `make run` continues with the task that ran."
        )
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
