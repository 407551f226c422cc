"""Makes DAGs and their tasks for one workspace.

Guarantees:

* Each DAG starts paused, runs once at a time and does not catch up on missed runs.
* Each task has an owner, retries, a time limit and its function's docstring as documentation.
* XCom holds only scalars, lists and dicts; Airflow's logs hold no returned values.
* An expected failure is retried only if a retry can help. One line of level ERROR above the
  traceback has its sentence, the lists that stay live and the next step.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, chdir, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    DAG,
    AssetOrTimeSchedule,
    Context,
    CronTriggerTimetable,
    Param,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags import common
from dags.alerts import on_failure, on_success
from dags.common import AirflowWorkspace
from dags.problems import PROBLEM, SEE_ABOVE, bug_text, log_problem, retry_text

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "nightjar",
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=30),
}
_FAILURES = (AirflowException, AirflowFailException)
"""Of expected failures; the first one is retried."""
HEAVY_TASK_ARGS: dict[str, Any] = {"execution_timeout": timedelta(hours=2)}
"""Added to `DEFAULT_ARGS` for a task that runs long."""


def nightjar_dag(
    *,
    tag: str,
    doc_md: str | None,
    params: Mapping[str, Param | Callable[[AirflowWorkspace], Param]],
    cron: str | None = None,
    retrains: bool = False,
) -> Callable[[Callable[[AirflowWorkspace], None]], list[DAG]]:
    """Decorate a function that adds the tasks of a DAG for a workspace.

    Its name is the DAG's id in the default workspace (elsewhere the workspace's name comes before
    it), and its docstring the description.

    Parameters
    ----------
    tag
        Second tag; the first one is the workspace's name, the last one the schedule.
    doc_md
        Markdown of the DAG's page: the docstring of its file.
    params
        By name: a param, or a function that returns that of a workspace.
    cron
        Schedule in UTC.
    retrains
        Whether section ``[schedule]`` of each workspace decides what starts the DAG. Without this
        and without a cron it is only started by hand. The last task of such a DAG reports which
        task has failed; in others each task notes and reports that itself.

    Returns
    -------
    Decorator that returns the DAG of each of `common.WORKSPACES`.
    """

    def build(add_tasks: Callable[[AirflowWorkspace], None]) -> list[DAG]:
        dags = []
        for workspace in common.WORKSPACES:
            schedule = _retrain_schedule(workspace) if retrains else cron and _timetable(cron)
            callbacks = {"on_success_callback": on_success(workspace)}
            if not retrains:
                callbacks["on_failure_callback"] = on_failure(workspace)
            with DAG(
                workspace.dag_id(add_tasks.__name__),
                description=add_tasks.__doc__,
                doc_md=doc_md,
                schedule=schedule,
                catchup=False,
                max_active_runs=1,
                is_paused_upon_creation=True,
                default_args=DEFAULT_ARGS | callbacks,
                params={
                    name: param(workspace) if callable(param) else param
                    for name, param in params.items()
                },
                tags=[workspace.name, tag, _schedule_tag(schedule)],
            ) as dag:
                add_tasks(workspace)
            dags.append(dag)
        return dags

    return build


def _timetable(cron: str, timezone: str = "UTC") -> CronTriggerTimetable:
    # Zero: a DAG that is unpaused starts no run of the past.
    return CronTriggerTimetable(cron, timezone=timezone, run_immediately=timedelta(0))


def _retrain_schedule(workspace: AirflowWorkspace) -> Any:
    """Return the schedule of nightly runs: the cron, and under most modes the policy's requests."""
    schedule = workspace.settings().schedule
    timetable = _timetable(schedule.cron, schedule.timezone)
    if not schedule.by_policy:
        return timetable
    # Under `adaptive` as well: at the times of the cron the run asks the policy itself.
    return AssetOrTimeSchedule(timetable=timetable, assets=[workspace.retrain_requested])


def _schedule_tag(schedule: Any) -> str:
    """Return a schedule in words, for the list of DAGs."""
    if schedule is None:
        return "by hand"
    if not hasattr(schedule, "expression"):
        return f"{_schedule_tag(schedule.timetable)} or on request"
    minute, hour, *days = schedule.expression.split()
    if days != ["*", "*", "*"]:
        return f"{schedule.expression} {schedule.timezone}"
    if minute.isdigit() and hour.isdigit():
        return f"daily {int(hour):02}:{int(minute):02} {schedule.timezone}"
    if hour == "*" and minute.startswith("*/"):
        return f"every {minute.removeprefix('*/')} minutes"
    return f"{schedule.expression} {schedule.timezone}"


@dataclass(frozen=True)
class NightjarTask:
    """Task that the DAG of any workspace can contain; `nightjar_task` makes it.

    Attributes
    ----------
    function
        Body of the task: its name is the task id, its docstring the documentation.
    opens
        Context manager whose value is the first argument of `function`; ``None`` for no such
        argument.
    heavy
        Whether the task runs long and takes the one slot of the workspace's heavy pool.
    emits
        Attribute of `AirflowWorkspace` with the asset that the task updates.
    arguments
        Further arguments of Airflow's operator.
    """

    function: Callable[..., Any]
    opens: Callable[[AirflowWorkspace], AbstractContextManager[Any]] | None
    heavy: bool
    emits: str | None
    arguments: Mapping[str, Any]

    def __call__(self, workspace: AirflowWorkspace, *values: Any) -> Any:
        """Add the task to the current DAG; `values` are passed to the function."""
        return self._decorated(workspace)(*values)

    def expand(self, workspace: AirflowWorkspace, **values: Any) -> Any:
        """Add the task to the current DAG, mapped over `values`.

        Parameters
        ----------
        values
            By parameter of the function: a list, or the task whose value is the list.

        Returns
        -------
        Airflow's task, for the order of tasks.
        """
        return self._decorated(workspace).expand(**values)

    def _decorated(self, workspace: AirflowWorkspace) -> Any:
        arguments = dict(self.arguments)
        if self.heavy:
            arguments |= {**HEAVY_TASK_ARGS, "pool": workspace.heavy_pool}
        if self.emits:
            arguments["outlets"] = [getattr(workspace, self.emits)]
        return task(
            task_id=self.function.__name__,
            doc_md=self.function.__doc__,
            multiple_outputs=False,  # a returned dict stays one value, whatever its annotation
            show_return_value_in_logs=False,
            post_execute=_raise_failure,
            **arguments,
        )(self._body(workspace))

    def _body(self, workspace: AirflowWorkspace) -> Callable[..., Any]:
        opens = self.opens

        @functools.wraps(self.function)
        def body(*values: Any, **named: Any) -> Any:
            try:
                if opens is None:
                    return self.function(*values, **named)
                with opens(workspace) as opened:
                    return _xcom_value(self.function(opened, *values, **named))
            except AirflowException as failure:
                if type(failure) not in _FAILURES:  # such as a skip
                    raise
                return failure  # for `_raise_failure`

        if opens is not None:
            # Airflow reads here which values it must pass: all but the first.
            signature = inspect.signature(self.function)
            parameters = list(signature.parameters.values())[1:]
            body.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return body


def _raise_failure(context: Context, result: Any) -> None:
    """Raise an expected failure after the task, where few frames of Airflow are around it.

    Airflow logs their traceback below the line that states the problem, and shows the end of the
    log: a long traceback would hide that line.
    """
    if isinstance(result, AirflowException):
        raise result.with_traceback(None)


def nightjar_task(
    *,
    opens: Callable[[AirflowWorkspace], AbstractContextManager[Any]] | None = None,
    heavy: bool = False,
    emits: str | None = None,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], NightjarTask]:
    """Decorate a function as a task.

    Parameters
    ----------
    opens, heavy, emits, arguments
        As in `NightjarTask`.

    Returns
    -------
    Decorator.
    """

    def decorate(function: Callable[..., Any]) -> NightjarTask:
        return NightjarTask(function, opens, heavy, emits, arguments)

    return decorate


def workspace_task(**options: Any) -> Callable[[Callable[..., Any]], NightjarTask]:
    """Decorate a function of the opened workspace as a task; `options` are of `nightjar_task`."""
    return nightjar_task(opens=open_workspace, **options)


@contextmanager
def open_workspace(workspace: AirflowWorkspace) -> Iterator[Workspace]:
    """Open a workspace; an expected failure is logged and becomes a failure of Airflow.

    The output of a library that panicked appears in the log only for a bug.

    Airflow retries after a `StorageError`: a store that is locked or cannot be reached may be
    available a minute later. After any other expected error the task fails without a retry.
    """
    from pipeline.errors import StorageError
    from pipeline.stores.disk import expected_failure, is_failure
    from pipeline.workspace.child_process import CHILD_FOLDER, keep_private
    from pipeline.workspace.library_output import HiddenOutput
    from pipeline.workspace.workspace import Workspace

    keep_private()
    output = HiddenOutput()
    try:
        home = workspace.home().absolute()
        # Libraries read settings from the current folder.
        with chdir(CHILD_FOLDER):
            yield Workspace.open(home)
    except AirflowException:  # such as a skip
        raise
    except BaseException as error:  # a panic of a Rust library is not an `Exception`
        ti = get_current_context()["ti"]
        # A failed task returns no value, so `report_outcome` reads the error from its own key.
        if (failure := expected_failure(error)) is None:
            output.show()
            if is_failure(error):
                bug = {"id": "bug", "sentence": bug_text(error), "exit_code": 1}
                log_problem(workspace, bug["sentence"], retry_text(ti, is_retried=True))
                ti.xcom_push(key=PROBLEM, value=bug)
            raise
        is_retried = isinstance(failure, StorageError)
        sentence = f"{failure.sentence} [{failure.id}, docs/ERRORS.md]"
        log_problem(workspace, sentence, retry_text(ti, is_retried=is_retried))
        problem = {"id": failure.id, "sentence": failure.sentence, "exit_code": failure.exit_code}
        ti.xcom_push(key=PROBLEM, value=problem)
        # Without the cause: its traceback would push the line above out of Airflow's window.
        kind = AirflowException if is_retried else AirflowFailException
        raise kind(f"{failure.id}: {SEE_ABOVE}") from None
    finally:
        output.restore()


def _xcom_value(result: Any) -> Any:
    """Return a result as plain JSON: scalars and dicts as they are, results of steps by `plain`."""
    if result is None or isinstance(result, (bool, int, float, str, list, dict)):
        return result
    from pipeline.base import plain

    return plain(result)
