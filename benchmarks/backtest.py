"""Value of a retrain: past days of two shops, replayed once for each retrain schedule.

    backtest.py [online-retail | completejourney] [--days N] [--plant] [--home DIR] [--out FILE]

Creates a workspace with the shop's whole history (in DIR, which the next call uses again; without
it in a temporary folder), and runs `nightjar backtest` over N days that end a week before the last
event, with ALS and the baselines as recipes and one schedule after the other: nightly, weekly,
adaptive, never. With ``--plant``, half of all events are on other items from the middle on. The
figure is written to FILE.

Goals: adaptive keeps 99 % of the NDCG of nightly with at most half of its seconds of training; on
at most one of 30 days without a planted shift it retrains because of drift; it retrains within one
night of a planted shift.
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

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
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
    """Return a shop's lines as events; lines of one item on one bill are one event."""
    lines = SHOPS[name](data).rename({"at": c.TIMESTAMP})
    return lines.group_by(c.USER_ID, c.ITEM_ID, c.TIMESTAMP).len(c.VALUE).sort(pl.all())


def made(
    name: str, home: Path, data: Path, config: str = CONFIG, users: int | None = None
) -> Workspace:
    """Create the workspace, or open the one that exists; with `users` of some users alone."""
    ws = Workspace.init(home, config)
    if ws.lake.version("events") is None:
        file = home / "lines.parquet"
        events = history(name, data)
        if users is not None:
            some = events[c.USER_ID].unique().sort().sample(users, seed=0)
            events = events.filter(pl.col(c.USER_ID).is_in(some.to_list()))
        events.write_parquet(file)
        print(ingest(ws, [file], at=as_of("2026-01-01T00:00:00Z"), progress=print_progress).text())
        file.unlink()
    return ws


def goals(result: Backtested, plant: datetime | None) -> list[tuple[bool, str]]:
    """Return each goal: whether it was reached, and a sentence."""
    rows = {row["schedule"]: row for row in result.plain()["rows"]}
    adaptive = rows["adaptive"]
    if plant is not None:
        after, cause = adaptive["reaction_days"], adaptive["reaction_cause"]
        how = "never" if after is None else f"in {after:.2g} days, because of {cause}"
        good = after is not None and after <= 1 and cause == Cause.DRIFT
        return [(good, f"the reaction to the planted shift came {how}; goal: drift, in 1")]
    kept, share = adaptive["of_nightly"], adaptive["training_share"]
    days = result.days["adaptive"][1:]
    alarms = sum(_alarm(day) for day in days)
    return [
        (kept >= KEPT, f"adaptive keeps {kept:.2%} of nightly's NDCG, goal {KEPT:.0%}"),
        (share <= SHARE, f"with {share:.0%} of its training, goal {SHARE:.0%}"),
        (
            alarms * 30 <= ALARMS * len(days),
            f"{alarms} retrains because of drift in {len(days)} days without a planted shift, "
            f"goal {ALARMS} in 30",
        ),
    ]


def _alarm(day: DayFile) -> bool:
    """Return whether drift caused a retrain."""
    return day.retrained and day.cause == Cause.DRIFT


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("dataset", nargs="?", choices=SHOPS, default="online-retail")
    arguments.add_argument(
        "--days", type=int, default=45, help="number of as-of instants (default: 45)"
    )
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
        result = backtest(
            ws,
            begin,
            end,
            every=DAY,
            schedules=tuple(RetrainSchedule),
            plant=plant,
            progress=print_progress,
        )
        if options.out is not None:
            shutil.copy(result.folder / FIGURE, options.out)
        met = goals(result, plant)
        if options.json:
            reached = [{"met": good, "told": sentence} for good, sentence in met]
            print(json.dumps({**result.plain(), "goals": reached}))
            return
        print(result.text().rpartition("\n\nfigure")[0])
        for good, sentence in met:
            print(f"{'reached' if good else 'MISSED '}  {sentence}")


if __name__ == "__main__":
    main()
