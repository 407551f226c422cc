"""Lines of the log that state a problem, its consequence and the next step.

Guarantees: one line of level ERROR per problem, above any traceback; it holds the sentence of the
error, the lists that stay live and the next step. Writing it never fails a task.
"""

from __future__ import annotations

import traceback
from typing import Any

from dags.common import AirflowWorkspace, log

PROBLEM = "problem"
"""XCom key under which a failed task leaves ``{id, sentence, exit_code}``; a ``next_step`` replaces
that of `restart_text`."""
SEE_ABOVE = "see the line of level ERROR above"
"""Text of the exceptions that end a task: Airflow logs it below the line of the problem."""


def restart_text(dag_id: str) -> str:
    """Return how a user starts a run again that ended with an error."""
    # The first task is repeated too: it finds a changed config or new data, and no other task does.
    return (
        "To start it again, click *Clear Dag Run* on the page of the run, which repeats no "
        f"finished step; with other values, click *Trigger* on the page of {dag_id}"
    )


def log_problem(workspace: AirflowWorkspace, sentence: str, next_step: str = "") -> None:
    """Write the line of one problem.

    Parameters
    ----------
    workspace
        Airflow's names of the workspace.
    sentence
        The cause and its place; of an expected error it also holds the correction.
    next_step
        What the user does after it.
    """
    parts = (sentence, live_text(workspace), next_step)
    log.error(" ".join(f"{part.rstrip('.')}." for part in parts if part))


def live_text(workspace: AirflowWorkspace) -> str:
    """Return which lists users see now, whatever is damaged."""
    try:
        from pipeline.stores.ledger import Ledger
        from pipeline.workspace.history import LedgerHistory

        live = LedgerHistory.of(Ledger(workspace.home() / "ledger.jsonl")).live
    except Exception:
        # The problem itself may be the reason, such as a damaged ledger.
        return "The lists that were live stay live"
    if live is None:
        return "No lists are live yet"
    return (
        f"Live: version {live.model_version} ({live.name}), as of {live.as_of:%Y-%m-%dT%H:%M:%SZ}"
    )


def retry_text(ti: Any, *, is_retried: bool) -> str:
    """Return what happens next to a task that failed.

    Parameters
    ----------
    ti
        Airflow's task instance.
    is_retried
        Whether a retry can help.
    """
    if is_retried and ti.try_number <= ti.max_tries:
        return f"Airflow tries again (attempt {ti.try_number} of {ti.max_tries + 1} failed)"
    return restart_text(ti.dag_id)


def bug_text(error: BaseException) -> str:
    """Return one sentence about an unexpected error: its type, text and place."""
    lines = str(error).strip().splitlines() or [""]
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "/pipeline/" in frame.filename or "/dags/" in frame.filename
    ]
    place = f" in {own[-1].filename}:{own[-1].lineno}" if own else ""
    return f"Bug: {type(error).__name__}: {lines[0][:300]}{place}"
