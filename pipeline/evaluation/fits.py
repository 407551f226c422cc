"""Several fits of one recipe as one evaluation.

Promises: each person's value is the mean over the fits, so the luck of one training seed counts
1/S; people and columns are those of the first fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.models.contract import Recipe, Scorer


def averaged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of evaluations of one recipe's fits on one holdout.

    The ends of an interval are means of ends, too: they speak of people, not of seeds.

    Raises
    ------
    GateError
        The fits were judged by different people.
    """
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    if any(not one.users[c.USER_ID].equals(first.users[c.USER_ID]) for one in evaluations):
        raise GateError("evaluate.fits_differ", "fits of one recipe were judged by other users")
    n = len(evaluations)
    columns = {
        name: sum((one.users[name] for one in evaluations[1:]), first.users[name]) / n
        for name in first.users.columns
        if name != c.USER_ID
    }
    metrics = {
        name: sum(one.metrics[name] for one in evaluations) / n
        for name in first.metrics
        if all(name in one.metrics for one in evaluations)
    }
    coverage = sum(one.coverage for one in evaluations) / n
    users = first.users.with_columns(**columns)
    return replace(first, users=users, metrics=metrics, coverage=coverage)


FITS: Final = 3


_MANY_USERS: Final = 4000


QUICK_SECONDS: Final = 60.0
"""A fit that took longer is not made again for its dice."""


def further(
    recipe: Recipe,
    history: History,
    first: Scorer,
    *,
    users: int,
    seconds: float,
    progress: Progress = silent,
) -> tuple[Scorer, ...]:
    """Train a recipe again with other salts; nothing where that pays or says nothing.

    Parameters
    ----------
    first
        Its fit with salt 0.
    users, seconds
        How many people judge, and how long the first fit took.

    Returns
    -------
    The fits with the salts 1, 2; none for a baseline, or where the dice change nothing.
    """
    if users < _MANY_USERS or seconds > QUICK_SECONDS or recipe.capabilities.baseline is not None:
        return ()
    scorers: list[Scorer] = []
    for replicate in range(1, FITS):
        progress(f"fit {replicate + 1} of {FITS}")
        scorers.append(recipe.train(history, replicate=replicate))
        if replicate == 1 and same(first, scorers[0]):
            return ()
    return tuple(scorers)


def same(one: Scorer, other: Scorer) -> bool:
    """Whether two scorers are equal, number by number."""
    left, right = one.arrays(), other.arrays()
    return left.keys() == right.keys() and all(
        np.array_equal(left[name], right[name]) for name in left
    )
