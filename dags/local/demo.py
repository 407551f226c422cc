"""Run the demo on real purchases through Airflow: `make run`.

For each nightly run, in this process: the events since the last run are written as files, the DAG
`feedback_ingest` ingests them, and the DAG `nightly_retrain` retrains. All runs are in the database
that `make ui` opens.

Guarantees:

* After a kill at any point, the next start ends with the same result as without the kill.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from dags.local import environment, runner
from pipeline.base import format_instant
from pipeline.errors import NightjarError
from pipeline.report.table import nights_table
from pipeline.steps import demo


def main(arguments: list[str] | None = None) -> int:
    """Run the demo's nightly runs; return the exit code."""
    options = _options(arguments)
    # The runner redirects stdout and stderr to files; this copy still leads to the terminal.
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        return _run_nights(options.home, options.nights, lambda line: print(line, file=terminal))
    except NightjarError as error:
        print(error.sentence, file=terminal)
        return error.exit_code
    except Exception:
        with runner.log_file(options.home).open("a") as log:
            traceback.print_exc(file=log)
        print(f"Stopped because of a bug; the end of {log.name} has the traceback.", file=terminal)
        return 1


def _run_nights(home: Path, count: int, write: runner.ProgressWriter) -> int:
    ws = demo.prepare(home)
    start = time.monotonic()
    with runner.airflow(ws.home, write) as airflow:
        for night in demo.NIGHTS[:count]:
            instant = format_instant(night)
            write(f"\nNight of {instant}")
            demo.land_until(ws, night, progress=lambda text: write(f"  {text}"))
            ingested = airflow.run("feedback_ingest", {"at": instant}, result_task="ingest")
            if not ingested.succeeded:
                write(f"feedback_ingest failed; see {_logs(home, ingested)}")
                return 1
            retrained = airflow.run(
                "nightly_retrain", {"as_of": instant}, result_task="report_outcome"
            )
            outcome = retrained.result
            if outcome is None:
                write(f"nightly_retrain failed; see {_logs(home, retrained)}")
                return 1
            write(f"  {outcome['sentence']}")
            if not retrained.succeeded:
                write(f"the logs of the tasks are in {_logs(home, retrained)}")
                return int(outcome["exit_code"])
    # After the runner, which has given stdout back.
    print(nights_table(demo.summary(ws)))
    nights = f"{count} night{'' if count == 1 else 's'}"
    write(f"{nights} in {time.monotonic() - start:.0f} s. See them with `make ui`.")
    return 0


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
        choices=range(1, len(demo.NIGHTS) + 1),
        default=len(demo.NIGHTS),
        help="number of nights, from the first one",
    )
    return parser.parse_args(arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    print("\nStopped. The next start resumes here.", file=sys.__stderr__)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
