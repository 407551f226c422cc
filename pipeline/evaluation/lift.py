"""Lifts of one model over another, and their product over a chain of models.

MLflow, pages, terminal and Airflow show the lifts of these functions.

Guarantees: users, statistic and seed noise are those of the gate; a lift that does not exist has a
reason in place of a number; a chain is as wide as the errors of all its links together; equal
intervals have equal verdicts on all pages, whatever the number of users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from pipeline.errors import GateError
from pipeline.evaluation.compare import Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.gate.rules import baselines, best_baseline, compare
from pipeline.evaluation.intervals import NORMAL_95, normal_interval

Verdict: TypeAlias = Literal["better", "about as good", "unclear", "worse"]


def verdict(lo: float, hi: float, margin: float) -> Verdict:
    """Return the word for a lift, by its 95 % interval.

    ``better`` and ``worse``: the interval does not contain 0. ``about as good``: it does, and a
    loss of more than `margin` is outside of it. ``unclear``: otherwise.

    Parameters
    ----------
    lo, hi
        Ends of the interval.
    margin
        `gate.refresh_margin`: loss that a refresh may always have.
    """
    if lo > 0:
        return "better"
    if hi < 0:
        return "worse"
    return "about as good" if lo >= -margin else "unclear"


@dataclass(frozen=True)
class Lift:
    """Relative difference of two means over the same users, with its error.

    Attributes
    ----------
    against
        Name of the baseline, or number of the version, that is the reference.
    users
        Number of users.
    lift, se
        Mean difference ÷ the reference's mean, and its standard error as a ratio of means.
    """

    against: str
    users: int
    lift: float
    se: float

    @property
    def interval(self) -> tuple[float, float, float]:
        """The lift, and the ends of its 95 % interval."""
        return (self.lift, *normal_interval(self.lift, self.se))


def over_best_baseline(
    recipe: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], config: GateConfig
) -> Lift | str:
    """Return the lift of a recipe over the night's best baseline, or the reason for its absence.

    Parameters
    ----------
    recipe
        An evaluated recipe.
    judged
        Recipes of the same night, at least all baselines.
    config
        Has the seed noise of a recipe that was never measured.
    """
    if not baselines(judged):
        return "no baseline was evaluated"
    best = best_baseline(judged)
    if best.name == recipe.name:
        return f"{recipe.name} is itself the best baseline"
    try:
        result = compare(recipe, best, config)
    except GateError as error:  # an incomplete evaluation; the decision reports it
        return error.sentence
    return _lift(result, best.name, best.name)


def over_stored(
    tonight: pl.DataFrame,
    stored: pl.DataFrame,
    against: str,
    *,
    seed_sds: tuple[float, float],
) -> Lift | str:
    """Return the lift of tonight's scorer over a stored one, or the reason for its absence.

    Parameters
    ----------
    tonight, stored
        Values per user, on the users and the ground truth of a refresh.
    against
        Number of the stored scorer's version.
    seed_sds
        Of the recipe of each scorer.
    """
    new, old = seed_sds
    try:
        result = difference(*paired(tonight, stored, NDCG), tau_candidate=new, tau_champion=old)
    except GateError as error:  # an incomplete evaluation; the decision reports it
        return error.sentence
    return _lift(result, against, f"version {against}")


def _lift(result: Difference, against: str, name: str) -> Lift | str:
    if not math.isfinite(result.v):
        return f"the mean of {name} is 0, or too few users were evaluated"
    return Lift(against, result.n, result.x, result.se)


def chained(links: Sequence[Lift]) -> tuple[float, float, float] | None:
    """Multiply the ratios of a chain of lifts, each over the one before.

    The links are measured on different users and days, so their errors are independent: the
    variance of the log of the product is the sum of the links' variances. One link keeps its own
    interval, so that the same comparison is never shown with two intervals.

    Parameters
    ----------
    links
        At least one.

    Returns
    -------
    tuple or None
        The lift of the product and the ends of its 95 % interval; None if a ratio is 0.
    """
    if any(link.lift <= -1 for link in links):
        return None
    if len(links) == 1:
        return links[0].interval
    log = sum(math.log1p(link.lift) for link in links)
    half = NORMAL_95 * math.hypot(*(link.se / (1 + link.lift) for link in links))
    return math.expm1(log), math.expm1(log - half), math.expm1(log + half)
