"""The loop on real purchases through Airflow: `make run`.

Each night, in this one process: what happened since the night before lands as files, the DAG
`feedback_ingest` takes it in, the DAG `nightly_retrain` retrains. All runs are in the database
that `make ui` opens. Killed anywhere and started again, it ends where a calm run ends.
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

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script: Python put dags/ there instead
    sys.path.insert(0, str(ROOT))

from dags import environment, runner  # noqa: E402
from pipeline.base import format_instant  # noqa: E402
from pipeline.errors import NightjarError  # noqa: E402
from pipeline.report.table import nights_table  # noqa: E402
from pipeline.steps import demo  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Run the nights; return the exit code."""
    options = _options(arguments)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        return _nights(options.home, options.nights, lambda line: print(line, file=terminal))
    except NightjarError as error:
        print(error.sentence, file=terminal)
        return error.exit_code
    except Exception:
        with runner.log_file(options.home).open("a") as log:
            traceback.print_exc(file=log)
        print(f"Stopped by a bug; the end of {log.name} tells of it.", file=terminal)
        return 1


def _nights(home: Path, count: int, say: runner.Say) -> int:
    ws = demo.prepare(home)
    began = time.monotonic()
    with runner.airflow(ws.home, say) as airflow:
        for night in demo.NIGHTS[:count]:
            instant = format_instant(night)
            say(f"\nNight of {instant}")
            demo.land_until(ws, night, progress=lambda text: say(f"  {text}"))
            taken_in = airflow.run("feedback_ingest", {"at": instant}, ask="ingest")
            if not taken_in.succeeded:
                say(f"feedback_ingest failed; why is in {_logs(home, taken_in)}")
                return 1
            finished = airflow.run("nightly_retrain", {"as_of": instant}, ask="verdict")
            verdict = finished.handed_on
            if verdict is None:
                say(f"nightly_retrain failed; why is in {_logs(home, finished)}")
                return 1
            say(f"  {verdict['sentence']}")
            if not finished.succeeded:
                say(f"the task's words are in {_logs(home, finished)}")
                return int(verdict["exit_code"])
    print(nights_table(demo.summary(ws)))
    nights = f"{count} night{'' if count == 1 else 's'}"
    say(f"{nights} in {time.monotonic() - began:.0f} s. See them with `make ui`.")
    return 0


def _logs(home: Path, finished: runner.Finished) -> Path:
    logs = environment.airflow_home(home) / "logs"
    return logs / f"dag_id={finished.dag_id}" / f"run_id={finished.run_id}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the demo's nights through Airflow.")
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
        help="how many nights, the first ones",
    )
    return parser.parse_args(arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    print("\nStopped. Run it again: it goes on where it was.", file=sys.__stderr__)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
