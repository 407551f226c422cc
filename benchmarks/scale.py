"""Growth of time and memory with the number of events: two nights and a feedback pass per size.

    scale.py --events 1e6,3e6,1e7 [--users 200000] [--items 50000] [--home DIR]

Each size is a shop over one year: users have one of 40 tastes and a long tail of activity, items a
Zipf popularity, events are views, additions to the cart and purchases, in one CSV file a month. The
shop runs its first night on the last day but one, then a feedback pass and a second night.

Every task runs in a process of its own, by the function that Airflow and the command line call.
Printed are seconds, CPU seconds and peak memory, without the imports, and the slopes of CPU seconds
and memory above 300 MB over events in logarithms: 1 is proportional, n log n about 1.07. A second
call with the same folder prints what is done and continues with the rest.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from argparse import SUPPRESS
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import cpu_seconds, parser, print_progress

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 365
NIGHTS = tuple(START + timedelta(days=DAYS - 1 + night) for night in (0, 1))
"""The first as-of, and the second one a day later."""
TASTES = 40
KINDS = {"view": 0.8, "add_to_cart": 0.12, "purchase": 0.08}
BASE_MB = 300
CONFIG = """\
[split]
task = "discovery"

[publish]
live_from = "as_of"    # the nights lie in the past
"""
BEFORE, AFTER = ("snapshot", "validate", "features"), ("evaluate", "gate")
RELEASE = ("refit", "cold_check", "register", "recommend", "publish")
FEEDBACK = ("ingest", "foldin", "attribution", "drift", "policy")


@dataclass
class Row:
    """Cost of a stage; `names` are the recipes of a run, or the remaining tasks of a night."""

    stage: str
    seconds: float = 0.0
    cpu: float = 0.0
    peak_mb: float = 0.0
    result: str = ""
    names: tuple[str, ...] = ()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", default="1e6", help="numbers of events, with commas between")
    arguments.add_argument("--users", type=float, default=2e5)
    arguments.add_argument("--items", type=float, default=5e4)
    arguments.add_argument("--home", type=Path, default=Path("build/scale"), help="of the shops")
    arguments.add_argument("--stage", help=SUPPRESS)
    options = arguments.parse_args()
    if options.stage:
        print(json.dumps(asdict(_measured(options.stage, options.home))))
        return
    sizes = sorted({round(float(text)) for text in options.events.split(",")})
    rows: dict[int, list[Row]] = {}
    users, items = round(options.users), round(options.items)
    for events in sizes:
        shop = options.home.absolute() / f"{events}-{users}-{items}"
        rows[events] = list(_stages(shop, events, users, items))
    if options.json:
        print(json.dumps({events: [asdict(row) for row in of] for events, of in rows.items()}))
    else:
        print("\n".join(_table(rows)))


def _stages(shop: Path, events: int, users: int, items: int) -> Iterator[Row]:
    """Yield the cost of each stage of a shop, from its file if it was measured before."""
    file = shop / "stages.jsonl"
    known = {}
    if file.exists():
        known = {r["stage"]: Row(**r) for r in map(json.loads, file.read_text().splitlines())}
    else:
        print_progress(f"{events:,} events: writing files")
        shutil.rmtree(shop, ignore_errors=True)
        make(shop, events, users, items)
        file.touch()

    def stage(name: str) -> Row:
        if (row := known.get(name)) is None:
            command = [sys.executable, __file__, "--stage", name, "--home", str(shop)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            row = Row(**json.loads(done.stdout.splitlines()[-1]))
            with file.open("a") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
        print_progress(
            f"{events:,} events: {name:<24} {row.seconds:>8,.1f} s {row.cpu:>8,.1f} CPU s "
            f"{row.peak_mb:>7,.0f} MB  {row.result}"
        )
        return row

    for night in (1, 2):
        for name in FEEDBACK[:1] if night == 1 else FEEDBACK:
            yield stage(f"feedback {night}: {name}")
        started = stage(f"night {night}: snapshot")
        yield started
        trained = (f"train {recipe}" for recipe in started.names)
        for name in (*BEFORE[1:], *trained, *AFTER):
            yield (row := stage(f"night {night}: {name}"))
        for name in row.names:  # of the gate
            yield stage(f"night {night}: {name}")


def make(shop: Path, events: int, users: int, items: int) -> None:
    """Write a workspace with the files of a shop; that of the last day waits beside it."""
    import numpy as np
    import polars as pl

    from pipeline.workspace.workspace import Workspace

    Workspace.init(shop / "home", CONFIG)
    rng, shelf = np.random.default_rng(0), items // TASTES
    second = np.sort(rng.integers(0, DAYS * 86_400, events))
    user = rng.choice(users, events, p=_shares(rng.lognormal(0.0, 1.2, users)))
    # Two events in three are of the user's taste; popularity falls with the rank of an item.
    own, other = user % TASTES, rng.integers(0, TASTES, events)
    taste = np.where(rng.random(events) < 2 / 3, own, other)
    rank = rng.choice(shelf, events, p=_shares(1 / (5.0 + np.arange(shelf))))
    kind = rng.choice(len(KINDS), events, p=list(KINDS.values()))
    frame = pl.select(
        pl.format("e{}", pl.int_range(events)).alias("event_id"),
        pl.format("customer-{}", pl.lit(pl.Series(user))).alias("user_id"),
        pl.format("sku-{}", pl.lit(pl.Series(rank * TASTES + taste))).alias("item_id"),
        pl.Series(list(KINDS)).gather(kind).alias("kind"),
        (pl.lit(START) + pl.duration(seconds=pl.lit(pl.Series(second)))).alias("timestamp"),
    )
    ends = [30 * month for month in range(13)] + [DAYS - 1, DAYS]
    places = np.searchsorted(second, np.array(ends) * 86_400)
    for number, (first, end) in enumerate(itertools.pairwise(places.tolist()), start=1):
        folder = shop if number == len(ends) - 1 else shop / "home/landing/events"
        file = folder / f"events-{number:02}.csv"
        frame[first:end].write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    item = pl.int_range(shelf * TASTES)
    pl.select(
        pl.format("sku-{}", item).alias("item_id"),
        pl.format("item {}", item).alias("title"),
        pl.format("taste {}", item % TASTES).alias("categories"),
    ).write_csv(shop / "home/landing/items/items.csv")
    for path in shop.rglob("*.csv"):
        os.utime(path, (START.timestamp(), START.timestamp()))


def _shares(weights: Any) -> Any:
    return weights / weights.sum()


def _measured(stage: str, shop: Path) -> Row:
    """Run a stage in this process and measure it."""
    row, call = Row(stage), _call(stage, shop)
    wall, cpu = time.perf_counter(), cpu_seconds()
    row.result = call(row)
    row.seconds, row.cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    row.peak_mb = max(_peak_kb(), children) / 1024
    return row


def _call(stage: str, shop: Path) -> Callable[[Row], str]:
    """Import a stage and return its call, which fills `names` and returns the result in words."""
    from pipeline.base import as_of
    from pipeline.steps.feedback.attribution import last_attribution
    from pipeline.steps.feedback.drift import drift
    from pipeline.steps.feedback.foldin import foldin
    from pipeline.steps.feedback.policy import policy
    from pipeline.steps.ingest.ingest import ingest_landed
    from pipeline.steps.nightly import nightly
    from pipeline.workspace.night import decision_of
    from pipeline.workspace.workspace import Workspace

    group, _, task = stage.partition(": ")
    number = int(group[-1]) - 1
    ws, at = Workspace.open(shop / "home"), as_of(NIGHTS[number])
    progress = partial(print, "   ", file=sys.stderr, flush=True)
    parts = dict(
        zip(FEEDBACK, (ingest_landed, foldin, last_attribution, drift, policy), strict=True)
    )

    def run(row: Row) -> str:
        if task in parts:
            done = parts[task](ws, at, progress=progress)
            return getattr(done, "sentence", getattr(done, "reason", ""))
        if task == "snapshot":
            row.names = nightly.snapshot(ws, at, progress=progress).recipes
            return ""
        own = ws.runs.starting_with(f"{at:%Y%m%dT%H%M%SZ}")[-1]
        name, *recipe = task.split()
        done = getattr(nightly, name)(ws, own.run_id, *recipe, progress=progress)
        if task == "gate":
            row.names = RELEASE if decision_of(own).promotes else ("register",)
        return getattr(done, "sentence", "")

    if number and task == "ingest":
        for path in shop.glob("*.csv"):
            path.rename(shop / "home/landing/events" / path.name)
    return run


def _peak_kb() -> int:
    # Not `ru_maxrss`, which begins with the size of the parent.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def _table(rows: dict[int, list[Row]]) -> Iterator[str]:
    """Yield the lines of the table: a stage a line, three columns a size, then the slopes."""
    yield f"{'':<26}" + "".join(f"{f'{n:,} events':>26}" for n in rows) + "   slopes"
    yield f"{'':<26}" + f"{'s':>9}{'CPU s':>9}{'MB':>8}" * len(rows) + "    CPU    MB  B an event"
    stages = {n: {row.stage: row for row in (*of, *_sums(of))} for n, of in rows.items()}
    for name in max(stages.values(), key=len):
        own = {n: of[name] for n, of in stages.items() if name in of}
        above = {n: max(row.peak_mb - BASE_MB, 0.0) for n, row in own.items()}
        cells = (own.get(n) for n in rows)
        text = (
            f"{r.seconds:9,.1f}{r.cpu:9,.1f}{r.peak_mb:8,.0f}" if r else " " * 26 for r in cells
        )
        yield (
            f"{name:<26}{''.join(text)} {_slope({n: row.cpu for n, row in own.items()})}"
            f"{_slope(above)}{above[max(own)] * 2**20 / max(own):12,.0f}"
        )


def _sums(rows: list[Row]) -> Iterator[Row]:
    """Yield the sums of each pass and night, and the largest of their peaks."""
    for group, own in itertools.groupby(rows, key=lambda row: row.stage.partition(":")[0]):
        parts = list(own)
        seconds, cpu = sum(r.seconds for r in parts), sum(r.cpu for r in parts)
        yield Row(f"{group}: all", seconds, cpu, max(r.peak_mb for r in parts))


def _slope(values: dict[int, float]) -> str:
    """Return the slope of the logarithms between the smallest and the largest size."""
    low, high = min(values), max(values)
    if low == high or not values[low] or not values[high]:
        return f"{'':6}"
    return f"{math.log(values[high] / values[low]) / math.log(high / low):6.2f}"


if __name__ == "__main__":
    main()
