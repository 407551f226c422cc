"""Figures of the gate's specification, measured again.

    gate.py simulate [--runs N]
    gate.py weeks [--shop NAME ...] [--task NAME ...] [--weeks N]

`simulate` prints simulated years beside the figures of docs/GATE.md: false switches, days to a true
gain, and blocked healthy nights. `weeks` decides all weeks of real and of stationary shops, and
counts the blocked ones by rule. With ``--json`` one object: every figure with its expected value.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.gate_figures import table
from benchmarks.gate_shops import SHOPS
from benchmarks.gate_simulation import RUNS, simulate
from benchmarks.gate_weeks import TASKS, summary, weeks
from benchmarks.quality import missing


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("part", choices=["simulate", "weeks"])
    arguments.add_argument("--runs", type=int, default=RUNS, help="simulated years")
    arguments.add_argument(
        "--shop", action="append", choices=SHOPS, help="one shop; all without this option"
    )
    arguments.add_argument(
        "--task", action="append", choices=TASKS, help="one task; both without this option"
    )
    arguments.add_argument("--weeks", type=int, help="number of weeks, the newest; without it all")
    options = arguments.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.part == "simulate":
        figures = simulate(options.runs)
    else:
        nights = {}
        for name in options.shop or SHOPS:
            if name == "online-retail" and (problem := missing(name, options.data)):
                raise SystemExit(problem)
            decided = weeks(
                SHOPS[name](options.data), options.task or TASKS, print_progress, options.weeks
            )
            nights |= {f"{name}, {task}": series for task, series in decided.items()}
        figures = summary(nights)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        print(table(options.part, figures))


if __name__ == "__main__":
    main()
