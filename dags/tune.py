"""Search for better hyperparameters, on windows that end before the holdout of any later run.

**Schedule.** None: trigger the DAG with a budget. A new DAG is paused: unpause it first. It takes
the only slot of the workspace's pool of heavy tasks, so a nightly run that starts meanwhile waits
before it trains.

**Results.** A better recipe becomes a candidate: the next nightly run with a later as-of trains it
beside the others, under the name `tuned`, and its gate decides. Nothing is published here. If no
recipe is clearly better, the result reports it and the run is green.

**Messages.** A red run has a note with the reason and the next step, and is posted as a red run of
`nightly_retrain` is.

**Repeated runs.** A search that was killed, or whose budget is used up, resumes when the DAG is
triggered with the same `as_of` and `recipe`. A study with a later as-of starts with the best trials
of the last one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import (
    AirflowWorkspace,
    instant_param,
    leave_note,
    log,
    parse_param,
    recipe_param,
)
from dags.factory import nightjar_dag, workspace_task

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

MAX_BUDGET_S = 90 * 60.0
"""Longest budget: a task has two hours, and the last trial and the weights of a blend end after
the budget."""

PARAMS = {
    "budget": Param(
        "20m",
        type="string",
        pattern=r"^[0-9]{1,6}([.][0-9]+)?[smh]$",
        title="Budget",
        description="Duration of the search: 90s, 20m, 1h; at most 90m here.",
    ),
    "as_of": instant_param(
        "As of",
        "Instant that bounds the data of the search, with a time zone; runs with a later as-of "
        "evaluate the result. Empty means the as-of of the last nightly run.",
    ),
    "recipe": recipe_param,
}


@workspace_task(heavy=True)
def search(ws: Workspace) -> dict[str, Any]:
    """Try recipes until the budget is used up; a clearly better one becomes a candidate."""
    from pipeline.base import as_of
    from pipeline.errors import ConfigError
    from pipeline.steps.experiments.tuning import tune as tuning

    start = time.monotonic()
    context = get_current_context()
    params = context["params"]
    budget = tuning.parse_budget(params["budget"])
    if budget > MAX_BUDGET_S:
        raise ConfigError(
            "tuning.budget_too_long",
            f"a budget of {params['budget']} is too long for a task; give at most 90m, and "
            "trigger the DAG again to continue",
        )
    result = tuning.tune(
        ws,
        parse_param(context, "as_of")
        or tuning.default_as_of(ws, as_of(context["dag_run"].run_after)),
        budget=budget,
        elapsed=lambda: time.monotonic() - start,
        recipe=params["recipe"] or None,
        progress=log.info,
    )
    log.info(result.sentence)
    leave_note(result.sentence)
    names = ("study", "status", "sentence", "start", "best")
    return {name: getattr(result, name) for name in names}


@workspace_task()
def mirror(ws: Workspace, result: dict[str, Any]) -> str:
    """Record the study in MLflow: one run per trial, the figures and the result."""
    from pipeline.steps.experiments.tuning import report

    if result["start"] is None:
        raise AirflowSkipException(result["sentence"])
    return report.mirror(ws, result["study"], progress=log.info)


@nightjar_dag(tag="tune", doc_md=__doc__, params=PARAMS)
def tune(workspace: AirflowWorkspace) -> None:
    """Search for better hyperparameters."""
    mirror(workspace, search(workspace))
