"""List stability: overlap of the lists of users without new events, and its price in NDCG.

    churn.py [online-retail | completejourney | all] [--recipe als | blend | all] [--seeds N]

Trains a recipe for five pairs of nights that are a day apart, and compares the first ten entries of
each user without an event on that day. Lists leave out the items that their user had: with them,
own items would make lists equal for any start. Two starts are compared:

* *keyed by id*, that of Nightjar: each vector belongs to an item's id;
* the usual one: for ALS the library's own random start, for the blend vectors drawn row by row from
  one seed in every part that draws any (no library has this blend).

``next night`` is the overlap across a day; ``other seed`` the overlap of two fits of one night with
different seeds, so 1 minus it is seed noise. NDCG@10 is measured on the two weeks after each of
three other instants, over N seeds each; its error is that of the seeds (all starts are evaluated
on the same users). The blend is the default one, with the hyperparameters that a nightly run
selects on windows before the first night.

With ``--json`` one object, a row a data set, recipe and start.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.quality import completejourney, missing, online_retail
from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.data.split import PinnedTask
from pipeline.evaluation.earlier_windows import earlier_windows
from pipeline.evaluation.holdout import truth_of
from pipeline.evaluation.metrics import ndcg
from pipeline.evaluation.trials import EarlierWindows
from pipeline.models.als import Als, solve_users
from pipeline.models.contract import Recipe, Scores
from pipeline.models.families import default_recipes
from pipeline.models.selection import select_hyperparameters
from pipeline.models.topk import Lists, top_k
from pipeline.serving.churn import churn
from pipeline.workspace.config import Config

K = 10
AIM = 0.90
DAY, FORTNIGHT = timedelta(days=1), timedelta(days=14)
DRAWING = tuple(
    f"pipeline.models.{name}.keyed_normal" for name in ("als", "svd", "repeat_purchase.recipe")
)
"""Functions through which the default recipes draw vectors by id."""

Fit = Callable[[History, int], Scores]


@dataclass(frozen=True)
class Data:
    """A shop: its events, the first of each pair of nights, and where NDCG looks ahead from."""

    load: Callable[[Path], pl.DataFrame]
    nights: tuple[datetime, ...]
    cuts: tuple[datetime, ...]


def _days(*days: tuple[int, int, int], hour: int = 0) -> tuple[datetime, ...]:
    return tuple(datetime(*day, hour, tzinfo=UTC) for day in days)


DATA = {
    "online-retail": Data(
        online_retail,
        _days((2011, 10, 5), (2011, 10, 20), (2011, 11, 3), (2011, 11, 17), (2011, 11, 24)),
        _days((2011, 9, 22), (2011, 10, 20), (2011, 11, 17)),
    ),
    "completejourney": Data(
        completejourney,
        _days((2017, 9, 26), (2017, 10, 10), (2017, 10, 24), (2017, 11, 7), (2017, 11, 21), hour=9),
        _days((2017, 9, 12), (2017, 10, 17), (2017, 11, 21), hour=9),
    ),
}


@dataclass(frozen=True)
class Row:
    """Result of one start of one recipe on one data set."""

    data: str
    recipe: str
    start: str
    next_night: float
    other_seed: float
    idle: int
    ndcg_at_10: float
    ndcg_se: float
    seeds: int


def library(recipe: Als) -> Fit:
    """Fit with the random start of implicit."""

    def fit(history: History, seed: int) -> Scores:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        cells = history.confidence(recipe.half_life_days)
        cells.data *= np.float32(recipe.alpha / float(cells.data.mean(dtype=np.float64)))
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=recipe.factors,
                regularization=recipe.regularization,
                alpha=1.0,
                iterations=recipe.iterations,
                random_state=seed,
            )
            model.fit(cells, show_progress=False)
        items = np.asarray(model.item_factors)
        return Scores(users=solve_users(items, cells, recipe.regularization), items=items)

    return fit


def keyed(recipe: Recipe) -> Fit:
    """Fit as a nightly run does; each seed is another replicate."""
    return lambda history, seed: recipe.train(history, replicate=seed).score(history)


def by_row(recipe: Recipe) -> Fit:
    """Fit with vectors drawn row after row from one seed, independent of ids."""

    def fit(history: History, seed: int) -> Scores:
        with drawn_by_row(seed):
            return recipe.train(history).score(history)

    return fit


@contextmanager
def drawn_by_row(seed: int) -> Iterator[None]:
    """Draw by row, within the context, all vectors that belong to ids."""

    def draw(ids: NDArray[np.str_], dimensions: int, *, key: str) -> NDArray[np.float32]:
        random = np.random.default_rng([seed, *key.encode()])
        return random.standard_normal((len(ids), dimensions), np.float32)

    with patch(DRAWING[0], draw), patch(DRAWING[1], draw), patch(DRAWING[2], draw):
        yield


def lists_of(scores: Scores, history: History) -> Lists:
    """Return each user's first ten items without those that they had."""
    return top_k(scores, K, exclude=history.seen)


def frame(lists: Lists, history: History) -> pl.DataFrame:
    """Return lists as a frame of user, position and item."""
    return pl.DataFrame(
        {
            c.USER_ID: history.user_ids[lists.row],
            c.POSITION: lists.rank + 1,
            c.ITEM_ID: history.item_ids[lists.item],
        }
    )


def moved(fit: Fit, events: pl.DataFrame, nights: tuple[datetime, ...]) -> tuple[float, float, int]:
    """Return the overlap across a day, that of two seeds of one night, and the idle users."""
    across: list[float] = []
    other_seed: list[float] = []
    n_idle = 0
    for night in nights:
        before, after = (build_history(events, night + n * DAY) for n in (0, 1))
        shown = frame(lists_of(fit(before, 0), before), before)
        at = pl.col(c.TIMESTAMP)
        busy = events.filter((at >= night) & (at < night + DAY))[c.USER_ID]
        idle = set(shown[c.USER_ID]) - set(busy)
        n_idle += len(idle)
        for other, window, seed in ((across, after, 0), (other_seed, before, 1)):
            again = frame(lists_of(fit(window, seed), window), window)
            other.append(churn(shown, again, idle, k=K).overlap or 0.0)
        print_progress(
            f"  {night:%Y-%m-%d}: next night {across[-1]:.3f}, other seed {other_seed[-1]:.3f}"
        )
    return float(np.mean(across)), float(np.mean(other_seed)), n_idle


def quality(
    fit: Fit, events: pl.DataFrame, cuts: tuple[datetime, ...], seeds: int
) -> NDArray[np.float64]:
    """Return ``(cuts, seeds)`` NDCG@10 of the two weeks after each cut."""
    measured_values = np.zeros((len(cuts), seeds))
    for row, cut in enumerate(cuts):
        history = build_history(events, cut)
        at = pl.col(c.TIMESTAMP)
        pairs = [c.USER_ID, c.ITEM_ID]
        had = events.filter(at < cut).select(pairs)
        wanted = events.filter((at >= cut) & (at < cut + FORTNIGHT)).select(pairs).unique()
        wanted = wanted.join(had, on=pairs, how="anti").sort(pairs)
        truth = truth_of(wanted, history.user_ids, history.item_ids)
        for seed in range(seeds):
            measured_values[row, seed] = np.nanmean(
                ndcg(lists_of(fit(history, seed), history), truth, K)
            )
        print_progress(f"  {cut:%Y-%m-%d}: NDCG@10 {measured_values[row].mean():.4f}")
    return measured_values


def error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of ``(cuts, seeds)``: of the seeds, within each cut."""
    cuts, seeds = values.shape
    if seeds < 2:
        return math.nan
    return float(np.sqrt((values.var(axis=1, ddof=1) / seeds).sum()) / cuts)


def selected_blend(events: pl.DataFrame, until: datetime) -> Recipe:
    """Return the default blend with the hyperparameters that a run on `until` selects."""
    columns = {c.KIND: pl.lit("purchase"), c.VALUE: pl.lit(1.0)}
    past = events.filter(pl.col(c.TIMESTAMP) < until).with_columns(**columns).drop(WEIGHT)
    windows = list(earlier_windows(past, until, Config(), PinnedTask("discovery")))
    print_progress(f"selecting the blend's hyperparameters on {len(windows)} windows")
    recipe: Recipe = default_recipes()["blend"]
    return select_hyperparameters(
        recipe, EarlierWindows(windows, 20, print_progress), print_progress
    )


def starts(name: str, events: pl.DataFrame, data: Data) -> dict[str, Fit]:
    """Return the two starts to compare, that of Nightjar last."""
    if name == "als":
        als = Als(device="cpu")
        return {"the library's": library(als), "keyed by id": keyed(als)}
    blend = selected_blend(events, data.nights[0])
    print_progress(f"selected: {blend.summary}")
    return {"row by row": by_row(blend), "keyed by id": keyed(blend)}


def measured(name: str, recipe: str, folder: Path, seeds: int) -> tuple[list[Row], list[str]]:
    """Return a row for each start, that of Nightjar last, and the conclusions."""
    data = DATA[name]
    loaded = data.load(folder)
    events = loaded.select(
        c.USER_ID,
        c.ITEM_ID,
        pl.col("at").alias(c.TIMESTAMP),
        pl.lit(1.0, pl.Float32).alias(WEIGHT),
    )
    rows, measured_values = [], []
    for start, fit in starts(recipe, events, data).items():
        print_progress(f"{name}, {recipe}, {start}")
        across, other_seed, idle = moved(fit, events, data.nights)
        values = quality(fit, events, data.cuts, seeds)
        measured_values.append(values)
        mean, se = float(values.mean()), error(values)
        rows.append(Row(name, recipe, start, across, other_seed, idle, mean, se, seeds))
    gap = float(measured_values[1].mean() - measured_values[0].mean())
    se = math.hypot(error(measured_values[0]), error(measured_values[1]))
    quiet, level = rows[-1].next_night >= AIM, abs(gap) <= 2 * se
    return rows, [
        f"{'reached' if quiet else 'MISSED '}  overlap {rows[-1].next_night:.3f}, aim {AIM:.2f}",
        f"{'reached' if level or gap > 0 else 'MISSED '}  NDCG@10 {gap:+.5f} against the usual "
        f"start ({gap / measured_values[0].mean():+.2%}), two standard errors {2 * se:.5f}"
        f"{'' if level else ': a difference'}",
    ]


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("dataset", nargs="?", choices=[*DATA, "all"], default="all")
    arguments.add_argument("--recipe", choices=["als", "blend", "all"], default="all")
    arguments.add_argument("--seeds", type=int, help="seeds a cut (default: ALS 8, the blend 3)")
    options = arguments.parse_args()
    names = list(DATA) if options.dataset == "all" else [options.dataset]
    for name in names:
        if problem := missing(name, options.data):
            raise SystemExit(problem)
    results: list[dict[str, Any]] = []
    head = f"{'data':<16} {'recipe':<6} {'start':<14} {'next night':>10} {'other seed':>10} "
    head += f"{'NDCG@10':>8} {'± se':>8}  seeds"
    if not options.json:
        print(head, flush=True)
    for name in names:
        for recipe in ("als", "blend") if options.recipe == "all" else (options.recipe,):
            seeds = options.seeds or (8 if recipe == "als" else 3)
            rows, notes = measured(name, recipe, options.data, seeds)
            results += [asdict(row) for row in rows]
            if not options.json:
                for row in rows:
                    print(
                        f"{row.data:<16} {row.recipe:<6} {row.start:<14} {row.next_night:>10.3f} "
                        f"{row.other_seed:>10.3f} {row.ndcg_at_10:>8.4f} {row.ndcg_se:>8.5f}  "
                        f"{row.seeds}"
                    )
                print("\n".join(f"  {note}" for note in notes), flush=True)
    if options.json:
        print(json.dumps({"rows": results}))


if __name__ == "__main__":
    main()
