"""How much do the lists of people who did nothing move from one night to the next?

Trains the same ALS on the demo's purchases for pairs of nights a day apart, once with the
library's random start and once with starts keyed by item, and prints the mean overlap of the first
ten entries for households without a purchase on that day. The last column repeats the *same* night
with another seed: what is missing to 1 there is dice.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import parser
from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.models.contract import Scores
from pipeline.models.factorize import Als, solve_users
from pipeline.models.topk import top_k
from pipeline.steps import demo

RECIPE = Als(factors=64, alpha=0.6, regularization=10.0, iterations=8, half_life_days=90.0)
K = 10


def weighted() -> pl.DataFrame:
    frames = [
        pl.read_parquet(demo._folder() / f"{n}.parquet") for n in ("transactions", "products")
    ]
    bought = pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    dropped = pl.col("department").is_in(["FUEL", "COUPON", "MISCELLANEOUS"])
    return (
        frames[0]
        .join(frames[1].filter(~dropped), on="product_id", how="semi")
        .filter(pl.col("quantity") > 0)
        .select(
            pl.col("household_id").cast(pl.String).alias(c.USER_ID),
            pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
            bought.alias(c.TIMESTAMP),
            pl.lit(1.0, pl.Float32).alias(WEIGHT),
        )
    )


def keyed(history: History, seed: int) -> Scores:
    return RECIPE.train(history, salt=seed).score(history)


def library(history: History, seed: int) -> Scores:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    cells = history.confidence(RECIPE.half_life_days)
    cells.data *= np.float32(RECIPE.alpha / float(cells.data.mean()))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=RECIPE.factors,
            regularization=RECIPE.regularization,
            alpha=1.0,
            iterations=RECIPE.iterations,
            random_state=seed,
        )
        model.fit(cells, show_progress=False)
    items = np.asarray(model.item_factors)
    return Scores(users=solve_users(items, cells, RECIPE.regularization), items=items)


def shown(scores: Scores, history: History) -> dict[str, set[str]]:
    lists = top_k(scores, K, exclude=history.seen)
    return {
        user: set(history.item_ids[lists.item[lists.indptr[row] : lists.indptr[row + 1]]].tolist())
        for row, user in enumerate(history.user_ids.tolist())
    }


def overlap(a: dict[str, set[str]], b: dict[str, set[str]], users: set[str]) -> float:
    return float(np.mean([len(a[user] & b[user]) / K for user in users]))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--nights", type=int, default=3, help="pairs of nights")
    options = arguments.parse_args()
    events = weighted()
    rows = []
    for name, fit in (("the library's start", library), ("keyed by item", keyed)):
        moved, dice = [], []
        for n in range(options.nights):
            night = datetime(2017, 11, 7, 9, tzinfo=UTC) + timedelta(days=14 * n)
            before, after = (build_history(events, night + timedelta(days=d)) for d in (0, 1))
            first, second = shown(fit(before, 0), before), shown(fit(after, 0), after)
            today = events.filter(
                (pl.col(c.TIMESTAMP) >= night) & (pl.col(c.TIMESTAMP) < night + timedelta(days=1))
            )
            idle = set(first) - set(today[c.USER_ID])
            moved.append(overlap(first, second, idle))
            dice.append(overlap(first, shown(fit(before, 1), before), idle))
        rows.append({"start": name, "next_night": np.mean(moved), "other_seed": np.mean(dice)})
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"{'start':<22} {'next night':>10} {'same night, other seed':>24}")
    for row in rows:
        print(f"{row['start']:<22} {row['next_night']:>10.3f} {row['other_seed']:>24.3f}")


if __name__ == "__main__":
    main()
