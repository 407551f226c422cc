"""Search for better hyper-parameters, on windows that end before the holdout of any later night.

**When.** By hand alone: trigger it with a budget. Starts paused. It holds the machine's one heavy
slot meanwhile, so a night that begins then waits.

**What follows.** What it finds is a candidate: the next night with a later as-of trains it beside
the others, under the name `tuned`, and its gate decides. Nothing is published here. If nothing is
clearly better, it says so, and that is green, too.

**Again.** A search that was killed, or whose budget is over, goes on where it stopped when it is
triggered with the same `as_of` and `recipe`. A study of a later as-of begins with the best trials
of the last one.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from dags.common import DEFAULT_ARGS, HEAVY, given_as_of, workspace

log = logging.getLogger("airflow.task")

LONGEST = 90 * 60.0
"""Seconds that a budget may be: a task has two hours, and the last trial and the mixture follow."""

PARAMS = {
    "budget": Param(
        "20m",
        type="string",
        pattern=r"^[0-9]{1,6}([.][0-9]+)?[smh]$",
        title="Budget",
        description="How long to search: 90s, 20m, 1h; at most 90m here.",
    ),
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description="The instant whose knowledge is searched, with a time zone; nights with a "
        "later one judge what is found. Empty means the last night's.",
    ),
    "recipe": Param(
        None,
        type=["null", "string"],
        title="Recipe",
        description="Name of the recipe to begin with; empty means the champion's.",
    ),
}


@dag(
    description="Search for better hyper-parameters.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["nightjar", "tune"],
)
def tune() -> None:
    """Wire the search."""

    @task(**HEAVY)
    def search() -> dict[str, Any]:
        """Try recipes until the budget is over; a clearly better one becomes a candidate."""
        from pipeline.errors import ConfigError
        from pipeline.steps.experiments.tuning import tune as steps

        start = time.monotonic()
        context = get_current_context()
        params = context["params"]
        with workspace() as ws:
            budget = steps.parse_budget(params["budget"])
            if budget > LONGEST:
                raise ConfigError(
                    f"a budget of {params['budget']} is too long for a task; give at most 90m, and "
                    "trigger it again to go on"
                )
            now = context["dag_run"].run_after
            found = steps.tune(
                ws,
                given_as_of(context) or steps.default_as_of(ws, now),
                budget=budget,
                elapsed=lambda: time.monotonic() - start,
                recipe=params["recipe"] or None,
                progress=log.info,
            )
        log.info(found.sentence)
        return {
            "study": found.study,
            "status": found.status,
            "sentence": found.sentence,
            "start": found.start,
            "best": found.best,
        }

    @task
    def mirror(found: dict[str, Any]) -> str:
        """Show the study in MLflow: a run a trial, the figures, what was found."""
        from airflow.sdk.exceptions import AirflowSkipException

        from pipeline.steps.experiments.tuning import report

        if found["start"] is None:
            raise AirflowSkipException(found["sentence"])
        with workspace() as ws:
            return report.mirror(ws, found["study"], progress=log.info)

    mirror(search())


tune()
