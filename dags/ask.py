"""Asks a person, in Airflow's own pages, about a candidate that is nearly proved.

Promises: nobody is asked where nothing is to be asked; no answer in time means no switch; who
answered stands in the ledger.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

KEEP = "keep the champion"
SWITCH = "switch to the candidate"
WAITS = timedelta(hours=4)


class Question(HITLOperator):
    """Waits for an answer, if the task named by `asked_by` has put a question.

    Parameters
    ----------
    asked_by
        Task whose value has ``ask``, whether there is a question, and ``sentence``, what to say.
    """

    def __init__(self, *, asked_by: str, **others: Any) -> None:
        super().__init__(
            subject="A candidate is in the grey zone: better by all figures, not yet proved.",
            body=f"{{{{ ti.xcom_pull(task_ids='{asked_by}')['sentence'] }}}}",
            options=[KEEP, SWITCH],
            defaults=KEEP,
            response_timeout=WAITS,
            execution_timeout=None,  # it would count the waiting
            **others,
        )
        self.asked_by = asked_by

    def execute(self, context: Context) -> Any:
        """Ask, or skip; Airflow calls `execute_complete` with the answer."""
        decided = context["ti"].xcom_pull(task_ids=self.asked_by)
        if not decided["ask"]:
            raise AirflowSkipException("there is nothing to ask")
        return super().execute(context)


def who_switches(answer: Any) -> str | None:
    """Return who chose to switch; None where nobody did, or nobody answered in time."""
    if not answer or answer["chosen_options"] != [SWITCH]:
        return None
    user = answer["responded_by_user"]
    return None if user is None else str(user["name"])
