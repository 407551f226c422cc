"""Retrain the recommender, test whether the new model is better, and publish its lists if it is.

**Schedule.** Section `[schedule]` of `nightjar.toml` chooses it: `mode = "nightly"` (the default)
starts a run at the times of `cron` in the time zone `timezone`, by default every day at 03:00 UTC;
`adaptive` starts one when `feedback_ingest` requests a retrain; `both` does both. Airflow reads a
change within a minute. A new DAG is paused: unpause it to start the schedule.

**Requests.** A request only starts a run. The first task checks again whether a retrain is needed,
because a request can arrive twice or late. If none is needed, the run ends green as
`nothing_to_do`, or as `superseded` if a run of the same or a later instant is done or in progress.
Under `adaptive` the times of `cron` are requests as well, in case no feedback pass could make one.

**Manual runs.** Trigger the DAG with an `as_of`: the run uses only data from before that instant.
If the as-of is not later than that of the live publication, the run is a replay and changes
nothing.

**Human review.** With `human_review = true` under `[gate]`, the task `review` waits up to four
hours for an answer on Airflow's page *Required actions*, if a candidate meets all rules but its
evidence is inconclusive. Without an answer the champion stays.

**Outcome.** Green: a model was promoted (`first`, `switch`, `refresh`); the champion stays (`keep`,
and publishing is skipped); an earlier run already decided (`already_done`); a request found nothing
to do, or the last seven days have no event (`nothing_to_do`). Red: the gate blocked, or a
task failed. The last task, `report_outcome`, gives the reason in one sentence. It also posts
decisions and red runs to the Airflow connection `nightjar_webhook`, if that exists.

**Repeated runs.** Clear a task or start the run again: each step returns the result that it has
already committed.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    Context,
    Param,
    TriggerRule,
    chain,
    get_current_context,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags import webhook
from dags.common import (
    AirflowWorkspace,
    asks_policy,
    instant_param,
    log,
    resolve_as_of,
)
from dags.factory import (
    HEAVY_TASK_ARGS,
    nightjar_dag,
    nightjar_task,
    task_problem,
    workspace_task,
)
from dags.nightly_task import STARTED, NightlyRun, current_decision, nightly_task, started_run
from dags.review import ReviewOperator, approved_by
from dags.run_outcome import RunOutcome, determine_outcome

if TYPE_CHECKING:
    from pipeline.stores.runs import Ref
    from pipeline.workspace.workspace import Workspace

PARAMS = {
    "as_of": instant_param(
        "As of",
        "Instant that bounds all data of the run, with a time zone; empty means the instant at "
        "which the run is due. The demo's data end in 2017: use 2017-12-29T09:00:00Z there.",
    ),
    "recipes": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Recipes",
        description="Names of configured recipes to train, one per line; empty means all. "
        "Baselines and the champion's recipe are always included.",
    ),
    "publish": Param(
        True,
        type="boolean",
        title="Publish",
        description="Whether a promoted model's lists go live.",
    ),
}


@workspace_task()
def snapshot(ws: Workspace) -> list[str]:
    """Resolve the as-of, pin the versions that the run reads, and return the recipes to train."""
    # Imports of `pipeline` are in the bodies of tasks, so that the file is parsed fast (ADR 6).
    from pipeline.steps.nightly.requested import start_requested
    from pipeline.steps.nightly.snapshot import snapshot

    context = get_current_context()
    params = context["params"]
    by_policy = asks_policy(context, ws.config.schedule.mode)
    start = start_requested if by_policy else snapshot
    started = start(
        ws,
        resolve_as_of(context),
        recipes=params["recipes"] or None,  # Airflow's form passes an emptied field as []
        publish=params["publish"],
        progress=log.info,
    )
    log.info(started.sentence)
    # The return value must be the list alone: `train` is mapped over it.
    names = ("run_id", "status", "sentence")
    context["ti"].xcom_push(key=STARTED, value={name: getattr(started, name) for name in names})
    return list(started.recipes)


@nightly_task()
def validate(run: NightlyRun) -> Ref:
    """Check the pinned data against the declared rules; a failed check stops the run."""
    from pipeline.steps.nightly.validate import validate

    return validate(run.workspace, run.run_id, progress=run.progress)


@nightly_task(**HEAVY_TASK_ARGS)
def features(run: NightlyRun) -> Ref:
    """Clean the events, split them at the cutoff, and compute their weights."""
    from pipeline.steps.nightly.features import features

    return features(run.workspace, run.run_id, progress=run.progress)


@nightly_task(heavy=True, map_index_template="{{ recipe_name }}")
def train(run: NightlyRun, recipe: str) -> Ref:
    """Train one recipe on the events before the cutoff; a recipe that fails is skipped."""
    from pipeline.steps.nightly.train import train
    from pipeline.stores.runs import Ref

    # Airflow's page then shows the recipe instead of an index.
    get_current_context()["recipe_name"] = recipe  # type: ignore[typeddict-unknown-key]
    trained = train(run.workspace, run.run_id, recipe, progress=run.progress)
    if not isinstance(trained, Ref):
        # Skipped, not failed: `evaluate` compares the other recipes.
        raise AirflowSkipException(trained.text())
    return trained


# A recipe that was skipped must not skip the comparison of the others.
@nightly_task(heavy=True, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
def evaluate(run: NightlyRun) -> Ref:
    """Score the lists of every recipe against the events of the holdout."""
    from pipeline.steps.nightly.evaluate import evaluate

    return evaluate(run.workspace, run.run_id, progress=run.progress)


@nightly_task()
def gate(run: NightlyRun) -> dict[str, Any]:
    """Decide with reasons: first, switch, refresh, keep or block."""
    from pipeline.steps.nightly.gate import gate

    decision = gate(run.workspace, run.run_id, progress=run.progress)
    log.info(decision.sentence)
    return {"kind": decision.kind, "sentence": decision.sentence, "review": decision.needs_review}


@nightly_task(needs="decision")
def accept(run: NightlyRun) -> dict[str, Any]:
    """Record the operator's choice to switch in the ledger; else the gate's decision stands."""
    from pipeline.steps.nightly.accept import accept_run

    user = approved_by(get_current_context()["ti"].xcom_pull(task_ids="review"))
    if user is None:
        raise AirflowSkipException("no user chose to switch")
    entry = accept_run(run.workspace, run.run_id, by=user, reason="answered in Airflow")
    log.info(entry.sentence)
    return {"kind": entry.kind, "sentence": entry.sentence}


# `accept` is skipped unless a user chose to switch.
@nightly_task(needs="promotion", heavy=True, trigger_rule=TriggerRule.NONE_FAILED)
def refit(run: NightlyRun) -> Ref:
    """Train the promoted recipe again, on all events before the as-of."""
    from pipeline.steps.nightly.refit import refit

    return refit(run.workspace, run.run_id, progress=run.progress)


@nightly_task(needs="promotion")
def cold_check(run: NightlyRun) -> Ref:
    """Load the refitted model in a new process and check that it returns the same lists."""
    from pipeline.steps.nightly.cold_check import cold_check

    return cold_check(run.workspace, run.run_id, progress=run.progress)


# A run that keeps the champion skips the tasks before, and is recorded all the same.
@nightly_task(needs="decision", trigger_rule=TriggerRule.NONE_FAILED)
def register(run: NightlyRun) -> Ref:
    """Record the run in MLflow; a promoted model becomes a version there."""
    from pipeline.steps.nightly.register import register

    return register(run.workspace, run.run_id, progress=run.progress)


@nightly_task(needs="promotion")
def recommend(run: NightlyRun) -> Ref:
    """Compute the list of every user, and the fallback list for all others."""
    from pipeline.steps.nightly.recommend import recommend

    return recommend(run.workspace, run.run_id, progress=run.progress)


@nightly_task(needs="promotion")
def publish(run: NightlyRun) -> Ref:
    """Put all lists live in one commit; a replay changes nothing."""
    from pipeline.steps.nightly.publish import publish

    return publish(run.workspace, run.run_id, progress=run.progress)


# Airflow calls a run green if its last task succeeded, so this one has to fail itself (ADR 6).
@nightjar_task(opens=nullcontext, trigger_rule=TriggerRule.ALL_DONE, retries=0)
def report_outcome(workspace: AirflowWorkspace) -> dict[str, Any]:
    """Report how the run ended, post it to the webhook, and fail if the run failed."""
    context = get_current_context()
    ti = context["ti"]
    outcome = _outcome(ti)
    message = {
        "dag": ti.dag_id,
        "run_id": started_run().get("run_id") or ti.run_id,
        "as_of": _as_of_text(context),
        "status": outcome.status,
        "sentence": outcome.sentence,
    }
    if outcome.is_posted:
        webhook.post(workspace.webhook_connection, message)
    log.info(outcome.sentence)
    report = {**message, "exit_code": outcome.exit_code}
    if outcome.is_red:
        # A failed task returns no value; the runner reads this one.
        ti.xcom_push(key="return_value", value=report)
        raise AirflowFailException(outcome.sentence)
    return report


def _outcome(ti: Any) -> RunOutcome:
    states = ti.get_task_states(ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
    states.pop(ti.task_id, None)  # this task, which is still running
    problems = {
        name: problem
        for name, state in states.items()
        if state == "failed" and (problem := task_problem(name))
    }
    return determine_outcome(states, started_run(), current_decision(), problems)


def _as_of_text(context: Context) -> str | None:
    """Return the run's as-of, or ``None`` if the param is not valid."""
    from pipeline.base import format_instant
    from pipeline.errors import ConfigError

    try:
        return format_instant(resolve_as_of(context))
    # `snapshot` has failed for this param already; the report must be posted in any case.
    except ConfigError:
        return None


@nightjar_dag(tag="retrain", doc_md=__doc__, params=PARAMS, retrains=True)
def nightly_retrain(workspace: AirflowWorkspace) -> None:
    """Retrain, evaluate, publish."""
    recipes = snapshot(workspace)
    prepared = features(workspace)
    chain(recipes, validate(workspace), prepared)
    chain(
        prepared,
        train.expand(workspace, recipe=recipes),
        evaluate(workspace),
        gate(workspace),
        ReviewOperator(task_id="review", gate_task="gate"),
        accept(workspace),
        refit(workspace),
        cold_check(workspace),
        register(workspace),
        recommend(workspace),
        publish(workspace),
        report_outcome(workspace),
    )
