"""Reports a nightly run that did not start, or is not over hours after it was due.

Airflow's own deadlines exist only for a run that its scheduler has created, and a night that never
started has none. So each feedback pass compares the schedule with the runs.

Guarantees:

* A paused DAG, the mode `adaptive`, and a night after which another has decided are not reported.
* A night did not start only if the one before it did, at a time of the same cron: a DAG that was
  unpaused or whose cron was moved since then is not late.
* A night is not over only hours after it began; Airflow may begin it long after it was due.
* The only clock is the instant at which the pass is due.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import Context
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetPreviousDagRun
from croniter import croniter

from dags import alerts
from dags.common import NOTE, AirflowWorkspace
from dags.problems import log_problem

LATE_AFTER = timedelta(hours=3)
"""Time after which a night is late; the longest task may take two hours."""
_NIGHTS = "nightly_retrain"
_ENDED = ("success", "failed")
_NEXT_STEP = "Check that the scheduler runs, then click *Trigger* on the page of the DAG"


def watch_nights(workspace: AirflowWorkspace) -> Callable[[Context], None]:
    """Return a callback of a task that reports a late night; Airflow calls it before the task."""

    def check(context: Context) -> None:
        ti: Any = context["ti"]
        late = f"{workspace.dag_id(_NIGHTS)} late"
        sentence = late_night(workspace, ti, context["dag_run"].run_after)
        if sentence is None:
            alerts.end(workspace, late)
            return
        log_problem(workspace, sentence, _NEXT_STEP)
        ti.xcom_push(key=NOTE, value=sentence)
        message = alerts.message(ti, "late", f"{sentence}. {_NEXT_STEP}.")
        # The next pass posts it: a DAG that was just unpaused has no run for some seconds.
        alerts.report(workspace, late, message, place=late, after=2)

    return check


def late_night(workspace: AirflowWorkspace, ti: Any, now: datetime) -> str | None:
    """Return a sentence about the last night that should be over, or ``None`` if it is.

    Parameters
    ----------
    workspace
        Airflow's names of the workspace.
    ti
        Airflow's task instance, which answers questions about runs.
    now
        Instant of the check.
    """
    schedule, dag_id = workspace.settings().schedule, workspace.dag_id(_NIGHTS)
    if schedule.mode == "adaptive" or ti.get_dag(dag_id).is_paused:
        return None
    latest = now - LATE_AFTER
    times = croniter(schedule.cron, latest.astimezone(ZoneInfo(schedule.timezone)))
    due, before = (times.get_prev(datetime).astimezone(UTC) for _ in range(2))
    run = _last_run(dag_id, due)
    exists = run is not None and run.logical_date == due
    if exists and (run.state in _ENDED or (run.start_date and run.start_date > latest)):
        return None
    begun = exists and run.start_date
    if not begun and not ti.get_dr_count(dag_id, logical_dates=[before]):
        return None
    if _has_decided(workspace, due):
        return None
    state = f"is not over after {LATE_AFTER.seconds // 3600} hours" if begun else "did not start"
    return f"the night of {due:%Y-%m-%d %H:%M} UTC {state}"


def _last_run(dag_id: str, until: datetime) -> Any:
    """Return the last run of a DAG with a logical date up to an instant, or ``None``."""
    # `RuntimeTaskInstance.get_previous_dagrun` sends this for the DAG of the task alone.
    request = GetPreviousDagRun(dag_id=dag_id, logical_date=until + timedelta.resolution)
    return task_runner.SUPERVISOR_COMMS.send(request).dag_run


def _has_decided(workspace: AirflowWorkspace, since: datetime) -> bool:
    from pipeline.stores.ledger import Ledger
    from pipeline.workspace.history import LedgerHistory

    last = LedgerHistory.of(Ledger(workspace.home() / "ledger.jsonl")).last_decision()
    return last is not None and last.as_of >= since
