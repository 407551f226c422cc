"""Run the demo on real purchases through Airflow: `make run`.

For each nightly run, in this process: the events since the last run are written as files, the DAG
`feedback_ingest` ingests them, and the DAG `nightly_retrain` retrains. All runs are in the database
that `make ui` opens.

Guarantees:

* After a kill at any point, the next start ends with the same result as without the kill.
* From the first second on, the terminal shows the activity in progress.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dags.local import environment, runner
from dags.local.activity import ActivityDisplay
from dags.run_outcome import DECISIONS
from pipeline.errors import NightjarError

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

NIGHTS: Final = 3
"""Number of nights of `pipeline.steps.demo`, which takes seconds to import."""

_FIRST_NIGHT: Final = {
    **{"starting Airflow": 5, "landing files": 1, "ingest": 6, "validate": 4, "features": 6},
    **{"train blend": 215, "train als": 2, "train als_overconfident": 3},
    **{"train lightfm": 35, "evaluate": 7},
    **{"gate": 1, "refit": 15, "cold_check": 2, "register": 8, "recommend": 4},
}
"""Measured seconds on 2 cores, from 1 on; `train blend` also selects its hyperparameters."""
_LATER_NIGHT: Final = {
    **_FIRST_NIGHT,
    **{"ingest": 2, "foldin": 5, "validate": 1, "features": 2, "train blend": 15},
    **{"evaluate": 38, "refit": 16, "cold_check": 29, "register": 6},
}


def main(arguments: list[str] | None = None) -> int:
    """Run the demo's nightly runs; return the exit code."""
    options = _options(arguments)
    # The runner redirects stdout and stderr to files; this copy still leads to the terminal.
    display = ActivityDisplay(os.fdopen(os.dup(2), "w", buffering=1))
    runner.stop_at_signals(display)
    try:
        return _run_nights(options.home, options.nights, display)
    except NightjarError as error:
        display.write(error.sentence)
        return error.exit_code
    except Exception:
        with runner.log_file(options.home).open("a") as log:
            traceback.print_exc(file=log)
        display.write(f"Stopped because of a bug; the end of {log.name} has the traceback.")
        return 1


def _run_nights(home: Path, count: int, display: ActivityDisplay) -> int:
    start = time.monotonic()
    display.usual = _FIRST_NIGHT
    display.begin("starting Airflow")
    # Imported here, so that the first line is written at once.
    from pipeline.base import format_instant
    from pipeline.report.table import nights_table
    from pipeline.steps import demo

    ws = demo.prepare(home)
    with runner.airflow(ws.home, display) as airflow:
        display.end("done")
        for night in demo.NIGHTS[:count]:
            instant = format_instant(night)
            display.write(f"\nNight of {instant}")
            display.begin("landing files")
            demo.land_until(ws, night, progress=display.note)
            display.end("done")
            ingested = airflow.run("feedback_ingest", {"at": instant}, result_task="ingest")
            if not ingested.succeeded:
                display.write(f"feedback_ingest failed; see {_logs(home, ingested)}")
                return 1
            retrained = airflow.run(
                "nightly_retrain", {"as_of": instant}, result_task="report_outcome"
            )
            outcome = retrained.result
            if outcome is None:
                display.write(f"nightly_retrain failed; see {_logs(home, retrained)}")
                return 1
            display.write(f"  {_result(ws, outcome)}")
            if not retrained.succeeded:
                display.write(f"the logs of the tasks are in {_logs(home, retrained)}")
                if outcome["status"] == "failed":  # a block is a decision
                    display.write("After a correction `make run` continues with the failed task.")
                return int(outcome["exit_code"])
            display.usual = _LATER_NIGHT
        display.begin("summary")
        summary = demo.summary(ws)
        display.end("done")
    # After the runner, which has given stdout back.
    print(f"\n{nights_table(summary)}")
    nights = f"{count} night{'' if count == 1 else 's'}"
    display.write(f"{nights} in {time.monotonic() - start:.0f} s. See them with `make ui`.")
    return 0


def _result(ws: Workspace, outcome: Mapping[str, Any]) -> str:
    """Return the headline of a run that has decided, else the sentence of its outcome."""
    from pipeline.report.headline import night_headline

    if outcome["status"] not in (*DECISIONS, "already_done"):
        return str(outcome["sentence"])
    return night_headline(ws.run(outcome["run_id"])).text


def _logs(home: Path, run: runner.FinishedRun) -> Path:
    logs = environment.airflow_home(home) / "logs"
    return logs / f"dag_id={run.dag_id}" / f"run_id={run.run_id}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make run", description="Run the demo's nights through Airflow."
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("NIGHTJAR_HOME") or environment.DEFAULT_HOME),
        help="the workspace (default: NIGHTJAR_HOME, else ./var)",
    )
    parser.add_argument(
        "--nights",
        type=int,
        choices=range(1, NIGHTS + 1),
        default=NIGHTS,
        help="number of nights, from the first one",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Libraries take seconds to end their threads; nothing is left to write.
    os._exit(code)
