"""Messages to the webhook: one per cause, repeated only after a day.

An Airflow variable holds the causes of a workspace that are not over (`shop_alerts`), so that all
machines of an Airflow read the same ones.

Guarantees:

* A cause is posted again only after a day, or after it was over; also if tasks report at once,
  because a lock in the workspace's folder covers the variable and the message.
* Causes without a report for `KEPT_FOR` are removed.
* Without a webhook no variable is written.
* A message that cannot be built or sent, or a variable or lock that cannot be used, fails no task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Context, Variable
from airflow.sdk.exceptions import AirflowException

from dags import webhook
from dags.common import NOTE, AirflowWorkspace, log, run_address
from dags.problems import PROBLEM

REPEAT_AFTER = timedelta(hours=23)
"""A run that fails each day may fail some minutes earlier than on the day before."""

KEPT_FOR = timedelta(days=60)
"""Longer than a month, so that the reports of a monthly schedule are counted."""
_WAIT_S = 30.0
"""A task that posts holds the lock for the 5 s of the webhook."""

Causes = dict[str, dict[str, Any]]
"""Cause -> ``count`` of its reports, ``seen`` when last, ``posted`` when its last message was, or
``None``."""


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
    with _shared_causes(workspace) as causes:
        now = datetime.now(UTC)
        known = causes.setdefault(cause, {"count": 0, "posted": None})
        known |= {"count": known["count"] + 1, "seen": now.isoformat()}
        posted = known["posted"]
        due = posted is None or now - datetime.fromisoformat(posted) >= REPEAT_AFTER
        is_due = known["count"] >= after and due
        sent = is_due and webhook.post(workspace.webhook_connection, message)
        if sent:
            known["posted"] = now.isoformat()
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
    with _shared_causes(workspace) as causes:
        for cause in [cause for cause in causes if cause.startswith(prefix)]:
            del causes[cause]


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
    url = run_address(ti)
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
        exception = context.get("exception")
        sentence = problem.get("sentence") or str(exception or "see its log")
        # The text of an error or a bug may hold numbers that change from pass to pass.
        known = sentence if isinstance(exception, AirflowException) else type(exception).__name__
        cause = f"{ti.dag_id}.{ti.task_id} {problem.get('id') or known}"
        try:
            ti.xcom_push(key=NOTE, value=f"{ti.task_id}: {sentence}")
            report(workspace, cause, message(ti, "failed", f"{ti.task_id}: {sentence}"))
        except Exception:
            log.exception("The failure could not be reported.")

    return report_failure


def _variable(workspace: AirflowWorkspace) -> str:
    return f"{workspace.name}_alerts"


@contextmanager
def _shared_causes(workspace: AirflowWorkspace) -> Iterator[Causes]:
    """Lock and read the causes, without old ones; write them if the body changes them."""
    from pipeline.errors import NightjarError
    from pipeline.stores.locks import locked

    with ExitStack() as lock:
        try:
            home = workspace.home()
            if home.is_dir():  # a message about a workspace that is away must not create it
                file = home / ".lock-alerts"
                lock.enter_context(locked(file, "the lock of alerts", wait_seconds=_WAIT_S))
        except NightjarError as error:
            log.warning(f"A message may be posted twice: {error.sentence}")
        causes = _read(workspace)
        oldest = (datetime.now(UTC) - KEPT_FOR).isoformat()
        kept = {cause: deepcopy(known) for cause, known in causes.items() if known["seen"] > oldest}
        yield kept
        if kept != causes:
            Variable.set(_variable(workspace), kept, serialize_json=True)


def _read(workspace: AirflowWorkspace) -> Causes:
    """Return the causes; none if a user has damaged the variable."""
    try:
        causes = Variable.get(_variable(workspace), default={}, deserialize_json=True)
        return {cause: _known(**reports) for cause, reports in causes.items()}
    except (AttributeError, TypeError, ValueError):
        log.warning(f"The Airflow variable {_variable(workspace)} is damaged, and is made anew.")
        return {}


def _known(count: int, seen: str, posted: str | None) -> dict[str, Any]:
    times = {"seen": seen, "posted": posted}
    return {
        "count": int(count),
        **{
            name: text and datetime.fromisoformat(text).astimezone(UTC).isoformat()
            for name, text in times.items()
        },
    }
