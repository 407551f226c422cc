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
nothing. The id of a run of the trigger form begins with its as-of and recipes; an id that a user or
a client has chosen stays.

**Human review.** With `human_review = true` under `[gate]`, the task `review` waits up to four
hours for an answer on Airflow's page *Required actions*, if a candidate meets all rules but its
evidence is inconclusive. Without an answer the champion stays.

**Outcome.** Green: a model was promoted (`first`, `switch`, `refresh`); the champion stays (`keep`,
and publishing is skipped); an earlier run already decided (`already_done`); a request found nothing
to do, or the last seven days have no event (`nothing_to_do`). Red: the gate blocked, or a task
failed. The last task, `report_outcome`, writes the result into the note of the run: which lists are
live, or the failed task with its sentence and a link to its log; then the next step, and links to
the page of the night, the run in MLflow and the version. It also posts decisions, red runs and a
second scheduled run in a row with nothing to do to the Airflow connection `nightjar_webhook`, if
that exists. One cause is one message, whichever tasks and DAGs it stops; it is posted again after a
day, or if it comes back after one of these tasks has succeeded. A task that failed writes one line
of level ERROR: the cause, what stays live, the next step.

**Repeated runs.** Click *Clear Dag Run* on the page of a run: each step returns the result that it
has already committed, and the first one finds a changed config or new data.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    Context,
    Param,
    TaskGroup,
    TriggerRule,
    chain,
    get_current_context,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags import alerts, webhook
from dags.common import (
    AirflowWorkspace,
    asks_policy,
    instant_param,
    leave_note,
    log,
    recipes_param,
    resolve_as_of,
    run_address,
    task_address,
)
from dags.factory import (
    HEAVY_TASK_ARGS,
    nightjar_dag,
    nightjar_task,
    workspace_task,
)
from dags.links import ADDRESSES, LINKS, addresses
from dags.nightly_task import STARTED, NightlyRun, current_decision, nightly_task, started_run
from dags.problems import PROBLEM, SEE_ABOVE, log_problem, restart_text
from dags.review import ReviewOperator, approved_by
from dags.run_outcome import DECISIONS, PROMOTIONS, RunOutcome, determine_outcome

if TYPE_CHECKING:
    from pipeline.report.headline import Headline
    from pipeline.steps.nightly.register import Registered
    from pipeline.stores.runs import Ref
    from pipeline.workspace.workspace import Workspace

PARAMS = {
    "as_of": instant_param(
        "As of",
        "Instant that bounds all data of the run, with a time zone. Empty means the logical date; "
        "with a value here, the logical date changes nothing. The demo's data end in 2017: use "
        "2017-12-29T09:00:00Z there.",
    ),
    "recipes": recipes_param,
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
        airflow_run=run_address(context["ti"]),
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


# The label of an instance is its recipe, from its beginning, instead of an index.
@nightly_task(heavy=True, map_index_template="{{ task.op_kwargs['recipe'] }}")
def train(run: NightlyRun, recipe: str) -> Ref:
    """Train one recipe on the events before the cutoff; a recipe that fails is skipped."""
    from pipeline.steps.nightly.train import train
    from pipeline.stores.runs import Ref

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
def register(run: NightlyRun) -> Registered:
    """Record the run in MLflow; a promoted model becomes a version there."""
    from pipeline.steps.nightly.register import register
    from pipeline.workspace.night import register_folder
    from pipeline.workspace.registry import registry
    from pipeline.workspace.release_artifacts import MlflowFile

    ref = register(run.workspace, run.run_id, progress=run.progress)
    committed = run.workspace.run(run.run_id)
    copied = committed.read(MlflowFile, step=register_folder(committed))
    page = registry(run.workspace).run_page(copied.run)
    links = addresses(run.workspace, page, copied.version)
    get_current_context()["ti"].xcom_push(key=ADDRESSES, value=links)
    return ref


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
    recipes = ti.xcom_pull(task_ids="snapshot") or []
    outcome = _outcome(ti, recipes)
    as_of = _as_of_text(context)
    headline = _headline(workspace, outcome, f"{restart_text(ti.dag_id)}.")
    message = {
        **alerts.message(ti, outcome.status, outcome.sentence, headline=headline.text),
        "run_id": started_run().get("run_id") or ti.run_id,
        "as_of": as_of,
    }
    try:
        _post(workspace, ti, outcome, message)
    except Exception:
        log.exception("The outcome could not be posted.")  # the night itself may be good
    links = ti.xcom_pull(task_ids="register", key=ADDRESSES) or {}
    logs = _log_of(ti, outcome.task, recipes)
    first_line = _first_line(outcome, headline)
    news = "" if headline.fact in headline.news else headline.news
    named = ", ".join(f"[{name}]({address})" for name, address in (logs | links).items())
    when = f"As of {as_of}. " if as_of else ""  # the error about an invalid one contains it
    parts = (first_line, f"{news} {headline.todo}", f"{when}{named}")
    leave_note("\n\n".join(part.strip() for part in parts if part))
    ti.xcom_push(key=ADDRESSES, value=links)
    report = {**message, "exit_code": outcome.exit_code}
    if outcome.is_red:
        places = [f"({name}: {address})" for name, address in logs.items()]
        log_problem(workspace, " ".join([outcome.sentence, *places]), headline.todo)
        # A failed task returns no value; the runner reads this one.
        ti.xcom_push(key="return_value", value=report)
        raise AirflowFailException(SEE_ABOVE)
    log.info(headline.text)
    log.info(outcome.sentence)
    for name, address in links.items():
        log.info(f"{name}: {address}")
    return report


def _first_line(outcome: RunOutcome, headline: Headline) -> str:
    """Return the line of the note of which the interface shows the first 40 characters."""
    if outcome.status in ("failed", "already_done"):
        return f"{outcome.sentence}."
    if outcome.status in PROMOTIONS:
        return f"{headline.fact}."
    live = "Blocked, the live lists stay" if outcome.is_red else "The live lists stay"
    return f"{live}: {headline.fact}. Decision: {outcome.status}."


def _log_of(ti: Any, task: str, recipes: Sequence[str]) -> dict[str, str]:
    """Return the address of the log of a task by the text of its link; empty without a task."""
    if not task:
        return {}
    task_id, _, recipe = task.partition(" ")
    index = recipes.index(recipe) if recipe else -1
    return {f"log of {task}": task_address(ti, task_id, index)}


def _headline(workspace: AirflowWorkspace, outcome: RunOutcome, restart: str) -> Headline:
    """Return what happened and what to do."""
    from pipeline.report.headline import Headline, night_headline, no_run
    from pipeline.workspace.workspace import Workspace

    run_id = started_run().get("run_id")
    if not run_id and outcome.status != "failed":
        return no_run(outcome.sentence)
    if run_id:
        try:
            headline = night_headline(Workspace.open(workspace.home()).run(run_id))
        except Exception as error:  # the same damage may be the reason of a red run
            log.info(f"The headline cannot be read: {error}")
        else:
            # A run whose data or model were refused has a headline; one that broke has not.
            if outcome.status != "failed":
                return headline
            if headline.status == "act":
                return replace(headline, todo=f"{headline.todo} {restart}")
    sentence = outcome.sentence.rstrip(".")
    todo = restart if outcome.is_red else "Nothing to do."
    return Headline("act", f"{sentence}.", todo, sentence)


def _post(
    workspace: AirflowWorkspace, ti: Any, outcome: RunOutcome, message: dict[str, Any]
) -> None:
    """Post decisions, red runs and a second run in a row that had nothing to do."""
    dag_id, status = ti.dag_id, outcome.status
    mode = workspace.settings().schedule.mode
    if outcome.is_red:
        place = alerts.place_of(ti, outcome.task.partition(" ")[0])
        alerts.report(workspace, outcome.cause, message, place=place)
    elif status == "nothing_to_do" and not asks_policy(get_current_context(), mode):
        alerts.report(workspace, f"{dag_id} {status}", message, place=dag_id, after=2)
    elif status in DECISIONS:
        alerts.end(workspace, dag_id)
        webhook.post(workspace.webhook_connection, message)


def _outcome(ti: Any, recipes: Sequence[str]) -> RunOutcome:
    """Return the outcome of the run; an instance of `train` has the name of its recipe."""
    names = {f"train_{index}": f"train {recipe}" for index, recipe in enumerate(recipes)}
    reached = ti.get_task_states(ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
    reached.pop(ti.task_id, None)  # this task, which is still running
    states, problems = {}, {}
    for task, state in reached.items():
        name = names.get(task, task)
        states[name] = state
        place = {"task_ids": task}
        if task in names:
            place = {"task_ids": "train", "map_indexes": int(task.removeprefix("train_"))}
        if state == "failed" and (problem := ti.xcom_pull(key=PROBLEM, **place)):
            problems[name] = problem
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
    with TaskGroup("data", prefix_group_id=False, tooltip="Pin, check and split the data."):
        recipes = snapshot(workspace)
        checked, prepared = validate(workspace), features(workspace)
    with TaskGroup("models", prefix_group_id=False, tooltip="Train, evaluate and decide."):
        trained, evaluated = train.expand(workspace, recipe=recipes), evaluate(workspace)
        decided = gate(workspace)
        reviewed, accepted = ReviewOperator(task_id="review", gate_task="gate"), accept(workspace)
    with TaskGroup("release", prefix_group_id=False, tooltip="Record the run; put lists live."):
        tested = refit(workspace), cold_check(workspace)
        live = register(workspace), recommend(workspace), publish(workspace)
    reported = report_outcome(workspace)
    reported.operator.operator_extra_links = LINKS
    chain(recipes, checked, prepared, trained, evaluated, decided, reviewed, accepted)
    chain(accepted, *tested, *live, reported)
