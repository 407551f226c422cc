"""Messages to the webhook: one per cause, repeated only after a day.

A cause is a problem, not a place: a config that cannot be read makes tasks of several DAGs fail,
and is one cause. It is over when the first of the tasks that reported it succeeds again.

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

from dags import webhook
from dags.common import NOTE, AirflowWorkspace, log, run_address, task_address
from dags.problems import PROBLEM, restart_text
from dags.run_outcome import problem_key

REPEAT_AFTER = timedelta(hours=23)
"""A run that fails each day may fail some minutes earlier than on the day before."""

KEPT_FOR = timedelta(days=60)
"""Longer than a month, so that the reports of a monthly schedule are counted."""
_WAIT_S = 30.0
"""A task that posts holds the lock for the 5 s of the webhook."""

Causes = dict[str, dict[str, Any]]
"""Cause -> ``count`` of its reports, ``seen`` when last, ``posted`` when its last message was, or
``None``, and ``places`` that have reported it."""


def report(
    workspace: AirflowWorkspace,
    cause: str,
    message: Mapping[str, Any],
    *,
    place: str,
    after: int = 1,
) -> bool:
    """Report a problem; post it unless a message about its cause was posted within a day.

    Parameters
    ----------
    workspace
        Airflow's names of the workspace.
    cause
        The same for each report of one problem.
    message
        From `message`.
    place
        Task that reports, from `place_of`, or another text that `end` gets.
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
        known = causes.setdefault(cause, {"count": 0, "posted": None, "places": []})
        places = sorted({*known["places"], place})
        known |= {"count": known["count"] + 1, "seen": now.isoformat(), "places": places}
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
        Start of a place that reported them.
    """
    # Most tasks end no cause: they neither wait for the lock nor create a file.
    if not webhook.exists(workspace.webhook_connection) or not _of(_read(workspace), prefix):
        return
    with _shared_causes(workspace) as causes:
        for cause in _of(causes, prefix):
            del causes[cause]


def _of(causes: Causes, prefix: str) -> list[str]:
    """Return the causes that a place has reported."""
    return [
        cause
        for cause, known in causes.items()
        if any(place.startswith(prefix) for place in known["places"])
    ]


def place_of(ti: Any, task: str = "") -> str:
    """Return the place of a task instance, or of another task of its DAG."""
    return f"{ti.dag_id}.{task or ti.task_id}."


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
    # Teams reads one line feed as a space.
    text = f"{ti.dag_id}: {status}. {headline or sentence}\n\n{url}"
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
        exception = context.get("exception")
        problem = ti.xcom_pull(task_ids=ti.task_id, key=PROBLEM) or {
            "id": type(exception).__name__,  # of a task that was stopped
            "sentence": str(exception or "the task was stopped: see its log"),
        }
        sentence = f"{ti.task_id} failed: {problem['sentence'].rstrip('.')}."
        todo = f"{problem.get('next_step') or restart_text(ti.dag_id)}."
        try:
            link = f"[log of {ti.task_id}]({task_address(ti, ti.task_id)})"
            ti.xcom_push(key=NOTE, value=f"{sentence}\n\n{todo} {link}")
            text = message(ti, "failed", sentence, headline=f"{sentence} {todo}")
            report(workspace, problem_key(problem), text, place=place_of(ti))
        except Exception:
            log.exception("The failure could not be reported.")

    return report_failure


def on_success(workspace: AirflowWorkspace) -> Callable[[Context], None]:
    """Return Airflow's callback that ends the causes that a task has reported."""

    def end_causes(context: Context) -> None:
        try:
            end(workspace, place_of(context["ti"]))
        except Exception:
            log.exception("The end of a problem could not be recorded.")

    return end_causes


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
        return {cause: _known(**known) for cause, known in causes.items()}
    except (AttributeError, TypeError, ValueError):
        log.warning(f"The Airflow variable {_variable(workspace)} is damaged, and is made anew.")
        return {}


def _known(count: int, seen: str, posted: str | None, places: list[str]) -> dict[str, Any]:
    times = {"seen": seen, "posted": posted}
    return {
        "count": int(count),
        "places": [str(place) for place in places],
        **{
            name: text and datetime.fromisoformat(text).astimezone(UTC).isoformat()
            for name, text in times.items()
        },
    }
