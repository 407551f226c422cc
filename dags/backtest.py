"""Live through past days once for each policy: what is a retrain worth on these data?

**When.** By hand alone: trigger it with a span. Starts paused. It holds the machine's one heavy
slot meanwhile, so a night that begins then waits.

**What follows.** A table in the log, and a figure in the workspace below `backtests/`. Each policy
lives in a sandbox with a lake, a ledger and a registry of its own; nothing live moves.

**Again.** An attempt has two hours, and the next one goes on where it was; so does a backtest that
is triggered again with the same params. One that is over is told again.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from dags.common import DEFAULT_ARGS, HEAVY, come, workspace

log = logging.getLogger("airflow.task")

POLICIES = ("nightly", "weekly", "adaptive", "never")
PARAMS = {
    "begin": Param(
        "2017-11-01T09:00:00Z",
        type="string",
        format="date-time",
        title="From",
        description="The first as-of, with a time zone.",
    ),
    "end": Param(
        "2017-12-01T09:00:00Z",
        type="string",
        format="date-time",
        title="To",
        description="The last as-of that may be, with a time zone.",
    ),
    "every": Param(
        "1d",
        type="string",
        pattern=r"^[0-9]{1,3}[hd]$",
        title="Every",
        description="From one as-of to the next: 12h, 1d, at most 28d.",
    ),
    "policies": Param(
        list(POLICIES),
        type="array",
        items={"type": "string", "enum": list(POLICIES)},
        title="Policies",
        description="When a whole night is run.",
    ),
    "plant_shift": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Planted shift",
        description="From here on half of all events are about other items; empty means never.",
    ),
}


@dag(
    description="What is a retrain worth on these data?",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["nightjar", "backtest"],
)
def backtest() -> None:
    """Wire the backtest."""

    @task(**HEAVY)
    def live_through() -> dict[str, Any]:
        """Live through each day in order, for one policy after the other."""
        from pipeline.base import parse_instant
        from pipeline.steps.experiments.backtest import backtest as steps

        context = get_current_context()
        params = context["params"]
        planted = params["plant_shift"]
        with workspace() as ws:
            come(context, "end")  # days that have not come hold nothing
            found = steps.backtest(
                ws,
                parse_instant(params["begin"]),
                parse_instant(params["end"]),
                every=steps.parse_every(params["every"]),
                policies=steps.parse_policies(",".join(params["policies"])),
                plant=parse_instant(planted) if planted else None,
                progress=log.info,
            )
        log.info(found.text())
        told = found.to_dict()
        return {name: told[name] for name in ("backtest", "rows", "figure")}

    live_through()


backtest()
