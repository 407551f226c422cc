"""Reports a nightly run that did not start, or is not over hours after it was due.

Airflow's own deadlines exist only for a run that its scheduler has created, and a night that never
started has none. So each feedback pass compares the schedule with the runs.

Guarantees: a paused DAG, the mode `adaptive`, a workspace without any nightly run, and one in which
a later night has decided are not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import Context
from croniter import croniter

from dags import alerts
from dags.common import NOTE, AirflowWorkspace
from dags.problems import log_problem

LATE_AFTER = timedelta(hours=3)
"""Time after which a night is late; the longest task may take two hours."""
_NIGHTS = "nightly_retrain"
_NEXT_STEP = "Check that the scheduler runs, then trigger the DAG by hand"


def watch_nights(workspace: AirflowWorkspace) -> Callable[[Context], None]:
    """Return a callback of a task that reports a late night; Airflow calls it before the task."""

    def check(context: Context) -> None:
        ti: Any = context["ti"]
        cause = f"{workspace.dag_id(_NIGHTS)} late"
        sentence = late_night(workspace, ti, datetime.now(UTC))
        if sentence is None:
            alerts.end(workspace, cause)
            return
        log_problem(workspace, sentence, _NEXT_STEP)
        ti.xcom_push(key=NOTE, value=sentence)
        message = alerts.message(ti, "late", f"{sentence}. {_NEXT_STEP}.")
        alerts.report(workspace, cause, message)

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
    latest = (now - LATE_AFTER).astimezone(ZoneInfo(schedule.timezone))
    due = croniter(schedule.cron, latest).get_prev(datetime).astimezone(UTC)
    if ti.get_dr_count(dag_id, logical_dates=[due], states=["success", "failed"]):
        return None
    if not ti.get_dr_count(dag_id) or _has_decided(workspace, due):
        return None
    begun = ti.get_dr_count(dag_id, logical_dates=[due])
    state = f"is not over after {LATE_AFTER.seconds // 3600} hours" if begun else "did not start"
    return f"the night of {due:%Y-%m-%d %H:%M} UTC {state}"


def _has_decided(workspace: AirflowWorkspace, since: datetime) -> bool:
    from pipeline.stores.ledger import Ledger
    from pipeline.workspace.history import LedgerHistory

    last = LedgerHistory.of(Ledger(workspace.home() / "ledger.jsonl")).last_decision()
    return last is not None and last.as_of >= since
