"""Result of `nightjar gate calibrate` for the default recipe, in a workspace of either shop."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.backtest import ENDS, SOURCE, made
from benchmarks.command import print_progress
from benchmarks.gate_figures import Figure, at_most, shown
from pipeline.steps.experiments.calibration.calibrate import gate_calibrate
from pipeline.steps.nightly.nightly import nightly

MOST = 0.02
"""Highest rate of false switches of one block."""


def calibrated(data: Path) -> list[Figure]:
    """Run a night of either shop with the default config, and calibrate the champion."""
    figures = []
    for name, as_of in ENDS.items():
        with tempfile.TemporaryDirectory() as folder:
            ws = made(name, Path(folder) / "workspace", data, SOURCE)
            nightly(ws, as_of, progress=print_progress)
            begun = time.monotonic()
            result = gate_calibrate(
                ws,
                as_of,
                elapsed=lambda begun=begun: time.monotonic() - begun,
                progress=print_progress,
            )
        print_progress(result.text())
        what = f"{name}, {result.line.recipe}: "
        figures += [
            shown(f"{what}task, τ", f"{result.line.task}, {result.calibration.seed_sd:.2%}"),
            at_most(
                f"{what}one block's rate of false switches by seeds, upper limit",
                result.calibration.rate_upper,
                MOST,
                "{:.2%}",
            ),
            at_most(
                f"{what}by users, upper limit of {result.calibration.tosses:,} tosses",
                result.calibration.tossed_upper,
                MOST,
                "{:.2%}",
            ),
            shown(
                f"{what}power to find {result.calibration.planted:+.1%} within "
                f"{len(result.calibration.users)} blocks",
                f"{result.calibration.power:.0%}",
            ),
        ]
    return figures
