"""Replay past days in a sandbox, once per retrain schedule, to measure the value of a retrain.

**Schedule.** None: trigger the DAG with a period. A new DAG is paused: unpause it first. It takes
the only slot of the workspace's pool of heavy tasks, so a nightly run that starts meanwhile waits
before it trains.

**Results.** A table in the log, and a figure in the workspace under `backtests/`. Each schedule is
replayed in a sandbox with its own lake, ledger and registry; nothing live changes.

**Messages.** A red run has a note with the reason and the next step, and is posted as a red run of
`nightly_retrain` is.

**Repeated runs.** An attempt has two hours. The next attempt resumes where the last one ended, and
so does a backtest that is triggered again with the same params. A finished backtest returns its
result again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, get_current_context

from dags.common import AirflowWorkspace, instant_param, leave_note, log, param_instant
from dags.factory import nightjar_dag, workspace_task

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

SCHEDULES = ("nightly", "weekly", "adaptive", "never")
PARAMS = {
    "begin": instant_param("From", "First as-of, with a time zone.", required=True),
    "end": instant_param("To", "Latest possible as-of, with a time zone.", required=True),
    "every": Param(
        "1d",
        type="string",
        pattern=r"^[0-9]{1,3}[hd]$",
        title="Every",
        description="Time between two as-of instants: 12h, 1d, at most 28d.",
    ),
    "schedules": Param(
        list(SCHEDULES),
        type="array",
        items={"type": "string", "enum": list(SCHEDULES)},
        examples=list(SCHEDULES),
        title="Schedules",
        description="Retrain schedules to compare: when a full nightly run takes place.",
    ),
    "plant_shift": instant_param(
        "Planted shift",
        "From this instant on, half of all events are moved to other items; empty means never.",
    ),
}


@workspace_task(heavy=True)
def replay_days(ws: Workspace) -> dict[str, Any]:
    """Replay each day in order, for one schedule after the other."""
    from pipeline.base import as_of, plain
    from pipeline.steps.experiments.backtest import backtest as steps

    context = get_current_context()
    params = context["params"]
    planted = params["plant_shift"]
    param_instant(context, "end")  # rejects a future instant: those days have no data yet
    result = steps.backtest(
        ws,
        as_of(params["begin"]),
        as_of(params["end"]),
        every=steps.parse_every(params["every"]),
        schedules=steps.parse_schedules(",".join(params["schedules"])),
        plant=as_of(planted) if planted else None,
        progress=log.info,
    )
    log.info(result.text())
    leave_note(f"{params['begin']} to {params['end']}: {', '.join(params['schedules'])}")
    summary = plain(result)
    return {name: summary[name] for name in ("backtest", "rows", "figure")}


@nightjar_dag(tag="backtest", doc_md=__doc__, params=PARAMS)
def backtest(workspace: AirflowWorkspace) -> None:
    """Measure the value of a retrain on past days."""
    replay_days(workspace)
