"""Keep the stores fast and small: compact the lake and remove data that have become unnecessary.

**Schedule.** Every day at 02:37 UTC, between two passes of `feedback_ingest` and before the default
time of the nightly run, so that the run pins tables with few files. A new DAG is paused: unpause it
to start the schedule.

**Work.** In the lake, merge small files, write checkpoints, and remove versions that no run has
pinned once they are a week old. Remove the data that `docs/STORES.md` limits to a number of days:
rows in quarantine, archived and rejected files, replaced lists, scorers of recipes that were not
promoted, abandoned runs. All other rows, live lists, and everything that a kept run has pinned
stay.

**Other processes.** A nightly run in progress is not disturbed, whenever it started. A store that
another process has locked at that moment, such as a table during ingest, is left out and retried
after ten minutes. If it is still locked after the last retry, the run is red and names the process.

**Messages.** A red run is posted to the Airflow connection `nightjar_webhook`, if that exists: once
per cause, as those of `nightly_retrain`.

**Manual runs.** With an `at`, ages are measured from that instant; without one, from the instant at
which the run is due, or, where `publish.live_from` is `as_of`, from the last ingest. An instant
more than a year after the last ingest is refused, as a wrong clock would remove nearly everything;
the param `yes` allows it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import Param, get_current_context

from dags.common import AirflowWorkspace, instant_param, log, resolve_at
from dags.factory import HEAVY_TASK_ARGS, nightjar_dag, workspace_task

if TYPE_CHECKING:
    from pipeline.steps.maintenance.gc import GcResult
    from pipeline.workspace.workspace import Workspace

PARAMS = {
    "at": instant_param(
        "At",
        "Instant from which ages are measured, with a time zone; empty means the instant at "
        "which the run is due.",
    ),
    "yes": Param(
        False,
        type="boolean",
        title="Far ahead",
        description="Allow an instant that is more than a year after the last ingest.",
    ),
}


@workspace_task(**HEAVY_TASK_ARGS, retry_delay=timedelta(minutes=10))
def gc(ws: Workspace) -> GcResult:
    """Maintain every store; fail if another process has locked one, so that Airflow retries."""
    from pipeline.errors import ConcurrencyError
    from pipeline.steps.maintenance.gc import gc, instant_of_ages

    context = get_current_context()
    by_hand, far_ahead = bool(context["params"]["at"]), bool(context["params"]["yes"])
    at = instant_of_ages(ws, resolve_at(context), by_hand=by_hand, far_ahead=far_ahead)
    result = gc(ws, at, progress=log.info)
    log.info(result.text())
    if result.left:
        raise ConcurrencyError("lock.held", result.sentence)
    return result


# Before a nightly run at 03:00: a pinned version keeps its small files until the run is removed.
@nightjar_dag(tag="maintenance", doc_md=__doc__, params=PARAMS, cron="37 2 * * *")
def maintenance(workspace: AirflowWorkspace) -> None:
    """Compact the stores and remove data that have become unnecessary."""
    gc(workspace)
