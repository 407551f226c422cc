"""Damages of the data, planted into copies of a workspace: what the gate does, and the true loss.

    damage.py [online-retail | completejourney] [--only NAME ...] [--users N] [--home DIR]
              [--nights-after N]

Creates a workspace with the shop's whole history (in DIR, which the next call uses again), and runs
weekly nights up to the last as-of, which lies 28 days before the newest event. Each damage is
planted into the events of a copy, and a night is run at the last as-of. Printed are the true loss,
the decision, the rules or checks that failed, and the drift of that night.

The true loss compares NDCG@10 of the lists with that of the healthy copy's lists, on the purchases
of the 28 days after the last as-of, which no run has used. For a night that went live it is that of
its lists; for one that did not, that of the lists of the champion's recipe, trained on the damaged
events.

With ``--nights-after``, so many nights are run on the days after a night that stopped a damage that
costs at least 2 %: the events of these days arrive undamaged, and the damaged ones stay. The last
column has their decisions, and ends with the first night that goes live.

Goals: of the damages that cost at least 2 %, at most two go live; healthy copies stay live. With
``--json`` one object: a row for each damage.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.backtest import SHOPS, SOURCE, made
from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.quality import missing
from pipeline import columns as c
from pipeline.base import AsOf, as_of
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.data.split import before
from pipeline.errors import DataError, GateError
from pipeline.evaluation.holdout import lists_of
from pipeline.models.contract import Recipe
from pipeline.models.popularity import DecayedPopularity
from pipeline.monitoring.verdicts import DriftStatus
from pipeline.steps.feedback.drift import read_drift
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.registry.connection import relocate_artifact_uris
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import SplitFile, ValidationFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.release_artifacts import ColdCheckFile, DecisionFile
from pipeline.workspace.workspace import Workspace

DAY = timedelta(days=1)
UNUSED = 28 * DAY
"""Days after the last as-of: the longest holdout."""
NIGHTS = 6
K = 10
COSTLY = 0.02
LIVE = ("first", "switch", "refresh")
"""Decisions that go live."""
MOST_LIVE = 2
CONFIG = f"""{SOURCE}
[publish]
live_from = "as_of"

[recipes.blend]
family = "blend"
weights = {{ als = 0.5, own = 1.0 }}
recency_boost = 0.2
popularity_penalty = 0.0

[recipes.blend.parts.als]
family = "als"
factors = 32
regularization = 5.0
half_life_days = 60.0

[recipes.blend.parts.own]
family = "personal_frequency"
half_life_days = 60.0
"""
_SEED = 20_261_130

Random = np.random.Generator
Damage = Callable[[pl.DataFrame, datetime, Random], pl.DataFrame]
"""Events before the last as-of, the as-of, and a generator -> damaged events."""


# ---------------------------------------------------------------- damages


def since(end: datetime, days: float) -> pl.Expr:
    """Return the events of the last days."""
    return pl.col(c.TIMESTAMP) >= end - days * DAY


def _half(events: pl.DataFrame, column: str, random: Random, share: float = 0.5) -> list[str]:
    """Draw a share of the ids of a column."""
    ids = events[column].unique().sort()
    return ids.filter(pl.Series(random.random(len(ids)) < share)).to_list()


def lost_days(days: float) -> Damage:
    """Drop the last days."""
    return lambda events, end, _: events.filter(~since(end, days))


def silent(column: str, share: float, days: float) -> Damage:
    """Drop the last days' events of a share of the users or items."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        some = pl.col(column).is_in(_half(events, column, random, share))
        return events.filter(~(some & since(end, days)))

    return plant


def half_of_events(events: pl.DataFrame, _: datetime, random: Random) -> pl.DataFrame:
    """Drop each event with a chance of one half."""
    return events.filter(pl.Series(random.random(events.height) < 0.5))


def renamed(column: str, share: float, days: float) -> Damage:
    """Give a share of the users or items another id in the last days."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        some = pl.col(column).is_in(_half(events, column, random, share)) & since(end, days)
        new = pl.when(some).then(pl.col(column) + "-new").otherwise(pl.col(column))
        return events.with_columns(new.alias(column))

    return plant


def permuted_best_sellers(days: float, count: int = 100) -> Damage:
    """Exchange the ids of the best sellers among themselves in the last days."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        ranked = events.group_by(c.ITEM_ID).len().sort("len", c.ITEM_ID, descending=[True, False])
        best = ranked[c.ITEM_ID].head(count).to_list()
        # A cycle over a random order, so that none keeps its own id.
        order = [best[at] for at in random.permutation(len(best))]
        other = dict(zip(order, order[1:] + order[:1], strict=True))
        new = pl.when(since(end, days)).then(pl.col(c.ITEM_ID).replace(other))
        return events.with_columns(new.otherwise(pl.col(c.ITEM_ID)).alias(c.ITEM_ID))

    return plant


def shuffled_users(days: float) -> Damage:
    """Shuffle the user ids over the events of the last days."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        late = events.filter(since(end, days))
        mixed = late[c.USER_ID].to_numpy()[random.permutation(late.height)]
        late = late.with_columns(pl.Series(c.USER_ID, mixed, pl.String))
        return pl.concat([events.filter(~since(end, days)), late])

    return plant


def _stamped(events: pl.DataFrame, at: pl.Expr) -> pl.DataFrame:
    stamped = events.with_columns(at.cast(c.INSTANT).alias(c.TIMESTAMP))
    return stamped.with_columns(pl.col(c.TIMESTAMP).dt.date().alias(c.EVENT_DAY))


def late(hours: int) -> Damage:
    """Move all timestamps into the future; events after the as-of are not read."""
    return lambda events, _, __: _stamped(events, pl.col(c.TIMESTAMP) + timedelta(hours=hours))


def one_day(days: float | None) -> Damage:
    """Stamp the last days, or all history, with the day before the as-of."""

    def plant(events: pl.DataFrame, end: datetime, _: Random) -> pl.DataFrame:
        stamp = pl.lit(end - DAY)
        if days is not None:
            stamp = pl.when(since(end, days)).then(stamp).otherwise(pl.col(c.TIMESTAMP))
        return _stamped(events, stamp)

    return plant


def doubled(events: pl.DataFrame, _: datetime, __: Random) -> pl.DataFrame:
    """Deliver every event twice, under another id."""
    again = events.with_columns((pl.col(c.EVENT_ID) + "-2").alias(c.EVENT_ID))
    return pl.concat([events, again])


def as_views(share: float, days: float | None) -> Damage:
    """Let a share of the purchases, of the last days or of all history, arrive as views."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        some = pl.Series(random.random(events.height) < share)
        inside = pl.lit(True) if days is None else since(end, days)
        kind = pl.when(some & inside).then(pl.lit("view")).otherwise(pl.col(c.KIND))
        return events.with_columns(kind.alias(c.KIND))

    return plant


def bots(users: int, each: int, items: int = 20) -> Damage:
    """Add users who buy a few items in the last week; the items are drawn from all."""

    def plant(events: pl.DataFrame, end: datetime, random: Random) -> pl.DataFrame:
        ids = events[c.ITEM_ID].unique().sort().to_list()
        chosen = [ids[at] for at in random.choice(len(ids), items, replace=False)]
        count = users * each
        rows = events.head(1).select(pl.all().repeat_by(count).explode())
        seconds = random.integers(1, 7 * 86_400, count)
        rows = rows.with_columns(
            pl.Series(c.EVENT_ID, [f"bot-{n}" for n in range(count)]),
            pl.Series(c.USER_ID, [f"bot-{n // each}" for n in range(count)]),
            pl.Series(c.ITEM_ID, [chosen[at] for at in random.integers(0, items, count)]),
            pl.Series(c.TIMESTAMP, [end - timedelta(seconds=int(s)) for s in seconds]).cast(
                c.INSTANT
            ),
        )
        return pl.concat([events, _stamped(rows, pl.col(c.TIMESTAMP))])

    return plant


HEALTHY = "healthy"
DAMAGES: Mapping[str, Damage] = {
    HEALTHY: lambda events, _, __: events,
    "healthy, 1 % of events lost": lambda events, _, random: events.filter(
        pl.Series(random.random(events.height) >= 0.01)
    ),
    "3 days lost": lost_days(3),
    "14 days lost": lost_days(14),
    "30 % of users silent for 28 days": silent(c.USER_ID, 0.3, 28),
    "half of the items silent for 21 days": silent(c.ITEM_ID, 0.5, 21),
    "half of the items gone": silent(c.ITEM_ID, 0.5, 1e4),
    "half of the users gone": silent(c.USER_ID, 0.5, 1e4),
    "half of the events gone": half_of_events,
    "half of the user ids renamed, day 10": renamed(c.USER_ID, 0.5, 10),
    "item ids renamed, day 10": renamed(c.ITEM_ID, 1.0, 10),
    "item ids renamed, day 3": renamed(c.ITEM_ID, 1.0, 3),
    "best sellers permuted, day 21": permuted_best_sellers(21),
    "best sellers permuted, all": permuted_best_sellers(1e4),
    "best sellers permuted, last 5 days": permuted_best_sellers(5),
    "user ids shuffled, day 21": shuffled_users(21),
    "timestamps 6 h late": late(6),
    "20 days stamped as one": one_day(20),
    "all history stamped as one day": one_day(None),
    "events doubled": doubled,
    "half of the purchases as views": as_views(0.5, None),
    "all purchases as views": as_views(1.0, None),
    "28 days of purchases as views": as_views(1.0, 28),
    "bots, 300 x 40 on 20 items": bots(300, 40),
    "bots, 2,000 x 3 on 20 items": bots(2_000, 3),
}


# ---------------------------------------------------------------- true loss


@dataclass(frozen=True)
class Unused:
    """Purchases after the last as-of, of users and items that were known before it.

    Attributes
    ----------
    targets
        `user_id`, `item_id`.
    repeat
        Lists may repeat items.
    """

    targets: pl.DataFrame
    repeat: bool

    @classmethod
    def of(cls, events: pl.DataFrame, end: datetime, repeat: bool) -> Unused:
        """Select the targets of the days after an instant."""
        past = events.filter(before(end))
        after = events.filter((pl.col(c.TIMESTAMP) >= end) & (pl.col(c.TIMESTAMP) < end + UNUSED))
        targets = after.select(c.USER_ID, c.ITEM_ID).unique()
        for column in (c.USER_ID, c.ITEM_ID):
            targets = targets.join(past.select(column).unique(), on=column, how="semi")
        if not repeat:
            targets = targets.join(past, on=(c.USER_ID, c.ITEM_ID), how="anti")
        return cls(targets.sort(c.USER_ID, c.ITEM_ID), repeat)

    def ndcg(self, lists: pl.DataFrame) -> float:
        """Return the mean NDCG of lists (`user_id`, `position`, `item_id`) over all users."""
        hits = lists.filter(pl.col(c.POSITION) <= K).join(
            self.targets, on=(c.USER_ID, c.ITEM_ID), how="semi"
        )
        gain = hits.group_by(c.USER_ID).agg((1 / (pl.col(c.POSITION) + 1).log(2)).sum().alias("g"))
        best = np.cumsum(1 / np.log2(np.arange(K) + 2))
        wanted = self.targets.group_by(c.USER_ID).len()
        rows = wanted.join(gain, on=c.USER_ID, how="left").with_columns(pl.col("g").fill_null(0.0))
        ideal = best[np.minimum(rows["len"].to_numpy(), K) - 1]
        return float((rows["g"].to_numpy() / ideal).mean())

    def with_fallback(self, lists: pl.DataFrame, everyone: list[str]) -> pl.DataFrame:
        """Add one list for the users who have none."""
        lists = lists.select(c.USER_ID, pl.col(c.POSITION).cast(pl.Int64), c.ITEM_ID)
        users = self.targets.select(c.USER_ID).unique().join(lists, on=c.USER_ID, how="anti")
        fallback = pl.DataFrame({c.POSITION: range(1, len(everyone) + 1), c.ITEM_ID: everyone})
        return pl.concat([lists, users.join(fallback, how="cross").select(lists.columns)])

    def of_recipe(
        self, recipe: Recipe, events: pl.DataFrame, end: datetime, weights: Mapping[str, float]
    ) -> float:
        """Train a recipe on events before an instant, and return the NDCG of its lists."""
        history = _history(events, end, weights)
        scorer = recipe.train(history)
        users = history.take(
            np.flatnonzero(np.isin(history.user_ids, self.targets[c.USER_ID].unique().to_numpy()))
        )
        lists = lists_of(scorer, users, K, None if self.repeat else users.seen)
        counts = np.diff(lists.indptr)
        place = np.arange(len(lists.item)) - np.repeat(lists.indptr[:-1], counts) + 1
        frame = pl.DataFrame(
            {
                c.USER_ID: np.repeat(users.user_ids, counts).tolist(),
                c.POSITION: place,
                c.ITEM_ID: history.item_ids[lists.item].tolist(),
            },
            schema={c.USER_ID: pl.String, c.POSITION: pl.Int64, c.ITEM_ID: pl.String},
        )
        return self.ndcg(self.with_fallback(frame, everyone(history)))


def _history(events: pl.DataFrame, end: datetime, weights: Mapping[str, float]) -> History:
    weight = pl.col(c.KIND).replace_strict(weights, default=0.0, return_dtype=pl.Float32)
    return build_history(events.filter(before(end)).with_columns(weight.alias(WEIGHT)), end)


def everyone(history: History) -> list[str]:
    """Return the list of users without a history of their own."""
    scorer = DecayedPopularity().train(history)
    lists = lists_of(scorer, history.take(np.arange(1)), K, None)
    return [str(item) for item in history.item_ids[lists.item]]


# ---------------------------------------------------------------- nights


@dataclass(frozen=True)
class Row:
    """A damage and what became of it.

    Attributes
    ----------
    loss
        True loss of NDCG as a negative share.
    decision
        Kind of the decision, or the reason why there was none.
    seen_by
        Failed checks with their figures, and failed rules.
    lift
        Measured lift against the last scorer, or None.
    overlap
        Share of the live lists' first entries that stayed, for users without new events.
    drift
        Status of drift, and its signals.
    later
        Decisions of the nights after a night that did not go live.
    """

    damage: str
    loss: float
    live: bool
    decision: str
    seen_by: tuple[str, ...]
    lift: float | None
    overlap: float | None
    drift: str
    later: tuple[str, ...]

    @property
    def live_later(self) -> bool:
        """True if a later night went live."""
        return bool(self.later) and self.later[-1] in LIVE


def prepared(
    name: str, home: Path, data: Path, nights: int, users: int | None
) -> tuple[Workspace, AsOf]:
    """Create the workspace with its healthy nights, or open the one that exists."""
    ws = made(name, home, data, CONFIG, users)
    newest: Any = ws.lake.read("events", columns=[c.TIMESTAMP])[c.TIMESTAMP].max()
    end = as_of(f"{newest - UNUSED:%Y-%m-%dT00:00:00Z}")
    for back in range(nights, 0, -1):
        night = nightly(ws, AsOf(end - 7 * back * DAY), progress=print_progress)
        print_progress(night.sentence)
    return ws, end


def copy_of(home: Path, target: Path) -> Workspace:
    """Copy a workspace."""
    shutil.copytree(home, target)
    relocate_artifact_uris(target / "mlflow" / "mlflow.db")
    # MLflow keeps artifact paths by run id, which the copies share.
    kept = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if kept is not None:
        kept._artifact_repos_cache.clear()
    return Workspace.open(target)


def outcome(ws: Workspace, end: AsOf) -> tuple[str, Run | None]:
    """Run a night; return its decision, and its run."""
    try:
        night = nightly(ws, end, progress=lambda _: None)
        kind = night.decision or night.status
    except (DataError, GateError) as error:
        kind = f"stopped by {error.id}"
    stamp = f"{end:%Y%m%d}"
    runs = [run for run in ws.runs.starting_with("") if run.run_id.startswith(stamp)]
    return kind, runs[-1] if runs else None


def faults(run: Run | None) -> tuple[str, ...]:
    """Return the checks, with their figures, and the rules of a run that failed."""
    if run is None:
        return ()
    names: list[str] = []
    if run.has(ValidationFile):
        checks = run.read(ValidationFile).failed
        names += [
            f"check.{check.name}" + ("" if check.figure is None else f" {check.figure:.2f}")
            for check in checks
        ]
    if run.has(DecisionFile):
        rules = run.read(DecisionFile).root.rules
        names += [
            rule.name
            for rule in rules
            if rule.outcome in ("fail", "missing") and not rule.name.startswith("switch.")
        ]
    if run.has(ColdCheckFile) and run.read(ColdCheckFile).fault is not None:
        names.append("cold_check")
    return tuple(dict.fromkeys(names))


def drift_text(run: Run | None) -> str:
    """Return the drift status of a run with the signals that drift."""
    drift = None if run is None else read_drift(run)
    if drift is None:
        return ""
    names = [x.name for x in drift.signals if x.status == DriftStatus.DRIFT]
    return f"{drift.status}: {', '.join(names)}" if names else str(drift.status)


def lift_of(run: Run | None) -> float | None:
    """Return the lift against the last scorer."""
    if run is None or not run.has(DecisionFile):
        return None
    rules = run.read(DecisionFile).root.rules
    return next((rule.figure for rule in rules if rule.name == "refresh.last"), None)


def later_nights(
    ws: Workspace, damaged: pl.DataFrame, events: pl.DataFrame, end: AsOf, nights: int
) -> Iterator[str]:
    """Run the nights of the next days, whose events are healthy, until one goes live."""
    after = events.filter(~before(end))
    for number in range(1, nights + 1):
        night = AsOf(end + number * DAY)
        ws.lake.replace("events", pl.concat([damaged, after.filter(before(night))]))
        kind, _ = outcome(ws, night)
        yield kind
        if kind in LIVE:
            return


def measured(ws: Workspace, end: AsOf, names: list[str], nights_after: int = 0) -> list[Row]:
    """Plant each damage into a copy; the first name is that of the healthy copy."""
    events = ws.lake.read("events")
    champion = LedgerHistory.of(ws.ledger).champion(end)
    if champion is None:
        raise SystemExit("no night went live: run more nights")
    task = ws.runs.open(champion.run_id).read(SplitFile).task
    unused, weights = Unused.of(events, end, task == "repeat"), ws.config.features.weights
    past = events.filter(before(end))
    healthy: dict[bool, float] = {}
    rows = []
    for name in names:
        damaged = DAMAGES[name](past, end, np.random.default_rng(_SEED))
        own = unused.of_recipe(champion.recipe, damaged, end, weights)
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_of(ws.home, Path(folder) / "workspace")
            copy.lake.replace("events", damaged)
            kind, run = outcome(copy, end)
            live = kind in LIVE
            ndcg = own
            if live and run is not None:
                everyone_ = everyone(_history(damaged, end, weights))
                ndcg = unused.ndcg(unused.with_fallback(run.frame("recommend", "lists"), everyone_))
            if name == HEALTHY:
                healthy = {True: ndcg, False: own}
            overlap = None
            if run is not None and run.has(ColdCheckFile):
                overlap = run.read(ColdCheckFile).overlap
            loss = ndcg / healthy[live] - 1
            stopped = not live and loss <= -COSTLY
            later = later_nights(copy, damaged, events, end, nights_after) if stopped else ()
            rows.append(
                Row(
                    damage=name,
                    loss=loss,
                    live=live,
                    decision=kind,
                    seen_by=faults(run),
                    lift=lift_of(run),
                    overlap=overlap,
                    drift=drift_text(run),
                    later=tuple(later),
                )
            )
        print_progress(text_of(rows[-1]))
    return rows


def text_of(row: Row) -> str:
    """Return a row as a line of a Markdown table."""
    lift = "" if row.lift is None else f"{row.lift:+.1%}"
    overlap = "" if row.overlap is None else f"{row.overlap:.2f}"
    return (
        f"| {row.damage} | {row.loss:+.1%} | {row.decision} | {', '.join(row.seen_by)} | {lift} | "
        f"{overlap} | {row.drift} | {', '.join(row.later)} |"
    )


def goals(rows: list[Row]) -> list[str]:
    """Return a sentence for each goal."""
    costly = [row for row in rows if row.loss <= -COSTLY and not row.damage.startswith(HEALTHY)]
    live = [row.damage for row in costly if row.live]
    stopped = [row.damage for row in rows if row.damage.startswith(HEALTHY) and not row.live]
    named = f": {'; '.join(live)}" if live else ""
    later = [row.damage for row in costly if row.later]
    went = [row.damage for row in costly if row.live_later]
    shown = [
        f"shown    of {len(later)} stopped damages that cost as much, {len(went)} went live within "
        f"the nights after: {'; '.join(went) or 'none'}"
    ]
    return [
        f"{'reached' if len(live) <= MOST_LIVE else 'MISSED '}  of {len(costly)} damages that cost "
        f"at least {COSTLY:.0%}, {len(live)} went live{named}; goal: at most {MOST_LIVE}",
        f"{'MISSED ' if stopped else 'reached'}  {len(stopped)} healthy copies were blocked; "
        "goal: 0",
        *(shown if later else ()),
    ]


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("dataset", nargs="?", choices=SHOPS, default="online-retail")
    arguments.add_argument("--only", action="append", choices=DAMAGES, help="one damage")
    arguments.add_argument("--home", type=Path, help="keep the workspace here")
    arguments.add_argument("--users", type=int, help="number of users; without it all")
    arguments.add_argument("--nights", type=int, default=NIGHTS, help="healthy nights before")
    arguments.add_argument(
        "--nights-after", type=int, default=0, help="nights after one that did not go live"
    )
    options = arguments.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if problem := missing(options.dataset, options.data):
        raise SystemExit(problem)
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "workspace"
        ws, end = prepared(options.dataset, home, options.data, options.nights, options.users)
        names = [HEALTHY, *(n for n in options.only or DAMAGES if n != HEALTHY)]
        rows = measured(ws, end, names, options.nights_after)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    heads = "damage, true loss, decision, seen by, measured lift, overlap, drift, nights after"
    print("| " + heads.replace(", ", " | ") + " |")
    print("| --- " * (heads.count(",") + 1) + "|")
    for row in rows:
        print(text_of(row))
    for sentence in goals(rows):
        print(sentence)


if __name__ == "__main__":
    main()
