"""Figures of the gate's specification, measured again.

    gate.py simulate [--runs N]
    gate.py weeks [--shop NAME ...] [--task NAME ...] [--weeks N] [--warm N] [--fixed-length]
    gate.py overlaps [--shop NAME ...] [--task NAME ...] [--weeks N]
    gate.py items [--shop NAME ...]
    gate.py checks [--shop NAME ...] [--weeks N]

`simulate` prints simulated years beside the figures of docs/GATE.md: false switches, also where the
operator chooses the days, days to a true gain, and blocked healthy nights. `weeks` decides all
weeks of real and of stationary shops, and counts the blocked ones by rule. `overlaps` compares the
lists of each pair of recipes. `items` applies the rules of a refresh to popularity, with standard
errors of users and of items. `checks` prints the lowest figures of the data checks over all weeks.
With ``--json`` one object: every figure with its expected value.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.gate_figures import table
from benchmarks.gate_items import items
from benchmarks.gate_overlap import overlaps
from benchmarks.gate_selection import selections
from benchmarks.gate_shops import SHOPS, Shop
from benchmarks.gate_simulation import RUNS, simulate
from benchmarks.gate_weeks import TASKS, check_ratios, summary, weeks
from benchmarks.quality import missing


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("part", choices=["simulate", "weeks", "overlaps", "items", "checks"])
    arguments.add_argument("--runs", type=int, default=RUNS, help="simulated years")
    arguments.add_argument(
        "--shop", action="append", choices=SHOPS, help="one shop; all without this option"
    )
    arguments.add_argument(
        "--task", action="append", choices=TASKS, help="one task; both without this option"
    )
    arguments.add_argument("--weeks", type=int, help="number of weeks, the newest; without it all")
    arguments.add_argument("--warm", type=int, help="weeks before the first night")
    arguments.add_argument(
        "--fixed-length",
        action="store_true",
        help="no longer holdout after a night with too few users of the stored window",
    )
    options = arguments.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.part == "simulate":
        figures = [*simulate(options.runs), *selections(options.runs)]
    else:
        shops = _shops(options)
        tasks = options.task or TASKS
        if options.part == "overlaps":
            figures = overlaps(shops, tasks, print_progress, options.weeks)
        elif options.part == "items":
            figures = items(shops, print_progress)
        elif options.part == "checks":
            figures = check_ratios(shops, print_progress, options.weeks)
        else:
            nights = {}
            for shop in shops:
                decided = weeks(
                    shop, tasks, print_progress, options.weeks, grows=not options.fixed_length
                )
                nights |= {f"{shop.name}, {task}": series for task, series in decided.items()}
            figures = summary(nights)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        print(table(options.part, figures))


def _shops(options: argparse.Namespace) -> Iterator[Shop]:
    """Load the shops one after the other."""
    for name in options.shop or SHOPS:
        if name == "online-retail" and (problem := missing(name, options.data)):
            raise SystemExit(problem)
        shop = SHOPS[name](options.data)
        yield shop if options.warm is None else replace(shop, warm=options.warm)


if __name__ == "__main__":
    main()
