"""Retrain the recommender, prove that the new model is better, and only then publish its lists.

**When.** Every night at 03:00 UTC, or as soon as `feedback_ingest` asks for it. Starts paused.

**Asked for.** A request is a wake-up and no order: the first task reads again whether a retrain is
wanted. If none is, because the request came twice or late, the night ends green as `nothing_to_do`,
or as `superseded` where one for that instant or a later one is done or at work.

**By hand.** Trigger it with an `as_of`: the night then sees exactly what was known at that
instant. An as-of that is not later than the live publication's is a replay, which moves nothing.

**In the grey zone.** With `ask = true` under `[gate]`, the task `ask` waits up to four hours for a
person (Airflow's page *Required actions*) where a candidate is better by all figures and nearly
proved. No answer means no switch.

**How it ends.** Green when a model was promoted (`first`, `switch`, `refresh`), when the champion
stays (`keep`: what would publish is skipped), when the night was done before (`already_done`), when
a request found nothing to do, and when nothing has happened for a week (`nothing_to_do`). Red when
the gate blocked or a task failed: the last task, `verdict`, says why in one sentence. Decisions and
red nights are also posted to the Airflow connection `nightjar_webhook`, if there is one.

**Again.** Clear a task or start the night again: each step hands back what it committed before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    Param,
    TriggerRule,
    chain,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dags.ask import Question, who_switches
from dags.common import (
    DEFAULT_ARGS,
    HEAVY,
    RETRAIN_REQUESTED,
    problem_of,
    resolve_as_of,
    was_asked_for,
    workspace,
)
from dags.verdict import PROMOTIONS, judge

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

log = logging.getLogger("airflow.task")

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description="The instant that decides everything the night sees, with a time zone; empty "
        "means when the run is due. The demo's data end in 2017: there, 2017-12-29T09:00:00Z has "
        "data.",
    ),
    "recipes": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Recipes",
        description="Names of configured recipes to train, one a line; empty means all. Baselines "
        "and the champion's recipe always ride along.",
    ),
    "publish": Param(
        True,
        type="boolean",
        title="Publish",
        description="Whether a model that the gate lets through goes before people.",
    ),
}


STARTED = "started"
"""XCom key of `snapshot`: Nightjar's run id, status and sentence. (Its value is what is mapped.)"""


def _started() -> dict[str, Any]:
    """Return what `snapshot` said, empty if it failed."""
    return get_current_context()["ti"].xcom_pull(task_ids="snapshot", key=STARTED) or {}


def _decided() -> dict[str, Any]:
    """Return what `gate` said, or a person instead; empty if nothing was decided."""
    ti = get_current_context()["ti"]
    return ti.xcom_pull(task_ids="accept") or ti.xcom_pull(task_ids="gate") or {}


@contextmanager
def _night(*, decided: bool = False, promoted: bool = False) -> Iterator[tuple[Workspace, str]]:
    """Open the workspace and the night; skips the task where it has nothing to do.

    That is where `snapshot` found nothing (more) to do, where the gate decided nothing though the
    task speaks of what it `decided`, and where it `promoted` nothing.
    """
    started, decision = _started(), _decided()
    if started["status"] != "new":
        raise AirflowSkipException(started["sentence"])
    if (decided or promoted) and not decision:
        raise AirflowSkipException("the gate decided nothing")
    if promoted and decision["kind"] not in PROMOTIONS:
        raise AirflowSkipException(decision["sentence"])
    with workspace() as ws:
        yield ws, started["run_id"]


@dag(
    description="Retrain, prove, publish.",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(
        # No start date and no grace: unpausing starts no run for a night that has passed.
        timetable=CronTriggerTimetable(
            "0 3 * * *", timezone="UTC", run_immediately=timedelta(seconds=0)
        ),
        assets=[RETRAIN_REQUESTED],
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["nightjar", "retrain"],
)
def nightly_retrain() -> None:
    """Wire the night."""

    @task
    def snapshot() -> list[str]:
        """Resolve the as-of, pin what the night sees, and name the recipes to train."""
        from pipeline.steps.nightly.requested import woken
        from pipeline.steps.nightly.snapshot import snapshot as begin

        context = get_current_context()
        params = context["params"]
        with workspace() as ws:
            started = (woken if was_asked_for(context) else begin)(
                ws,
                resolve_as_of(context),
                recipes=params["recipes"] or None,  # the form hands on an emptied field as []
                publish=params["publish"],
                progress=log.info,
            )
        log.info(started.sentence)
        begun = {
            "run_id": started.run_id,
            "status": started.status,
            "sentence": started.sentence,
        }
        context["ti"].xcom_push(key=STARTED, value=begun)
        return list(started.recipes)

    @task
    def validate() -> dict[str, Any]:
        """Judge the pinned data by named rules; a broken one stops the night."""
        with _night() as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.validate(ws, run_id, progress=log.info).to_dict()

    @task(execution_timeout=HEAVY["execution_timeout"])
    def features() -> dict[str, Any]:
        """Clean, split by time and weigh the events; what comes after the cut is the holdout."""
        with _night() as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.features(ws, run_id, progress=log.info).to_dict()

    @task(
        # A mapped task does not take its words from its docstring.
        doc_md="Train one recipe on what lies before the cut; a recipe that fails is left out.",
        map_index_template="{{ recipe_name }}",
        **HEAVY,
    )
    def train(recipe: str) -> dict[str, Any]:
        get_current_context()["recipe_name"] = recipe  # type: ignore[typeddict-unknown-key]
        with _night() as (ws, run_id):
            from pipeline.steps.nightly import nightly
            from pipeline.stores.runs import Ref

            trained = nightly.train(ws, run_id, recipe, progress=log.info)
        if not isinstance(trained, Ref):
            raise AirflowSkipException(trained.text())
        return trained.to_dict()

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS, **HEAVY)
    def evaluate() -> dict[str, Any]:
        """Score every recipe's lists against what people did after the cut."""
        with _night() as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.evaluate(ws, run_id, progress=log.info).to_dict()

    @task
    def gate() -> dict[str, Any]:
        """Decide, and say why: first, switch, refresh, keep or block."""
        with _night() as (ws, run_id):
            from pipeline.steps.nightly import nightly

            decided = nightly.gate(ws, run_id, progress=log.info)
        log.info(decided.sentence)
        return {"kind": decided.kind, "sentence": decided.sentence, "ask": decided.ask}

    ask = Question(
        task_id="ask",
        asked_by="gate",
        doc_md="Ask a person about a candidate in the grey zone, if the settings say so.",
    )

    @task
    def accept() -> dict[str, Any]:
        """Write a person's yes into the ledger; without one the gate's decision stands."""
        name = who_switches(get_current_context()["ti"].xcom_pull(task_ids="ask"))
        if name is None:
            raise AirflowSkipException("nobody chose to switch")
        with _night(decided=True) as (ws, run_id):
            from pipeline.steps.nightly import accept

            line = accept.accept_run(ws, run_id, by=name, because="answered in Airflow")
        log.info(line["sentence"])
        return {"kind": line["kind"], "sentence": line["sentence"]}

    @task(trigger_rule=TriggerRule.NONE_FAILED, **HEAVY)
    def refit() -> dict[str, Any]:
        """Train the winner once more, on everything up to the as-of."""
        with _night(promoted=True) as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.refit(ws, run_id, progress=log.info).to_dict()

    @task
    def cold_check() -> dict[str, Any]:
        """Load the refit's bytes in a fresh process: it must give the same lists."""
        with _night(promoted=True) as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.cold_check(ws, run_id, progress=log.info).to_dict()

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def register() -> dict[str, Any]:
        """Show the night in MLflow; a promoted model becomes a version there."""
        with _night(decided=True) as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.register(ws, run_id, progress=log.info).to_dict()

    @task
    def recommend() -> dict[str, Any]:
        """Make the list of every user, and one for those whom nobody knows."""
        with _night(promoted=True) as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.recommend(ws, run_id, progress=log.info).to_dict()

    @task
    def publish() -> dict[str, Any]:
        """Put the lists before people, all at once; a replay moves nothing."""
        with _night(promoted=True) as (ws, run_id):
            from pipeline.steps.nightly import nightly

            return nightly.publish(ws, run_id, progress=log.info).to_dict()

    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0)
    def verdict() -> dict[str, Any]:
        """Say how the night ended, tell the webhook, and make a failed night red."""
        from dags import webhook
        from pipeline.base import format_instant
        from pipeline.errors import ConfigError

        context = get_current_context()
        ti = context["ti"]
        states = ti.get_task_states(ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
        states.pop(ti.task_id, None)
        started = _started()
        problems = {
            name: problem
            for name, state in states.items()
            if state == "failed" and (problem := problem_of(name))
        }
        ended = judge(states, started, _decided(), problems)
        try:
            as_of = format_instant(resolve_as_of(context))
        except ConfigError:
            as_of = None
        night = {
            "dag": ti.dag_id,
            "run_id": started.get("run_id") or ti.run_id,
            "as_of": as_of,
            "status": ended.status,
            "sentence": ended.sentence,
        }
        if ended.is_news:
            webhook.post(night)
        log.info(ended.sentence)
        if ended.red:
            ti.xcom_push(key="return_value", value={**night, "exit_code": ended.exit_code})
            raise AirflowFailException(ended.sentence)
        return {**night, "exit_code": ended.exit_code}

    recipes, ready = snapshot(), features()
    chain(recipes, validate(), ready)
    chain(
        ready,
        train.expand(recipe=recipes),
        evaluate(),
        gate(),
        ask,
        accept(),
        refit(),
        cold_check(),
        register(),
        recommend(),
        publish(),
        verdict(),
    )


nightly_retrain()
