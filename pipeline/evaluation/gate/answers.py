"""Lifts of the candidates, and of tonight's fit, without events that answer a shown list.

The champion's lists are part of the holdout: a user who responds to a shown item gives the champion
a hit that another recipe could not have had. The lift over all targets therefore favours the
champion. Without the answers, items that the champion predicted and the user would have taken
anyway are missing as well, so that lift favours the other recipe. No rule reads it. Its unit is the
champion's mean on all targets, because without the answers the champion may have no hit at all.

Guarantees: both lifts are compared as the gate compares recipes; a pair without such values is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import GateError
from pipeline.evaluation.compare import Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import LiftWithoutAnswers
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.rules import ordered, seed_sd_of
from pipeline.evaluation.holdout import UNANSWERED
from pipeline.evaluation.intervals import normal_interval

FloatArray = NDArray[np.float64]


def lifts_without_answers(evidence: Evidence, config: GateConfig) -> tuple[LiftWithoutAnswers, ...]:
    """Compare each recipe with the champion's, and tonight's fit with the last scorer.

    Parameters
    ----------
    evidence
        Figures of the run.
    config
        Minimum numbers of users and of differences.

    Returns
    -------
    tuple
        Recipes in the order of the gate, the stored scorer last; empty if no target answers a list.
    """
    return tuple(_lifts(evidence, config))


def _lifts(evidence: Evidence, config: GateConfig) -> Iterator[LiftWithoutAnswers]:
    champion = next((r for r in evidence.judged if r.name == evidence.champion), None)
    if champion is None:
        return
    for recipe in ordered(evidence.judged):
        if recipe.name != champion.name:
            frames = recipe.users, champion.users
            yield from _lift(recipe, champion, champion.name, frames, config)
    if (last := evidence.last) is not None:
        frames = last.tonight, last.stored
        against = f"scorer of {last.label}"
        yield from _lift(champion, champion, against, frames, config, fits=1)


def _lift(
    recipe: EvaluatedRecipe,
    other: EvaluatedRecipe,
    against: str,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    config: GateConfig,
    fits: int | None = None,
) -> Iterator[LiftWithoutAnswers]:
    def measured(values: FloatArray, level: FloatArray) -> Difference:
        return difference(
            values,
            level,
            tau_candidate=seed_sd_of(recipe, config),
            tau_champion=seed_sd_of(other, config),
            fits=fits or min(recipe.fits, other.fits),
            min_users=config.min_users,
            min_nonzero=config.min_nonzero,
        )

    try:
        whole = measured(*paired(*frames, NDCG))
        values, rest = paired(*frames, UNANSWERED)
        own = frames[1].drop_nulls(UNANSWERED)
        _, level = paired(own, own, NDCG)
    except GateError:  # no target answers a list, or the evaluation is incomplete
        return
    # The unit stays the champion's mean on all targets: on the others it may have no hit.
    without = measured(level + values - rest, level)
    yield LiftWithoutAnswers(
        recipe.name, against, whole.n, *_figures(whole), without.n, *_figures(without)
    )


def _figures(paired_users: Difference) -> tuple[float | None, float | None, float | None]:
    """Return the lift with its interval; None if the two must not be compared."""
    if paired_users.underpowered is not None:
        return None, None, None
    return paired_users.x, *normal_interval(paired_users.x, paired_users.se)
