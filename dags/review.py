"""Human review of an inconclusive candidate, on Airflow's page *Required actions*.

Guarantees:

* The task is skipped if the gate requests no review.
* Without an answer in time the champion stays.
* The name of the user who chose to switch goes into the ledger.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

KEEP = "keep the champion"
SWITCH = "switch to the candidate"
RESPONSE_TIMEOUT = timedelta(hours=4)


class ReviewOperator(HITLOperator):
    """Waits for a user to choose between the champion and the candidate.

    Parameters
    ----------
    gate_task
        Id of the task whose value has ``review``, whether a review is requested, and ``sentence``,
        the text of the question.
    """

    def __init__(self, *, gate_task: str, **arguments: Any) -> None:
        super().__init__(
            subject="A candidate is inconclusive: it meets all rules, but its evidence is not yet "
            "sufficient.",
            body=f"{{{{ ti.xcom_pull(task_ids='{gate_task}')['sentence'] }}}}",
            options=[KEEP, SWITCH],
            defaults=KEEP,
            response_timeout=RESPONSE_TIMEOUT,
            execution_timeout=None,  # it would include the time spent waiting
            doc_md="Wait for a choice on an inconclusive candidate, if the settings request it.",
            **arguments,
        )
        self.gate_task = gate_task

    def execute(self, context: Context) -> Any:
        """Wait for an answer, or skip; Airflow calls `execute_complete` with the answer."""
        decision = context["ti"].xcom_pull(task_ids=self.gate_task)
        if not decision["review"]:
            raise AirflowSkipException("the gate requests no review")
        return super().execute(context)


def approved_by(answer: Any) -> str | None:
    """Return the user who chose to switch; ``None`` without an answer or if the champion stays."""
    if not answer or answer["chosen_options"] != [SWITCH]:
        return None
    user = answer["responded_by_user"]
    return None if user is None else str(user["name"])
