"""Take in what has landed: events, items and users, each file once.

**When.** Every five minutes. Starts paused. A pass with nothing to take in is skipped, green; one
in which a file had to be set aside, or waits for a better config, is red and says which. The other
files were taken in all the same.

**What follows.** A pass that accepted events says so to whoever waits for the asset
`nightjar://lake/events`. If enough has changed for a new model, it asks for one through
`nightjar://retrain_requested`, which starts `nightly_retrain`. An asset's event may get lost: the
nightly schedule sweeps behind it, and what there is to do is always read from the lake.

**By hand.** With an `at`, events after that instant count as dated in the future and are
quarantined; without one, the pass is dated when it is due.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags.common import DEFAULT_ARGS, EVENTS, RETRAIN_REQUESTED, resolve_at, workspace

log = logging.getLogger("airflow.task")

PARAMS = {
    "at": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="At",
        description="The instant of the pass, with a time zone; empty means when the run is due. "
        "For the demo's data 2017-12-29T09:00:00Z fits.",
    ),
}


@dag(
    description="Take in what has landed.",
    doc_md=__doc__,
    schedule=CronTriggerTimetable(
        "*/5 * * * *", timezone="UTC", run_immediately=timedelta(seconds=0)
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["nightjar", "feedback"],
)
def feedback_ingest() -> None:
    """Wire the pass."""

    @task
    def ingest() -> dict[str, Any]:
        """Read every file in `landing/`, quarantine what is wrong, store the rest exactly once."""
        from pipeline.steps.feedback import feedback

        with workspace() as ws:
            result = feedback(ws, resolve_at(get_current_context()), progress=log.info)
        log.log(logging.WARNING if result.failed else logging.INFO, result.text())
        if not result.files:
            raise AirflowSkipException("nothing has landed")
        told = result.to_dict()
        del told["outcomes"]  # a line a file: it is in the log
        return told

    @task(outlets=[EVENTS])
    def announce_events(result: dict[str, Any]) -> None:
        """Tell the asset `nightjar_events` that the lake has new events."""
        if not result["events"]:
            raise AirflowSkipException("no new events were accepted")

    @task(outlets=[RETRAIN_REQUESTED])
    def request_retrain(result: dict[str, Any]) -> None:
        """Ask for a new model through the asset `nightjar_retrain_requested`."""
        if not result["retrain_wanted"]:
            raise AirflowSkipException(result["reason"])

    @task(retries=0)
    def verdict(result: dict[str, Any]) -> None:
        """Make a pass red in which a file was set aside, or waits for a better config."""
        if result["problems"]:
            raise AirflowFailException("; ".join(result["problems"]))

    result = ingest()
    announce_events(result)
    request_retrain(result)
    verdict(result)


feedback_ingest()
