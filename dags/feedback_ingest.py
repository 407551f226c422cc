"""Take in what has landed, each file once, and fold it into the lists of the people who did it.

**When.** Every five minutes. Starts paused. A pass with nothing to take in is skipped, green; one
in which a file had to be set aside, or waits for a better config, is red and says which. The other
files were taken in all the same.

**What follows.** The live model makes new lists for the people who did something since theirs were
made, and for them alone; they go live at once. A pass that accepted events says so to whoever waits
for the asset `nightjar://lake/events`. What people did is joined to the lists that they were shown,
and the last days are held against those before them. If that, or enough new events, asks for a new
model, the pass says so through `nightjar://retrain_requested`, which starts `nightly_retrain`. An
asset's event may get lost: what there is to do is always read from the lake, so the next pass asks
again, even if nothing new has landed, and the nightly schedule sweeps behind.

**By hand.** With an `at`, events after that instant count as dated in the future and are
quarantined; without one, the pass is dated when it is due. An `at` that lies in the future is
refused, before anything is taken in.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags.common import DEFAULT_ARGS, EVENTS, RETRAIN_REQUESTED, resolve_at, workspace

log = logging.getLogger("airflow.task")

MOST_PROBLEMS = 20
"""What is handed on of a pass in which many files have one; all are in the log."""
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
        from pipeline.steps.ingest.ingest import ingest_landed

        with workspace() as ws:
            result = ingest_landed(ws, resolve_at(get_current_context()), progress=log.info)
        log.log(logging.WARNING if result.failed else logging.INFO, result.text())
        if not result.files:
            raise AirflowSkipException("nothing has landed")
        told = {**result.to_dict(), "events": result.events}
        del told["outcomes"]  # a line a file: it is in the log
        if (more := len(told["problems"]) - MOST_PROBLEMS) > 0:
            told["problems"] = [*told["problems"][:MOST_PROBLEMS], f"and {more:,} more"]
        return told

    @task(outlets=[EVENTS])
    def announce_events(result: dict[str, Any]) -> None:
        """Tell the asset `nightjar_events` that the lake has new events."""
        if not result["events"]:
            raise AirflowSkipException("no new events were accepted")

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def foldin() -> dict[str, Any]:
        """Refresh the lists of the people who did something that theirs do not know."""
        from pipeline.steps.feedback.foldin import foldin as step

        with workspace() as ws:
            result = step(ws, resolve_at(get_current_context()), progress=log.info)
        log.info(result.text())
        if not result.users_refreshed:
            raise AirflowSkipException(result.sentence)
        return result.to_dict()

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def answers() -> dict[str, Any]:
        """Join what people did since the last night to the lists that they were shown."""
        from pipeline.steps.feedback.attribution import lately_answered

        with workspace() as ws:
            found = lately_answered(ws, resolve_at(get_current_context()), progress=log.info)
        if found is None:
            raise AirflowSkipException("no night has decided yet")
        log.info(found.text())
        told = found.to_dict()
        return {name: told[name] for name in ("people", "events", "joined", "unshown", "claims")}

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def drift() -> dict[str, Any]:
        """Hold the last days against those before them, unless no retrain could follow from it."""
        from pipeline.steps.feedback.policy import drift_if_needed

        with workspace() as ws:
            found = drift_if_needed(ws, resolve_at(get_current_context()), progress=log.info)
        if found is None:
            raise AirflowSkipException("nothing is new, or a retrain has to wait anyway")
        log.info(found.sentence)
        return found.to_dict()

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def policy(seen: dict[str, Any] | None) -> str:
        """Say whether a retrain is wanted, and why, by what the lake holds."""
        from pipeline.monitoring.verdicts import Drift
        from pipeline.steps.feedback.policy import policy as step

        drift = None if seen is None else Drift.from_dict(seen)
        with workspace() as ws:
            ruling = step(ws, resolve_at(get_current_context()), drift=drift, progress=log.info)
        log.info(ruling.reason)
        if not ruling.wanted:
            raise AirflowSkipException(ruling.reason)
        return ruling.reason

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
    folded, judged, seen = foldin(), verdict(result), drift()
    result >> folded >> judged
    folded >> answers() >> seen
    request_retrain(policy(seen))


feedback_ingest()
