"""Two log lines for each task, and the decorator that makes a nightly task of a function.

Guarantees: the lines, and those of progress, are bound to `run_id`, `as_of` and `task`; the last
one has seconds, rows and the result in one sentence; progress is at most one line per 10 seconds;
no line has a raw id, or a character that is not printable.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, Final, Protocol

import structlog

from pipeline.base import Progress, format_instant, silent
from pipeline.errors import NightjarError, printable
from pipeline.stores.runs import Ref
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.workspace import Workspace

PROGRESS_SECONDS: Final = 10.0


@dataclass
class TaskLog:
    """Content of the last line of a task.

    Attributes
    ----------
    progress
        Takes progress texts.
    run_id
        The run; the first line has none if the task creates the run.
    rows
        Rows of the task's main result.
    result
        The result in one sentence.
    """

    progress: Progress
    run_id: str = ""
    rows: int = 0
    result: str = ""


@contextmanager
def task_log(
    task: str, as_of: datetime, *, run_id: str = "", progress: Progress = silent
) -> Iterator[TaskLog]:
    """Log the start and the end of a task; a failure is logged with its sentence and id.

    Parameters
    ----------
    task
        Name of the task.
    run_id
        Empty if the task creates the run.
    progress
        Receives at most one text per `PROGRESS_SECONDS`.
    """
    context = {"task": task, "run_id": run_id, "as_of": format_instant(as_of)}
    log = logger().bind(**context)
    log.info("task_started")
    start = time.perf_counter()
    record = TaskLog(at_most_every(PROGRESS_SECONDS, progress), run_id)
    try:
        # In the context, so that progress has these fields too.
        with structlog.contextvars.bound_contextvars(**context):
            yield record
    except NightjarError as error:
        # No warning: the caller reports the error to the user once, and states the next step.
        log.info("task_failed", seconds=_since(start), error=error.sentence, error_id=error.id)
        raise
    # Bound again: `snapshot` makes its run only after the first line.
    log.bind(run_id=record.run_id).info(
        "task_finished", seconds=_since(start), rows=record.rows, result=printable(record.result)
    )


def logger() -> Any:
    """Return the logger; structlog without a configuration would print to stdout."""
    if structlog.is_configured():
        return structlog.get_logger("nightjar")
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


def at_most_every(seconds: float, progress: Progress) -> Progress:
    """Return a progress function that forwards the first text, then at most one per interval.

    Texts in between are logged with the level `debug`.

    Parameters
    ----------
    seconds
        Length of the interval.
    progress
        Receives the texts.
    """
    last = float("-inf")

    def limited(text: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= seconds:
            last = now
            progress(printable(text))
        else:
            logger().debug("progress", text=printable(text))

    return limited


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


class Step(Protocol):
    """A task of a nightly run."""

    def __call__(self, ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
        """Run the task, or return the `Ref` of an earlier attempt's commit."""


def task_step(
    task: str,
    *,
    folder: Callable[[Night], str] | None = None,
    check: Callable[[Night], None] | None = None,
) -> Callable[[Callable[[Night, Progress], str]], Step]:
    """Decorate a function that commits one folder and returns its result in one sentence.

    Parameters
    ----------
    folder
        Returns the folder of the run; by default it is named like the task.
    check
        Called after every commit and every repeated call; raises to stop the run.

    Returns
    -------
    A decorator. The task takes workspace, run id and progress, and returns the `Ref` of the
    folder; it does not call the function if the folder is committed.
    """

    def decorate(write: Callable[[Night, Progress], str]) -> Step:
        @wraps(write)
        def step(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
            night = open_night(ws, run_id)
            name = task if folder is None else folder(night)
            with task_log(task, night.as_of, run_id=run_id, progress=progress) as log:
                log.result = "committed before"
                # A retried task must not repeat its work: a committed folder never changes.
                if night.run.committed(name) is None:
                    log.progress(task)
                    log.result = write(night, log.progress)
                if check is not None:
                    # Also on a retry, so that a run which must stop does not go on.
                    check(night)
                ref = night.run.ref(name)
                log.rows = ref.rows
            return ref

        return step

    return decorate
