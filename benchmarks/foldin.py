"""Fold-in: delay from an event to new lists, and their quality beside that of a retrained model.

    foldin.py [online-retail | completejourney | all] [--part freshness | parity | all] [--passes N]

*Freshness*: a workspace with one nightly run over nine tenths of a data set, the default settings,
and every customer several times under other names until there are 6,000. Then passes in a row, as
`nightjar feedback` runs them, each over a file of 100,000 rows of 5,000 users: items and instants
are those of real later purchases, users are assigned in turn. Measured are the seconds from the
start of a pass to its end, and the CPU seconds of all processors, which do not depend on other load
of the machine. A file that landed waits for the cron before that; the printed sum includes it.

*Parity*: for five nights, one day and one week later, with ALS, the default blend (selected as in
`churn.py`) and, if it is named, LightFM. The users with events in between get three kinds of
lists: those of the first night,
those folded in by its model, and those of a retrained model. ``in common`` is the share of the
first ten entries that the retrained model has, too; NDCG@10 is measured on these users' events in
the two weeks after. Lists leave out the items that their user had.

With ``--json`` one object: a row for each data set (freshness), or for each data set, recipe and
gap (parity).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.churn import DATA, selected_blend
from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.quality import missing
from pipeline import columns as c
from pipeline.base import Interval, as_of
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.evaluation.prequential import list_quality
from pipeline.models.als import Als
from pipeline.models.contract import Recipe
from pipeline.models.lightfm import LightFm
from pipeline.serving.churn import churn
from pipeline.serving.foldin import end_of, histories
from pipeline.serving.recommend import model_lists

ROWS, USERS_PER_PASS, MIN_USERS = 100_000, 5_000, 6_000
AIM_SECONDS = 10.0
CRON, STILL_WRITTEN = 300, 2
"""Seconds between two passes of the DAG; seconds for which a file must not change."""
K = 10
FORTNIGHT = timedelta(days=14)
GAPS = (1, 7)


@dataclass(frozen=True)
class Fresh:
    """Time of the passes over new files."""

    data: str
    recipe: str
    passes: int
    refreshed: int
    median_seconds: float
    p95_seconds: float
    median_foldin_seconds: float
    median_cpu_seconds: float
    last_cpu_seconds: float
    cores: int


@dataclass(frozen=True)
class Near:
    """Overlap of each kind of lists with those of the retrained model, and its NDCG."""

    data: str
    recipe: str
    gap_days: int
    users: int
    left_in_common: float
    folded_in_common: float
    left_ndcg_at_10: float
    folded_ndcg_at_10: float
    retrained_ndcg_at_10: float


def freshness(name: str, folder: Path, passes: int) -> Fresh:
    """Run one night, then time passes over new files."""
    from pipeline.steps.feedback.feedback import feedback
    from pipeline.steps.ingest.ingest import ingest
    from pipeline.steps.nightly.nightly import nightly
    from pipeline.workspace.workspace import Workspace

    events = DATA[name].load(folder).select(c.USER_ID, c.ITEM_ID, "at").sort("at")
    cut = events["at"].quantile(0.9)
    assert isinstance(cut, datetime)
    before, later = events.filter(pl.col("at") < cut), events.filter(pl.col("at") >= cut)
    customers = before[c.USER_ID].n_unique()
    copies = -(-MIN_USERS // customers)
    many = pl.concat(
        before.with_columns(pl.format("{}~{}", c.USER_ID, pl.lit(n))) for n in range(copies)
    )
    users = np.random.default_rng(0).permutation(many[c.USER_ID].unique().sort().to_numpy())[
        :USERS_PER_PASS
    ]
    with tempfile.TemporaryDirectory(prefix="nightjar-foldin-") as home:
        ws = Workspace.init(Path(home) / "ws", "")
        file = Path(home) / "before.parquet"
        _events(many, "b").write_parquet(file)
        print_progress(
            f"{name}: {many.height:,} rows of {many[c.USER_ID].n_unique():,} users, one night"
        )
        ingest(ws, [file], at=as_of(datetime.now(UTC)), progress=print_progress)
        night = nightly(ws, as_of(cut), progress=print_progress)
        measured = []
        for number in range(passes):
            draw = np.random.default_rng(number).integers(0, later.height, ROWS)
            rows = later[draw].with_columns(pl.Series(c.USER_ID, np.resize(users, ROWS)))
            path = ws.home / "landing" / "events" / f"pass-{number}.csv"
            _events(rows, str(number)).write_csv(path)
            lain = time.time() - STILL_WRITTEN - 1
            os.utime(path, (lain, lain))
            start, worked = time.perf_counter(), _cpu_seconds()
            folded = feedback(ws, as_of(datetime.now(UTC))).foldin
            measured.append((time.perf_counter() - start, _cpu_seconds() - worked, folded))
            print_progress(
                f"  pass {number + 1}: {measured[-1][0]:.1f} s, "
                f"{measured[-1][1]:.1f} s of processors; "
                f"{folded.text()}"
            )
    seconds, cpu = (np.array([row[n] for row in measured]) for n in (0, 1))
    return Fresh(
        data=name,
        recipe=str(night.recipe),
        passes=passes,
        refreshed=min(folded.users_refreshed for *_, folded in measured),
        median_seconds=float(np.median(seconds)),
        p95_seconds=float(np.quantile(seconds, 0.95, method="higher")),
        median_foldin_seconds=float(np.median([folded.seconds for *_, folded in measured])),
        median_cpu_seconds=float(np.median(cpu)),
        last_cpu_seconds=float(cpu[-1]),
        cores=len(os.sched_getaffinity(0)),
    )


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and its children so far."""
    return sum(os.times()[:4])


def _events(rows: pl.DataFrame, prefix: str) -> pl.DataFrame:
    return rows.select(
        pl.format("{}-{}", pl.lit(prefix), pl.int_range(pl.len())).alias(c.EVENT_ID),
        c.USER_ID,
        c.ITEM_ID,
        pl.lit("purchase").alias(c.KIND),
        pl.lit("1").alias(c.VALUE),
        pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").alias(c.TIMESTAMP),
    )


def parity(name: str, recipe_name: str, folder: Path) -> list[Near]:
    """Return the parity of a recipe on a data set, for each gap."""
    data = DATA[name]
    events = data.load(folder).select(
        c.USER_ID,
        c.ITEM_ID,
        pl.col("at").alias(c.TIMESTAMP),
        pl.lit(1.0, pl.Float32).alias(WEIGHT),
    )
    recipe: Recipe
    if recipe_name == "blend":
        recipe = selected_blend(events, data.nights[0])
    else:
        recipe = Als(device="cpu") if recipe_name == "als" else LightFm()
    return [_near(name, recipe_name, recipe, events, timedelta(days=gap)) for gap in GAPS]


def _near(
    name: str, recipe_name: str, recipe: Recipe, events: pl.DataFrame, gap: timedelta
) -> Near:
    kinds = ("left", "folded", "retrained")
    common = {kind: [0, 0] for kind in kinds}
    ndcg: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
    n_users = 0
    for night in DATA[name].nights:
        lists = _three(recipe, events, night, gap)
        users = set.intersection(*(set(frame[c.USER_ID]) for frame in lists.values()))
        n_users += len(users)
        span = Interval(night + gap, night + gap + FORTNIGHT)
        their_events = events.filter(
            pl.col(c.USER_ID).is_in(users) & (pl.col(c.TIMESTAMP) < span.end)
        )
        for kind, frame in lists.items():
            like = churn(lists["retrained"], frame, users, k=K)
            common[kind] = [common[kind][0] + like.kept, common[kind][1] + like.entries]
            own = frame.filter(pl.col(c.USER_ID).is_in(users))
            quality = list_quality(
                own, their_events, their_events, span=span, k=K, task="discovery"
            )
            if quality is not None:
                ndcg[kind].append((quality.ndcg.mean, quality.users))
        print_progress(f"  {night:%Y-%m-%d} + {gap.days} days: {len(users):,} users")
    shares = {kind: kept / entries for kind, (kept, entries) in common.items()}
    means = {
        kind: sum(mean * users for mean, users in nights) / sum(users for _, users in nights)
        for kind, nights in ndcg.items()
    }
    return Near(
        name,
        recipe_name,
        gap.days,
        n_users,
        shares["left"],
        shares["folded"],
        means["left"],
        means["folded"],
        means["retrained"],
    )


def _three(
    recipe: Recipe, events: pl.DataFrame, night: datetime, gap: timedelta
) -> dict[str, pl.DataFrame]:
    """Return the three kinds of lists of every user with an event in the gap."""
    before, after = build_history(events, night), build_history(events, night + gap)
    old, new = recipe.train(before), recipe.train(after)
    at = pl.col(c.TIMESTAMP)
    did = events.filter((at >= night) & (at < night + gap))
    users = did[c.USER_ID].unique().to_list()
    newest = did[c.TIMESTAMP].max()
    assert isinstance(newest, datetime)
    their_events = events.filter(pl.col(c.USER_ID).is_in(users))
    own = histories(their_events, before, end_of(newest, night))
    assert own is not None
    known, again = (
        history.take(np.flatnonzero(np.isin(history.user_ids, users)))
        for history in (before, after)
    )
    made = {
        "left": (old.score, known),
        "folded": (old.fold_in, own),
        "retrained": (new.score, again),
    }
    return {
        kind: model_lists(score, history, (), repeat=False, length=K)
        for kind, (score, history) in made.items()
    }


def print_fresh(row: Fresh) -> None:
    """Print the times of the passes beside the aim."""
    met = "reached" if row.p95_seconds <= AIM_SECONDS else "MISSED "
    print(
        f"{row.data}: {row.passes} passes over {ROWS:,} rows, {row.refreshed:,} users refreshed "
        f"in each, live model {row.recipe}, {row.cores} cores\n"
        f"  from the start of a pass: median {row.median_seconds:.1f} s, 95 % within "
        f"{row.p95_seconds:.1f} s (fold-in alone: median {row.median_foldin_seconds:.1f} s)\n"
        f"  seconds of all processors: median {row.median_cpu_seconds:.1f}, the last pass "
        f"{row.last_cpu_seconds:.1f}\n"
        f"  {met} aim: 95 % within {AIM_SECONDS:.0f} s\n"
        f"  from a file's landing, at most: {CRON} s until the cron + {STILL_WRITTEN} s to lie "
        f"still + {row.p95_seconds:.1f} s = {CRON + STILL_WRITTEN + row.p95_seconds:.0f} s",
        flush=True,
    )


def print_near(rows: list[Near]) -> None:
    """Print the parity, one line for each gap."""
    kinds = ("left", "folded in", "trained again")
    head = f"{'data':<16} {'recipe':<6} {'gap':>6} {'users':>7}  "
    print(head + "in common: left, folded in   NDCG@10: " + ", ".join(kinds))
    for row in rows:
        print(
            f"{row.data:<16} {row.recipe:<6} {row.gap_days:>4} d {row.users:>8,}  "
            f"{row.left_in_common:>15.3f} {row.folded_in_common:>11.3f}   "
            f"{row.left_ndcg_at_10:>13.4f} {row.folded_ndcg_at_10:>10.4f} "
            f"{row.retrained_ndcg_at_10:>14.4f}",
            flush=True,
        )


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("dataset", nargs="?", choices=[*DATA, "all"], default="all")
    arguments.add_argument("--part", choices=["freshness", "parity", "all"], default="all")
    arguments.add_argument("--recipe", choices=["als", "blend", "lightfm", "all"], default="all")
    arguments.add_argument("--passes", type=int, default=20, help="passes that are timed")
    options = arguments.parse_args()
    names = list(DATA) if options.dataset == "all" else [options.dataset]
    for name in names:
        if problem := missing(name, options.data):
            raise SystemExit(problem)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        if options.part != "parity":
            row = freshness(name, options.data, options.passes)
            results.setdefault("freshness", []).append(asdict(row))
            if not options.json:
                print_fresh(row)
        if options.part == "freshness":
            continue
        rows: list[Near] = []
        for recipe in ("als", "blend") if options.recipe == "all" else (options.recipe,):
            print_progress(f"{name}, {recipe}")
            rows += parity(name, recipe, options.data)
        results.setdefault("parity", []).extend(asdict(row) for row in rows)
        if not options.json:
            print_near(rows)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
