"""Overlap of the live lists with those of another recipe, as a share of that in the evaluation.

The cold check of a switch expects the live lists of one recipe and the new lists of another to have
as much in common as the two recipes have in the evaluation, which lacks the last days.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, shown
from benchmarks.gate_shops import Shop
from benchmarks.gate_weeks import OF_TASK, WEEK, Fit, idle_users, overlap_of
from pipeline.base import Progress
from pipeline.data.targets import Task

WEEKS = 10
RESEMBLING = 0.2
"""Overlap in the evaluation below which the cold check of a switch compares nothing."""


def ratios(
    shop: Shop, task: Task, progress: Progress, count: int
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Compare every pair of recipes over the newest weeks.

    Parameters
    ----------
    shop, task
        Purchases, and whether lists may repeat items.
    progress
        Receives a line for each week.
    count
        Number of weeks.

    Returns
    -------
    dict
        Names of the live recipe and of the other one -> by week the overlap of the evaluation
        lists, and that of the live lists with the new ones of users without new events.
    """
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    live = Fit.of(shop, shop.end - count * WEEK)
    for back in range(count - 1, -1, -1):
        now = Fit.of(shop, shop.end - back * WEEK)
        everyone, idle = [str(user) for user in live.history.user_ids], idle_users(live, now)
        for first, second in permutations(OF_TASK[task], 2):
            # With a holdout of a week, the evaluation trains where the live lists were trained.
            expected = overlap_of((live, first), (live, second), everyone, task)
            overlap = overlap_of((live, first), (now, second), idle, task)
            pairs.setdefault((first, second), []).append((expected, overlap))
        progress(f"{shop.name}, {task}, {now.cutoff:%Y-%m-%d}: {len(idle):,} users")
        live = now
    return pairs


def overlaps(
    shops: Iterable[Shop], tasks: Sequence[Task], progress: Progress, count: int | None
) -> list[Figure]:
    """Return the lowest and the highest ratio of the two overlaps, by shop and task.

    Parameters
    ----------
    shops, tasks, progress
        As for `ratios`.
    count
        Number of weeks; None: `WEEKS`.
    """
    figures = []
    for shop in shops:
        for task in tasks:
            pairs = ratios(shop, task, progress, count or WEEKS)
            known = {
                pair: [now / expected for expected, now in weeks if expected >= RESEMBLING]
                for pair, weeks in pairs.items()
            }
            for pair, values in known.items():
                text = "below the least overlap that is compared"
                if values:
                    text = f"{min(values):.2f}, {np.median(values):.2f}, {max(values):.2f}"
                what = f"{shop.name}, {task}, {pair[0]} > {pair[1]}: lowest, median, highest ratio"
                figures.append(shown(what, text))
            both = [value for values in known.values() for value in values]
            what = f"{shop.name}, {task}, all pairs of recipes: lowest and highest ratio"
            figures.append(shown(what, f"{min(both):.2f} to {max(both):.2f}"))
    return figures
