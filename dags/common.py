"""Names of workspaces, pools and assets, and Airflow's dates: shared by all DAGs.

Guarantees:

* All ids, pools, assets, tags, connections and folders of a workspace follow from its name.
* Airflow's dates become the as-of of a run here and nowhere else, in UTC.
* A param that is an instant without a time zone, or in the future, raises `ConfigError`.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, Context, Param, get_current_context

from dags.settings import DagSettings, read_settings

if TYPE_CHECKING:
    from pipeline.base import AsOf

DEFAULT_NAME = "nightjar"
NOTE = "note"
"""XCom key of the text that becomes the note of the run (`dags.plugins.run_note`)."""

log = logging.getLogger("airflow.task")
"""Log of the task that runs."""


@dataclass(frozen=True)
class AirflowWorkspace:
    """Airflow's names for one workspace.

    The default workspace has DAG ids without a prefix (`nightly_retrain`) and lies in the folder
    `NIGHTJAR_HOME`. A workspace `shop` has the DAG `shop_nightly_retrain`, the pool `shop_heavy`,
    the asset `shop_events` and the folder `NIGHTJAR_HOME_SHOP`.

    Attributes
    ----------
    name
        Lower-case letters, digits and underscores; starts with a letter.
    """

    name: str = DEFAULT_NAME

    def __post_init__(self) -> None:
        # The name becomes part of ids, of asset URIs and of an environment variable.
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise ValueError(
                f"the workspace name {self.name!r} must have only lower-case letters, digits and "
                "underscores, and start with a letter"
            )

    @property
    def is_default(self) -> bool:
        """True for the default workspace, whose DAG ids have no prefix."""
        return self.name == DEFAULT_NAME

    def dag_id(self, dag: str) -> str:
        """Return the id of this workspace's DAG `dag`."""
        return dag if self.is_default else f"{self.name}_{dag}"

    @property
    def heavy_pool(self) -> str:
        """Pool of the tasks that can use the whole machine."""
        return f"{self.name}_heavy"

    @property
    def events(self) -> Asset:
        """Asset that is updated when the lake has new events."""
        return self._asset("events", "lake/events")

    @property
    def retrain_requested(self) -> Asset:
        """Asset that is updated when a feedback pass requests a retrain."""
        return self._asset("retrain_requested", "retrain_requested")

    @property
    def webhook_connection(self) -> str:
        """Id of the Airflow connection that outcomes are posted to."""
        return f"{self.name}_webhook"

    @property
    def home_variable(self) -> str:
        """Environment variable that names the workspace's folder."""
        return "NIGHTJAR_HOME" if self.is_default else f"NIGHTJAR_HOME_{self.name.upper()}"

    def home(self) -> Path:
        """Return the workspace's folder.

        Without the variable the default workspace is `var` beside the folder of the DAGs; any
        other workspace raises `ConfigError`.
        """
        if folder := self._folder():
            return folder
        # In the body: a DAG file is parsed without importing `pipeline` (ADR 6).
        from pipeline.errors import ConfigError

        raise ConfigError(
            "workspace.variable_missing",
            f"{self.home_variable} is not set; it must name the folder of workspace {self.name}",
        )

    def settings(self) -> DagSettings:
        """Return the schedule and the names of the recipes; it may be called at parse time."""
        folder = self._folder()
        return DagSettings() if folder is None else read_settings(folder / "nightjar.toml")

    def _folder(self) -> Path | None:
        if folder := os.environ.get(self.home_variable):
            return Path(folder)
        return Path(__file__).resolve().parents[1] / "var" if self.is_default else None

    def _asset(self, name: str, path: str) -> Asset:
        root = "nightjar://" if self.is_default else f"nightjar://{self.name}/"
        return Asset(name=f"{self.name}_{name}", uri=f"{root}{path}", group=self.name)


WORKSPACES = (AirflowWorkspace(),)
"""Workspaces that have DAGs."""


def pools() -> dict[str, tuple[int, str]]:
    """Return each pool's number of slots and description; `dags.local.environment` creates them."""
    description = "Tasks that can use the whole machine, one at a time: train, evaluate, search."
    return {workspace.heavy_pool: (1, description) for workspace in WORKSPACES}


def instant_param(title: str, description: str, *, required: bool = False) -> Param:
    """Return a param for an instant.

    Parameters
    ----------
    title, description
        Texts of the trigger form.
    required
        Whether a run without it is refused; otherwise the param may stay empty.

    Returns
    -------
    Param with format ``date-time``.
    """
    # Airflow validates an empty field against the type, so null has to be allowed.
    kind = "string" if required else ["null", "string"]
    return Param(None, type=kind, format="date-time", title=title, description=description)


def recipes_param(workspace: AirflowWorkspace) -> Param:
    """Return a param for recipes of the workspace's config, as a list to choose from."""
    return Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        examples=list(workspace.settings().recipes),
        title="Recipes",
        description="Configured recipes to train; empty means all. Baselines and the champion's "
        "recipe are always included.",
    )


def recipe_param(workspace: AirflowWorkspace) -> Param:
    """Return a param for one recipe; names outside the config, such as `tuned`, are allowed."""
    return Param(
        None,
        type=["null", "string"],
        examples=list(workspace.settings().recipes),
        title="Recipe",
        description="Name of the recipe to start from; empty means the champion's.",
    )


def resolve_as_of(context: Context) -> AsOf:
    """Return the as-of of a run, in UTC.

    It is the param `as_of`, else the end of the run's data interval, else its `run_after`: a run
    that an asset triggered has neither logical date nor data interval. A param without a time zone
    raises `ConfigError`, and so does one in the future: events until then are still missing, and
    no run of an earlier as-of could publish afterwards.
    """
    run = context["dag_run"]
    return param_instant(context, "as_of") or _as_of(run.data_interval_end or run.run_after)


def resolve_at(context: Context) -> AsOf:
    """Return the instant of a pass, in UTC: the param `at`, else the run's `run_after`.

    A param in the future raises `ConfigError` before any file is read: events ingested at that
    instant would be missing from all runs before it.
    """
    return param_instant(context, "at") or _as_of(context["dag_run"].run_after)


def param_instant(context: Context, param: str) -> AsOf | None:
    """Read a param that must not be in the future.

    Parameters
    ----------
    context
        Airflow's context of the running task.
    param
        Name of a param that `instant_param` made.

    Returns
    -------
    Instant in UTC, or ``None`` for an empty param.

    Raises
    ------
    ConfigError
        `instant.future`: the instant is after the run's `run_after`; others of `as_of`: it has no
        time zone, or is not an instant.
    """
    from pipeline.base import format_instant
    from pipeline.errors import ConfigError

    # Compared with `run_after` and not with the clock, so that a retry gives the same answer.
    instant, due = parse_param(context, param), _as_of(context["dag_run"].run_after)
    if instant is not None and instant > due:
        raise ConfigError(
            "instant.future",
            f"param {param} must not be in the future: {format_instant(instant)}, and the run is "
            f"due at {format_instant(due)}",
        )
    return instant


def parse_param(context: Context, param: str) -> AsOf | None:
    """Read a param that may be in the future.

    Parameters
    ----------
    context
        Airflow's context of the running task.
    param
        Name of a param that `instant_param` made.

    Returns
    -------
    Instant in UTC, or ``None`` for an empty param.
    """
    text = context["params"][param]
    return _as_of(text) if text else None


def run_address(ti: Any) -> str:
    """Return the address of the run of a task instance in Airflow's pages.

    Airflow's own `log_url` encodes colons, and its pages then mark no tab as the selected one.
    """
    return f"{ti.log_url.partition('/runs/')[0]}/runs/{quote(ti.run_id, safe=':+')}"


def task_address(ti: Any, task: str, map_index: int = -1) -> str:
    """Return the address of a task of the run of a task instance.

    Parameters
    ----------
    ti
        Airflow's task instance.
    task, map_index
        Id of the task, and the index of an instance of a mapped one.
    """
    instance = "" if map_index < 0 else f"/mapped/{map_index}"
    return f"{run_address(ti)}/tasks/{task}{instance}"


def leave_note(text: str) -> None:
    """Leave a text for the note of the run, after that of a callback of the task."""
    ti = get_current_context()["ti"]
    texts = filter(None, [ti.xcom_pull(task_ids=ti.task_id, key=NOTE), text])
    ti.xcom_push(key=NOTE, value="\n".join(texts))


def describe_events(**extra: Any) -> None:
    """Attach values to the asset events of the running task; Airflow shows them as JSON.

    Parameters
    ----------
    extra
        Plain values.
    """
    context = get_current_context()
    for asset in context["outlets"]:
        context["outlet_events"][asset].extra.update(extra)


def asks_policy(context: Context, mode: str) -> bool:
    """Return whether a nightly run starts only if the retrain policy requests it.

    Parameters
    ----------
    context
        Airflow's context of the running task.
    mode
        Setting `schedule.mode`.

    Returns
    -------
    True for a run that an asset's event started and, under `adaptive`, for one that the cron
    started; False for a user's.
    """
    kind = context["dag_run"].run_type
    return bool(kind == "asset_triggered" or (kind == "scheduled" and mode == "adaptive"))


def _as_of(instant: datetime | str) -> AsOf:
    from pipeline.base import as_of

    return as_of(instant)
