"""Makes the tasks of the nightly run.

Guarantees:

* A task is skipped if `snapshot` started no new run, and, where it needs one, without a decision
  or a promotion.
* A task returns the dict of its step's result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import AirflowWorkspace, log
from dags.factory import NightjarTask, nightjar_task, open_workspace
from dags.run_outcome import PROMOTIONS

if TYPE_CHECKING:
    from pipeline.base import Progress
    from pipeline.workspace.workspace import Workspace

STARTED = "started"
"""XCom key of `snapshot`: run id, status and sentence. Its value are the recipes to train."""

Needs = Literal["run", "decision", "promotion"]
"""Condition without which a task is skipped."""


@dataclass(frozen=True)
class NightlyRun:
    """Run that a task works on: the first argument of its function."""

    workspace: Workspace
    run_id: str
    progress: Progress


def nightly_task(
    *, needs: Needs = "run", **options: Any
) -> Callable[[Callable[..., Any]], NightjarTask]:
    """Decorate a function of a `NightlyRun` as a task.

    Parameters
    ----------
    needs
        Condition without which the task is skipped.
    options
        Those of `nightjar_task`.

    Returns
    -------
    Decorator.
    """
    return nightjar_task(opens=partial(open_run, needs=needs), **options)


@contextmanager
def open_run(workspace: AirflowWorkspace, *, needs: Needs) -> Iterator[NightlyRun]:
    """Open the workspace and the run that `snapshot` started, or skip the task.

    Parameters
    ----------
    workspace
        Airflow's names of the workspace.
    needs
        Condition without which the task is skipped.

    Yields
    ------
    The run, for the body of the task.
    """
    run, decision = started_run(), current_decision()
    if run["status"] != "new":
        raise AirflowSkipException(run["sentence"])
    # `gate` is skipped if no recipe could be trained.
    if needs != "run" and not decision:
        raise AirflowSkipException("the gate decided nothing")
    if needs == "promotion" and decision["kind"] not in PROMOTIONS:
        raise AirflowSkipException(decision["sentence"])
    with open_workspace(workspace) as opened:
        yield NightlyRun(opened, run["run_id"], log.info)


def started_run() -> dict[str, Any]:
    """Return the run id, status and sentence that `snapshot` left; empty if it failed."""
    return get_current_context()["ti"].xcom_pull(task_ids="snapshot", key=STARTED) or {}


def current_decision() -> dict[str, Any]:
    """Return the decision of the human review, else of the gate; empty if there is none."""
    ti = get_current_context()["ti"]
    return ti.xcom_pull(task_ids="accept") or ti.xcom_pull(task_ids="gate") or {}
