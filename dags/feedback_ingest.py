"""Take in what has landed, each file once, and fold it into the lists of the people who did it.

**When.** Every five minutes. Starts paused. A pass with nothing to take in is skipped, green; one
in which a file had to be set aside, or waits for a better config, is red and says which. The other
files were taken in all the same.

**What follows.** The live model makes new lists for the people who did something since theirs were
made, and for them alone; they go live at once. A pass that accepted events says so to whoever waits
for the asset `nightjar://lake/events`. If enough has changed for a new model, it asks for one
through `nightjar://retrain_requested`, which starts `nightly_retrain`. An asset's event may get
lost: the nightly schedule sweeps behind it. What there is to do is always read from the lake, so a
pass that died is made good by the next one, even if nothing new has landed.

**By hand.** With an `at`, events after that instant count as dated in the future and are
quarantined; without one, the pass is dated when it is due.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, dag, get_current_context, task
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
    description="Take in what has landed, and fold it into lists.",
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
        from pipeline.steps.ingest import ingest_landed

        with workspace() as ws:
            result = ingest_landed(ws, resolve_at(get_current_context()), progress=log.info)
        log.log(logging.WARNING if result.failed else logging.INFO, result.text())
        if not result.files:
            raise AirflowSkipException("nothing has landed")
        told = {**result.to_dict(), "events": result.events}
        del told["outcomes"]  # a line a file: it is in the log
        return told

    @task(outlets=[EVENTS])
    def announce_events(result: dict[str, Any]) -> None:
        """Tell the asset `nightjar_events` that the lake has new events."""
        if not result["events"]:
            raise AirflowSkipException("no new events were accepted")

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def foldin() -> dict[str, Any]:
        """Refresh the lists of the people who did something that theirs do not know."""
        from pipeline.steps.foldin import foldin as step

        with workspace() as ws:
            result = step(ws, resolve_at(get_current_context()), progress=log.info)
        log.info(result.text())
        if not result.users_refreshed:
            raise AirflowSkipException(result.sentence)
        return result.to_dict()

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def policy(result: dict[str, Any] | None) -> str:
        """Say whether a retrain is wanted, and why, by what the lake holds."""
        from pipeline.steps.feedback import policy as step

        if result is None:
            raise AirflowSkipException("nothing has landed")
        with workspace() as ws:
            wanted, reason = step(ws, resolve_at(get_current_context()))
        log.info(reason)
        if not wanted:
            raise AirflowSkipException(reason)
        return reason

    @task(outlets=[RETRAIN_REQUESTED])
    def request_retrain(reason: str) -> None:
        """Ask for a new model through the asset `nightjar_retrain_requested`."""
        log.info(reason)

    @task(retries=0, trigger_rule=TriggerRule.NONE_FAILED)
    def verdict(result: dict[str, Any] | None) -> None:
        """Make a pass red in which a file was set aside, or waits for a better config."""
        if result is None:
            raise AirflowSkipException("nothing has landed")
        if result["problems"]:
            raise AirflowFailException("; ".join(result["problems"]))

    result = ingest()
    announce_events(result)
    folded, judged = foldin(), verdict(result)
    wanted = policy(result)
    result >> folded >> [wanted, judged]
    request_retrain(wanted)


feedback_ingest()
