"""What the DAGs share, and the only code that knows Airflow's dates.

Promises: an as-of is resolved here and nowhere else; an expected failure reaches Airflow as its
one sentence, retried only where a retry can help; nothing but scalars and dicts goes into XCom.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Context, get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

HEAVY_POOL = "nightjar_heavy"
POOLS = {
    HEAVY_POOL: (1, "What may fill the machine, one at a time: train, evaluate, refit, search."),
}
"""Pool -> its slots and what it is for; `dags/environment.py` creates them."""

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "nightjar",
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "execution_timeout": timedelta(minutes=30),
}
HEAVY: dict[str, Any] = {"pool": HEAVY_POOL, "execution_timeout": timedelta(hours=2)}
"""What a task that may fill the machine adds to `DEFAULT_ARGS`."""

EVENTS = Asset(name="nightjar_events", uri="nightjar://lake/events", group="nightjar")
RETRAIN_REQUESTED = Asset(
    name="nightjar_retrain_requested", uri="nightjar://retrain_requested", group="nightjar"
)

PROBLEM = "problem"
"""XCom key under which a failed task leaves ``{sentence, exit_code}`` for the verdict."""


def home() -> Path:
    """Return the workspace's folder: `NIGHTJAR_HOME`, else `var` beside the DAGs' folder."""
    return Path(os.environ.get("NIGHTJAR_HOME") or Path(__file__).resolve().parents[1] / "var")


def resolve_as_of(context: Context) -> datetime:
    """Return the as-of of a run, in UTC.

    It is the param `as_of` if given, else the end of the run's data interval if it has one, else
    its `run_after`: a run that an asset triggered has neither logical date nor data interval.
    A param without a time zone raises `ConfigError`, and so does one that lies in the future: a
    night would promise to know what nobody has done yet, and no night before it could publish.
    """
    run = context["dag_run"]
    return come(context, "as_of") or _utc(run.data_interval_end or run.run_after)


def given_as_of(context: Context) -> datetime | None:
    """Return the as-of that a run was given, in UTC, ``None`` without."""
    return _given(context, "as_of")


def was_asked_for(context: Context) -> bool:
    """Say whether an asset's event started the run, neither its schedule nor a person."""
    return bool(context["dag_run"].run_type == "asset_triggered")


def resolve_at(context: Context) -> datetime:
    """Return the instant of an ingest pass, in UTC: the param `at` if given, else `run_after`.

    One that lies in the future raises `ConfigError`, before anything is taken in: what arrived then
    would be there to no night before it.
    """
    return come(context, "at") or _utc(context["dag_run"].run_after)


def come(context: Context, param: str) -> datetime | None:
    """Return the instant of a param, in UTC; one after the run is due raises `ConfigError`."""
    from pipeline.base import format_instant
    from pipeline.errors import ConfigError

    given, due = _given(context, param), _utc(context["dag_run"].run_after)
    if given is not None and given > due:
        raise ConfigError(
            f"{param} = {format_instant(given)} lies in the future: the run is due at "
            f"{format_instant(due)}"
        )
    return given


def _given(context: Context, param: str) -> datetime | None:
    from pipeline.base import parse_instant

    text = context["params"][param]
    return parse_instant(text) if text else None


def _utc(instant: datetime) -> datetime:
    from pipeline.base import to_utc

    return to_utc(instant)


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Open the workspace; an expected failure inside becomes Airflow's, with its sentence.

    A store that cannot be reached or is locked may be there a minute later: Airflow retries.
    Everything else that Nightjar refuses it would refuse again: the task fails at once.
    """
    from pipeline.errors import NightjarError, StorageError
    from pipeline.workspace.workspace import Workspace

    try:
        yield Workspace.open(home())
    except NightjarError as error:
        problem = {"sentence": error.sentence, "exit_code": error.exit_code}
        get_current_context()["ti"].xcom_push(key=PROBLEM, value=problem)
        if isinstance(error, StorageError):
            raise AirflowException(error.sentence) from error
        raise AirflowFailException(error.sentence) from error


def problem_of(name: str) -> dict[str, Any] | None:
    """Return what a failed task of this run left under `PROBLEM`, ``None`` if it was a bug.

    `name` ends in ``_3`` for the fourth instance of a mapped task.
    """
    pull = get_current_context()["ti"].xcom_pull
    task_id, _, index = name.rpartition("_")
    problem: dict[str, Any] | None
    if index.isdigit():
        problem = pull(task_ids=task_id, map_indexes=int(index), key=PROBLEM)
    else:
        problem = pull(task_ids=name, key=PROBLEM)
    return problem
