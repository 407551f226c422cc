"""Settings under which recipes would have hits, for a run in which no recipe has one.

Longer lists and other target kinds are evaluated with the run's own scorers, other lengths of the
block with baselines that are trained before it.

Guarantees: nothing is computed if a recipe has a hit; each named value was evaluated and has hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

import numpy as np

from pipeline.base import Interval, Progress
from pipeline.data.features import WEIGHED
from pipeline.data.matrix import History
from pipeline.data.split import Split, split_at
from pipeline.data.targets import present_kinds, strongest_first
from pipeline.errors import DataError, GateError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate import HitOption
from pipeline.evaluation.holdout import judged_lists
from pipeline.evaluation.metrics import ndcg
from pipeline.models.contract import Scorer
from pipeline.workspace.artifacts import RecipeEvaluation, train_step
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import read_block, read_history, read_scorer

_LONGER: Final = (2, 5, 10)
"""Lengths of lists that are tried, as multiples of the configured one."""


def hit_options(
    night: Night, split: Split, recipes: Mapping[str, RecipeEvaluation], progress: Progress
) -> tuple[HitOption, ...]:
    """Return one value of each setting that gives hits, if no recipe of the run has any.

    Parameters
    ----------
    night, split
        The run and its holdout.
    recipes
        Evaluations by name.
    progress
        Receives a short text.

    Returns
    -------
    tuple
        The first value of each setting with hits, and the recipe that has the most.
    """
    ndcg_name = metric_name(NDCG, night.config.recommend.length)
    if not split.n_users or any(r.metrics.get(ndcg_name, 0.0) > 0 for r in recipes.values()):
        return ()
    progress("no recipe has a hit: looking for settings that give hits")
    history = read_history(night.run, "train")
    scorers = {name: read_scorer(night.run, train_step(name)) for name in recipes}
    options = (
        next(_longer_lists(night, split, history, scorers), None),
        next(_other_lengths(night, split, tuple(recipes)), None),
        next(_other_kinds(night, split, history, scorers), None),
    )
    return tuple(option for option in options if option is not None)


def _longer_lists(
    night: Night, split: Split, history: History, scorers: Mapping[str, Scorer]
) -> Iterator[HitOption]:
    length = night.config.recommend.length
    for k in (length * factor for factor in _LONGER):
        yield from _best("recommend.length", str(k), split, history, scorers, k)


def _other_lengths(night: Night, split: Split, recipes: tuple[str, ...]) -> Iterator[HitOption]:
    options, end = night.config.split.holdout_days_options, split.holdout.end
    baselines = {
        name: night.recipes[name]
        for name in recipes
        if night.recipes[name].capabilities.baseline is not None
    }
    for days in sorted({*options, 2 * max(options)} - {split.holdout_days}):
        block = Interval(end - timedelta(days=days), end)
        try:
            part, history = read_block(night, block, split)
        except DataError:  # no event lies before it
            return
        if history is None:
            continue
        scorers = {name: recipe.train(history) for name, recipe in baselines.items()}
        value, k = f"{days} with holdout_days_options = [{days}]", night.config.recommend.length
        yield from _best("split.holdout_days", value, part, history, scorers, k)


def _other_kinds(
    night: Night, split: Split, history: History, scorers: Mapping[str, Scorer]
) -> Iterator[HitOption]:
    events, features = night.events(*WEIGHED), night.config.features
    order = strongest_first(night.snapshot.config.features.weights)
    for kind in present_kinds(events, order, features.rating_threshold):
        if (kind,) == split.target_kinds:
            continue
        like = replace(split, target_kinds=(kind,))
        part = split_at(events, split.holdout, like, features.rating_threshold)
        if part.n_users >= night.config.gate.min_users:
            k = night.config.recommend.length
            yield from _best("split.target_kinds", f'["{kind}"]', part, history, scorers, k)


def _best(
    setting: str,
    value: str,
    split: Split,
    history: History,
    scorers: Mapping[str, Scorer],
    k: int,
) -> Iterator[HitOption]:
    """Yield the recipe whose lists have a target for the most users; nothing if none has one."""
    users = {}
    for name, scorer in scorers.items():
        try:
            _, _, lists, truth = judged_lists(scorer, history, split, k)
        except GateError:  # a user without a row in this window cannot be evaluated
            continue
        users[name] = int(np.sum(ndcg(lists, truth, k) > 0))
    best = max(users, key=lambda name: users[name], default=None)
    if best is not None and users[best]:
        yield HitOption(setting, value, best, users[best])
