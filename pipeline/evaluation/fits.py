"""Combination of several fits of one recipe into one evaluation.

Guarantees: each user's value is the mean over S fits, so the variance between seeds is divided by
S; users and columns are those of the first fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.evaluation.evaluate import Evaluation
from pipeline.models.contract import Recipe, Scorer


def averaged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of evaluations of one recipe's fits on one holdout.

    Bounds of intervals are averaged too: they describe the sample of users, not the seeds.

    Parameters
    ----------
    evaluations
        At least one, all of the same users.

    Returns
    -------
    Evaluation
        With the metrics that all fits have.

    Raises
    ------
    GateError
        `evaluate.fits_differ`: the fits were evaluated on different users.
    """
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    if any(not fit.users[c.USER_ID].equals(first.users[c.USER_ID]) for fit in evaluations):
        raise GateError(
            "evaluate.fits_differ",
            "fits of one recipe were evaluated on different users; this is a defect of Nightjar, "
            "report it with the run folder",
        )
    n = len(evaluations)
    columns = {
        name: sum((fit.users[name] for fit in evaluations[1:]), first.users[name]) / n
        for name in first.users.columns
        if name != c.USER_ID
    }
    # A metric that one fit lacks has no mean over fits.
    metrics = {
        name: sum(fit.metrics[name] for fit in evaluations) / n
        for name in first.metrics
        if all(name in fit.metrics for fit in evaluations)
    }
    coverage = sum(fit.coverage for fit in evaluations) / n
    users = first.users.with_columns(**columns)
    return replace(first, users=users, metrics=metrics, coverage=coverage)


FITS: Final = 3
"""Number of fits of a recipe, the first included."""


_MANY_USERS: Final = 4000
"""Minimum number of evaluated users for further fits."""


QUICK_SECONDS: Final = 60.0
"""A recipe whose fit takes longer is not fitted again."""


def further(
    recipe: Recipe,
    history: History,
    first: Scorer,
    *,
    users: int,
    progress: Progress = silent,
) -> tuple[Scorer, ...]:
    """Train a recipe again with other seeds, if that is cheap and informative.

    Parameters
    ----------
    recipe, history
        A recipe, and the training window.
    first
        The scorer that the recipe was trained to as replicate 0.
    users
        Number of evaluated users.
    progress
        Receives a line per fit.

    Returns
    -------
    tuple
        Replicates 1 and 2; empty for a recipe that draws nothing, few users or a slow fit.
    """
    slow = recipe.cpu_seconds(history) > QUICK_SECONDS
    if users < _MANY_USERS or slow or not recipe.seeded:
        return ()
    scorers: list[Scorer] = []
    for replicate in range(1, FITS):
        progress(f"fit {replicate + 1} of {FITS}")
        scorers.append(recipe.train_again(history, first, replicate))
    return tuple(scorers)
