"""Keep the stores quick and small: compaction, checkpoints, and what nobody needs any more.

**When.** Every day at 02:37 UTC, between two passes of `feedback_ingest` and before the night,
which then pins tables whose files are few. Starts paused.

**What it does.** In the lake it puts small files together, makes checkpoints, and removes versions
that nothing has pinned, once they are a week old. It removes what `docs/STORES.md` gives a number
of days: rows in quarantine, archived and rejected files, lists that others replaced, scorers that
lost, nights that were abandoned. Rows, live lists and all that a kept night has pinned stay.

**Beside others.** A night at work is not disturbed, whenever it began. What another process holds
at that moment, such as a table while files are taken in, is left and tried again after ten minutes;
if it still is held after the last try, the run is red and says by whom.

**By hand.** With an `at`, ages are measured from that instant; without one, from when the run is
due.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from dags.common import DEFAULT_ARGS, resolve_at, workspace

log = logging.getLogger("airflow.task")

PARAMS = {
    "at": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="At",
        description="The instant that ages are measured from, with a time zone; empty means when "
        "the run is due.",
    ),
}


@dag(
    description="Put small files together, remove what nobody needs.",
    doc_md=__doc__,
    schedule=CronTriggerTimetable(
        "37 2 * * *", timezone="UTC", run_immediately=timedelta(seconds=0)
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["nightjar", "upkeep"],
)
def maintenance() -> None:
    """Wire the upkeep."""

    @task(retry_delay=timedelta(minutes=10), execution_timeout=timedelta(hours=2))
    def gc() -> dict[str, Any]:
        """Look after every store; what somebody holds is left, and tried again."""
        from pipeline.errors import ConcurrencyError
        from pipeline.steps.maintenance.gc import gc as step

        with workspace() as ws:
            result = step(ws, resolve_at(get_current_context()), progress=log.info)
            log.info(result.text())
            if result.left:
                raise ConcurrencyError(result.sentence)
        return result.to_dict()

    gc()


maintenance()
