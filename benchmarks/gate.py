"""Figures of the gate's specification, measured again.

    gate.py simulate | online-retail | completejourney | nights | calibrate | all

`simulate` simulates years of nights; the data sets are equal recipes (fits with different seeds),
healthy refreshes and lost data on real purchases; `nights` evaluates an unchanged recipe on 60
nights of Online Retail; `calibrate` is `nightjar gate calibrate` in a workspace of either shop
whose config has no recipe. The decisions are made by the code of the nightly run. With ``--json``
one object: by part, every figure with its expected value.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.gate_calibrate import calibrated
from benchmarks.gate_figures import Figure, table
from benchmarks.gate_fits import WORLDS, bank, equal_fits
from benchmarks.gate_nights import nights, refreshes
from benchmarks.gate_simulation import RUNS, simulate
from benchmarks.quality import missing

_NEEDS = {"simulate": (), "nights": ("online-retail",), "calibrate": tuple(WORLDS)}


def real(name: str) -> Callable[[Path], list[Figure]]:
    """Evaluate equal recipes, healthy refreshes and damaged ones of a data set."""

    def run(data: Path) -> list[Figure]:
        shop = WORLDS[name](data)
        known = bank(shop, print_progress)
        return equal_fits(shop, known, print_progress) + refreshes(
            shop, known.seed_sds, print_progress
        )

    return run


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("part", choices=["simulate", *WORLDS, "nights", "calibrate", "all"])
    arguments.add_argument("--runs", type=int, default=RUNS, help="simulated years")
    options = arguments.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parts: dict[str, Callable[[Path], list[Figure]]] = {
        "simulate": lambda _: simulate(options.runs),
        **{name: real(name) for name in WORLDS},
        "nights": lambda data: nights(WORLDS["online-retail"](data), print_progress),
        "calibrate": calibrated,
    }
    names = list(parts) if options.part == "all" else [options.part]
    for name in names:
        for needed in _NEEDS.get(name, (name,)):
            if problem := missing(needed, options.data):
                raise SystemExit(problem)
    results = {}
    for name in names:
        figures = parts[name](options.data)
        results[name] = [asdict(figure) for figure in figures]
        if not options.json:
            print(table(name, figures), end="\n\n", flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
