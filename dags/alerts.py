"""Messages to the webhook: one per cause, repeated only after a day.

An Airflow variable holds the causes of a workspace that are not over (`shop_alerts`), so that all
machines of an Airflow read the same ones.

Guarantees:

* A cause is posted again only after a day, or after it was over.
* Without a webhook no variable is written.
* A message that cannot be built or sent, or a variable that cannot be used, fails no task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Context, Variable

from dags import webhook
from dags.common import NOTE, AirflowWorkspace, log
from dags.problems import PROBLEM

REPEAT_AFTER = timedelta(hours=23)
"""A run that fails each day may fail some minutes earlier than on the day before."""

Causes = dict[str, dict[str, Any]]
"""Cause -> ``count`` of its reports, ``posted`` instant of its last message or ``None``."""


def report(
    workspace: AirflowWorkspace, cause: str, message: Mapping[str, Any], *, after: int = 1
) -> bool:
    """Report a problem; post it unless a message about its cause was posted within a day.

    Parameters
    ----------
    workspace
        Airflow's names of the workspace.
    cause
        The same for each report of one problem; begins with the id of its DAG.
    message
        From `message`.
    after
        Number of reports from which on it is posted.

    Returns
    -------
    True if a message was posted.
    """
    if not webhook.exists(workspace.webhook_connection):
        return False
    causes, now = _read(workspace), datetime.now(UTC)
    known = causes.setdefault(cause, {"count": 0, "posted": None})
    known["count"] += 1
    posted = known["posted"]
    due = posted is None or now - datetime.fromisoformat(posted) >= REPEAT_AFTER
    sent = known["count"] >= after and due and webhook.post(workspace.webhook_connection, message)
    if sent:
        known["posted"] = now.isoformat()
    _write(workspace, causes)
    return sent


def end(workspace: AirflowWorkspace, prefix: str) -> None:
    """Forget causes that are over, so that they are posted at once if they come back.

    Parameters
    ----------
    prefix
        Start of the causes.
    """
    if not webhook.exists(workspace.webhook_connection):
        return
    causes = _read(workspace)
    left = {cause: known for cause, known in causes.items() if not cause.startswith(prefix)}
    if left != causes:
        _write(workspace, left)


def message(ti: Any, status: str, sentence: str, headline: str = "") -> dict[str, Any]:
    """Return a message about a run.

    Parameters
    ----------
    ti
        Airflow's task instance that reports.
    status, sentence
        Outcome, and its reason.
    headline
        Text for users in place of the sentence.

    Returns
    -------
    ``text`` is what Slack and Teams show; ``url`` is the address of the run.
    """
    url = ti.log_url.partition("/tasks/")[0]
    text = f"{ti.dag_id}: {status}. {headline or sentence} {url}"
    return {
        "text": text,
        "dag": ti.dag_id,
        "run_id": ti.run_id,
        "url": url,
        "status": status,
        "sentence": sentence,
    }


def on_failure(workspace: AirflowWorkspace) -> Callable[[Context], None]:
    """Return Airflow's callback that notes and reports a task that failed for the last time."""

    def report_failure(context: Context) -> None:
        ti = context["ti"]
        problem = ti.xcom_pull(task_ids=ti.task_id, key=PROBLEM) or {}
        sentence = problem.get("sentence") or str(context.get("exception") or "see its log")
        # The sentence of an error may hold numbers that change from pass to pass, its id does not.
        cause = f"{ti.dag_id}.{ti.task_id} {problem.get('id') or sentence}"
        try:
            ti.xcom_push(key=NOTE, value=f"{ti.task_id}: {sentence}")
            report(workspace, cause, message(ti, "failed", f"{ti.task_id}: {sentence}"))
        except Exception:
            log.exception("The failure could not be reported.")

    return report_failure


def _variable(workspace: AirflowWorkspace) -> str:
    return f"{workspace.name}_alerts"


def _read(workspace: AirflowWorkspace) -> Causes:
    """Return the causes; none if a user has damaged the variable."""
    try:
        causes = Variable.get(_variable(workspace), default={}, deserialize_json=True)
        return {cause: _known(**reports) for cause, reports in causes.items()}
    except (AttributeError, TypeError, ValueError):
        log.warning(f"The Airflow variable {_variable(workspace)} is damaged, and is made anew.")
        return {}


def _known(count: int, posted: str | None) -> dict[str, Any]:
    when = None if posted is None else datetime.fromisoformat(posted).astimezone(UTC).isoformat()
    return {"count": int(count), "posted": when}


def _write(workspace: AirflowWorkspace, causes: Causes) -> None:
    Variable.set(_variable(workspace), causes, serialize_json=True)
