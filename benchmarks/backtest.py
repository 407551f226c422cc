"""What is a retrain worth? Past days of two shops, lived through once for each policy.

    backtest.py [online-retail | completejourney] [--days N] [--plant] [--home DIR] [--out FILE]

Makes a workspace with the shop's whole history (in DIR, which the next call finds again; without
one in a folder that goes when it is over), and runs `nightjar backtest` over its last N days but
the very last week, with ALS and the baselines as recipes and one policy after the other: nightly,
weekly, adaptive, never. ``--plant`` does it with half of all events on other items from the middle
on. FILE gets the figure.

Goals: adaptive keeps 99 % of what nightly reaches with at most half of its seconds of training; of
30 calm days it runs a night because of drift on at most one; a planted shift is answered within one
night.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl

from benchmarks.command import parser, tell
from benchmarks.quality import completejourney, missing, online_retail
from pipeline import columns as c
from pipeline.base import as_of
from pipeline.monitoring.policy import Cause
from pipeline.steps.experiments.backtest.backtest import FIGURE, Backtested, backtest
from pipeline.steps.experiments.backtest.days import RetrainSchedule
from pipeline.steps.ingest.ingest import ingest
from pipeline.workspace.experiment_artifacts import DayFile
from pipeline.workspace.workspace import Workspace

DAY = timedelta(days=1)
SHOPS = {"online-retail": online_retail, "completejourney": completejourney}
ENDS = {
    "online-retail": as_of("2011-12-02T00:00:00Z"),
    "completejourney": as_of("2017-12-22T09:00:00Z"),
}
KEPT, SHARE, ALARMS = 0.99, 0.5, 1
SOURCE = """\
[sources.lines]
table = "events"
path = "*.parquet"
constants = { kind = "purchase" }
"""
CONFIG = f"""{SOURCE}
[recipes.als]
family = "als"
"""


def history(name: str, data: Path) -> pl.DataFrame:
    """Return a shop's lines as a file of events, several lines of one item on one bill as one."""
    lines = SHOPS[name](data).rename({"at": c.TIMESTAMP})
    return lines.group_by(c.USER_ID, c.ITEM_ID, c.TIMESTAMP).len(c.VALUE).sort(pl.all())


def made(name: str, home: Path, data: Path, config: str = CONFIG) -> Workspace:
    """Make the workspace, or find the one that is there."""
    ws = Workspace.init(home, config)
    if ws.lake.version("events") is None:
        file = home / "lines.parquet"
        history(name, data).write_parquet(file)
        print(ingest(ws, [file], at=as_of("2026-01-01T00:00:00Z"), progress=tell).text())
        file.unlink()
    return ws


def goals(found: Backtested, plant: datetime | None) -> list[tuple[bool, str]]:
    """Hold what was found against the goals."""
    rows = {row["schedule"]: row for row in found.plain()["rows"]}
    adaptive = rows["adaptive"]
    if plant is not None:
        after, cause = adaptive["answered_days"], adaptive["answered_cause"]
        how = "never" if after is None else f"in {after:.2g} days, because of {cause}"
        good = after is not None and after <= 1 and cause == Cause.DRIFT
        return [(good, f"the planted shift is answered {how}; goal: drift, in 1")]
    kept, share = adaptive["of_nightly"], adaptive["training_share"]
    days = found.days["adaptive"][1:]
    alarms = sum(_alarm(day) for day in days)
    return [
        (kept >= KEPT, f"adaptive keeps {kept:.2%} of nightly's NDCG, goal {KEPT:.0%}"),
        (share <= SHARE, f"with {share:.0%} of its training, goal {SHARE:.0%}"),
        (
            alarms * 30 <= ALARMS * len(days),
            f"{alarms} nights because of drift in {len(days)} calm days, goal {ALARMS} in 30",
        ),
    ]


def _alarm(day: DayFile) -> bool:
    """Say whether drift has asked for a night."""
    return day.retrained and day.cause == Cause.DRIFT


def main() -> None:
    arguments = parser(__doc__, data="folder of the data sets")
    arguments.add_argument("dataset", nargs="?", choices=SHOPS, default="online-retail")
    arguments.add_argument("--days", type=int, default=45, help="how many as-ofs (default: 45)")
    arguments.add_argument("--plant", action="store_true", help="plant a change of taste")
    arguments.add_argument("--home", type=Path, help="keep the workspace here")
    arguments.add_argument("--out", type=Path, help="write the figure here, as SVG")
    options = arguments.parse_args()
    if problem := missing(options.dataset, options.data):
        raise SystemExit(problem)
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "workspace"
        ws = made(options.dataset, home, options.data)
        end = ENDS[options.dataset]
        begin = as_of(end - (options.days - 1) * DAY)
        plant = None
        if options.plant:
            plant = as_of(begin + options.days // 2 * DAY + timedelta(hours=1))
        found = backtest(
            ws, begin, end, every=DAY, schedules=tuple(RetrainSchedule), plant=plant, progress=tell
        )
        if options.out is not None:
            shutil.copy(found.folder / FIGURE, options.out)
        met = goals(found, plant)
        if options.json:
            reached = [{"met": good, "told": words} for good, words in met]
            print(json.dumps({**found.plain(), "goals": reached}))
            return
        print(found.text().rpartition("\n\nfigure")[0])
        for good, words in met:
            print(f"{'reached' if good else 'MISSED '}  {words}")


if __name__ == "__main__":
    main()
