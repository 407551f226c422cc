"""Ingest new files, each once, and refresh the lists of users with new events.

**Schedule.** Every five minutes. A new DAG is paused: unpause it to start the schedule. In a pass
without new files and without work left by an earlier one, only the first task runs; the others are
skipped and the pass is green. A pass in which a file was rejected, or waits for a correction of the
config, is red and names the file; all other files are ingested. A file that waits, a link, or
another entry of `landing/` that is not a regular file makes one pass red; later passes only log a
warning.

**Results.** The live model computes new lists for the users with events since their last list, and
for no other user; the lists go live at once. A pass that accepted events updates the asset
`nightjar://lake/events`. Events are joined to the lists that were shown (attribution), and the last
days are compared with the reference period (drift). If the first model can be trained, or drift or
enough new events require a new one, the pass updates the asset `nightjar://retrain_requested`,
which starts `nightly_retrain`. An asset event can get lost, so each pass decides from the state of
the lake: the next pass requests the retrain again, even without new files. With `mode = "nightly"`
under `[schedule]` (the default) no pass requests a retrain.

**Messages.** A task that failed, and a night that did not start or is not over three hours after it
was due, are posted to the Airflow connection `nightjar_webhook`, if that exists: once per cause, as
those of `nightly_retrain`. A night counts only if the one before it began at a time of the same
cron.

**Manual runs.** With an `at`, events after that instant are quarantined as dated in the future.
Without one, the instant of the pass is the one at which the run is due; if that is before the last
ingest, the clock is wrong and the pass is refused. An `at` in the future is rejected before any
file is read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import TriggerRule, get_current_context
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)

from dags.common import (
    AirflowWorkspace,
    describe_events,
    instant_param,
    leave_note,
    log,
    resolve_at,
)
from dags.factory import nightjar_dag, nightjar_task, open_workspace, workspace_task
from dags.late_night import watch_nights
from dags.problems import PROBLEM, SEE_ABOVE

if TYPE_CHECKING:
    from pipeline.monitoring.verdicts import Drift
    from pipeline.steps.feedback.results import FoldinResult
    from pipeline.workspace.workspace import Workspace

MAX_PROBLEMS = 20
"""Largest number of problems of a pass in XCom; the log has all of them."""
_NEXT_STEP = "The next pass reads corrected files and a corrected config"


PARAMS = {
    "at": instant_param(
        "At",
        "Instant of the pass, with a time zone; empty means the instant at which the run is due. "
        "For the demo's data use 2017-12-29T09:00:00Z.",
    ),
}


@workspace_task()
def ingest(ws: Workspace) -> dict[str, Any]:
    """Read every file in `landing/`, quarantine invalid rows, and store all others exactly once."""
    from pipeline.base import plain
    from pipeline.steps.feedback.feedback import is_idle
    from pipeline.steps.ingest.ingest import ingest_landed

    context = get_current_context()
    by_hand = bool(context["params"]["at"])
    result = ingest_landed(ws, resolve_at(context), by_hand=by_hand, progress=log.info)
    level = logging.WARNING if result.failed or result.warnings else logging.INFO
    log.log(level, result.text())
    if not result.files and is_idle(ws, resolve_at(context), progress=log.info):
        # Skipped without a process, whatever their trigger rules are.
        raise DownstreamTasksSkipped(tasks=list(context["task"].get_flat_relative_ids()))
    if result.files:
        leave_note(result.sentence)
    summary = {**plain(result), "events": result.new_events}
    del summary["outcomes"], summary["warnings"]  # one row per file, which the log has
    if (more := len(summary["problems"]) - MAX_PROBLEMS) > 0:
        summary["problems"] = [*summary["problems"][:MAX_PROBLEMS], f"and {more:,} more"]
    return summary


@nightjar_task(emits="events")
def announce_events(ingested: dict[str, Any]) -> None:
    """Update the asset of new events."""
    if not ingested["events"]:
        raise AirflowSkipException("no new event was accepted")
    names = ("events", "files", "lake_version")
    describe_events(**{name: ingested[name] for name in names})


@workspace_task()
def foldin(ws: Workspace) -> FoldinResult:
    """Refresh the lists of users with events that their lists do not include yet."""
    from pipeline.steps.feedback.foldin import foldin

    result = foldin(ws, resolve_at(get_current_context()), progress=log.info)
    log.info(result.text())
    if not result.users_refreshed:
        raise AirflowSkipException(result.sentence)
    return result


@contextmanager
def _open_after_ingest(workspace: AirflowWorkspace) -> Iterator[Workspace]:
    if get_current_context()["ti"].xcom_pull(task_ids="ingest") is None:
        raise AirflowSkipException("ingest failed")
    with open_workspace(workspace) as ws:
        yield ws


@nightjar_task(opens=_open_after_ingest, trigger_rule=TriggerRule.ALL_DONE)
def attribution(ws: Workspace) -> dict[str, Any]:
    """Join the events since the last nightly run to the lists that were shown."""
    from pipeline.base import plain
    from pipeline.steps.feedback.attribution import last_attribution

    result = last_attribution(ws, resolve_at(get_current_context()), progress=log.info)
    if result is None:
        raise AirflowSkipException("no nightly run has decided yet")
    summary = {name: getattr(result, name) for name in ("users", "events", "joined", "unshown")}
    return {**summary, "claims": plain(result.claims)}


@workspace_task(trigger_rule=TriggerRule.NONE_FAILED)
def drift(ws: Workspace) -> Drift:
    """Compare the last days with the reference period; skipped if a retrain cannot follow."""
    from pipeline.steps.feedback.policy import drift_if_needed

    _require_requests(ws)
    result = drift_if_needed(ws, resolve_at(get_current_context()), progress=log.info)
    if result is None:
        raise AirflowSkipException("no event is new, or a retrain must wait after the last runs")
    return result


@workspace_task(trigger_rule=TriggerRule.NONE_FAILED)
def policy(ws: Workspace, drifted: dict[str, Any] | None) -> str:
    """Decide with reasons whether to request a retrain."""
    from pydantic import TypeAdapter

    from pipeline.monitoring.verdicts import Drift
    from pipeline.steps.feedback.policy import policy

    _require_requests(ws)
    # XCom carries plain values only, so the result is rebuilt from its dictionary.
    result = None if drifted is None else TypeAdapter(Drift).validate_python(drifted)
    decision = policy(ws, resolve_at(get_current_context()), drift=result, progress=log.info)
    log.info(decision.reason)
    leave_note(decision.reason)
    if not decision.wanted:
        raise AirflowSkipException(decision.reason)
    return decision.reason


@nightjar_task(emits="retrain_requested")
def request_retrain(reason: str) -> None:
    """Request a retrain by updating an asset."""
    log.info(reason)
    describe_events(reason=reason)


@nightjar_task(retries=0, trigger_rule=TriggerRule.NONE_FAILED)
def report_outcome(ingested: dict[str, Any]) -> None:
    """Fail if a file was rejected, waits for a correction of the config, or was not read."""
    if ingested["problems"]:
        for problem in ingested["problems"]:
            stays = "All other files are ingested, and the live lists stay live"
            log.error(f"{problem}. {stays}. {_NEXT_STEP}.")
        files = {
            "id": "ingest.files",
            "sentence": "; ".join(ingested["problems"]),
            "next_step": _NEXT_STEP,
        }
        get_current_context()["ti"].xcom_push(key=PROBLEM, value=files)
        raise AirflowFailException(SEE_ABOVE)


def _require_requests(ws: Workspace) -> None:
    if ws.config.schedule.mode == "nightly":
        raise AirflowSkipException('schedule.mode = "nightly": no pass requests a retrain')


@nightjar_dag(tag="feedback", doc_md=__doc__, params=PARAMS, cron="*/5 * * * *")
def feedback_ingest(workspace: AirflowWorkspace) -> None:
    """Ingest new files and fold them into lists."""
    ingested = ingest(workspace)
    ingested.operator.on_execute_callback = [watch_nights(workspace)]
    announce_events(workspace, ingested)
    folded = foldin(workspace)
    drifted = drift(workspace)
    # Directly after `ingest` as well: if it failed, no later task finds the same error again.
    ingested >> [folded, drifted]
    folded >> attribution(workspace) >> drifted
    request_retrain(workspace, policy(workspace, drifted))
    folded >> report_outcome(workspace, ingested)
