"""Figures that several decisions of the gate share: means, baselines, comparisons, levels.

Guarantees: a mean does not depend on the order of the users; the best baseline has a baseline ratio
of 1 without error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.evaluation.compare import Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.anchors import BlockLevel
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleOutcome
from pipeline.evaluation.gate.evidence import EvaluatedRecipe


def verdict(held: bool) -> RuleOutcome:
    """Return `pass` or `fail`."""
    return "pass" if held else "fail"


def ordered(judged: Sequence[EvaluatedRecipe]) -> tuple[EvaluatedRecipe, ...]:
    """Sort recipes: baselines by rank, then learned recipes by name."""
    return tuple(sorted(judged, key=lambda r: (r.level, r.name)))


def mean(recipe: EvaluatedRecipe) -> float:
    """Return the mean NDCG of the evaluated users; NaN without users."""
    # Sums of floats depend on their order, and equal evidence must give an equal decision.
    values = recipe.users.sort(c.USER_ID)[NDCG].to_numpy()
    return float(values.mean()) if len(values) else math.nan


def hit_users(recipe: EvaluatedRecipe) -> int:
    """Return the number of users with a value above 0."""
    return int((recipe.users[NDCG] > 0).sum())


def baselines(judged: Sequence[EvaluatedRecipe]) -> tuple[EvaluatedRecipe, ...]:
    """Return the baselines, lowest rank first."""
    return tuple(r for r in ordered(judged) if r.baseline_rank is not None)


def best_baseline(judged: Sequence[EvaluatedRecipe]) -> EvaluatedRecipe:
    """Return the baseline with the highest mean; of equal ones the lowest rank."""
    return max(baselines(judged), key=lambda r: (mean(r), -r.level))


def seed_sd_of(recipe: EvaluatedRecipe, config: GateConfig) -> float:
    """Return the SD of a recipe's mean over training seeds, relative to the mean.

    Parameters
    ----------
    recipe
        A baseline is deterministic.
    config
        `default_seed_sd` is for a learned recipe that was never measured.

    Returns
    -------
    float
        τ, 0 for a baseline.
    """
    if recipe.seed_sd is not None:
        return recipe.seed_sd
    return config.default_seed_sd if recipe.baseline_rank is None else 0.0


def compare(
    candidate: EvaluatedRecipe, champion: EvaluatedRecipe, config: GateConfig
) -> Difference:
    """Compare two recipes on tonight's users.

    Parameters
    ----------
    candidate, champion
        Evaluated on the same users.
    config
        Minimum numbers of users and of differences.

    Returns
    -------
    Difference
        Of NDCG, relative to the champion's mean.
    """
    return difference(
        *paired(candidate.users, champion.users, NDCG),
        tau_candidate=seed_sd_of(candidate, config),
        tau_champion=seed_sd_of(champion, config),
        # A baseline has one fit, and no variance over seeds.
        fits=min((r.fits for r in (candidate, champion) if seed_sd_of(r, config) > 0), default=1),
        min_users=config.min_users,
        min_nonzero=config.min_nonzero,
    )


def first_level(config: GateConfig, recipes: int) -> float:
    """Return the level of one test at the choice of the first champion: α/(recipes − 1).

    Parameters
    ----------
    config
        Has α.
    recipes
        Number of evaluated recipes.

    Returns
    -------
    float
        Largest p that passes.
    """
    return config.alpha / max(1, recipes - 1)


def is_proved(paired: Difference, bound: float, config: GateConfig) -> bool:
    """Return True if one block shows a candidate to be better, by at least the minimum lift.

    Parameters
    ----------
    paired
        Candidate against champion.
    bound
        Largest p that passes.
    config
        Has the minimum lift.

    Returns
    -------
    bool
        False if the comparison is underpowered.
    """
    enough = paired.x >= config.min_lift
    return paired.underpowered is None and paired.p_better <= bound and enough


def group_name(name: str) -> str:
    """Name the users of a slice: ``group new items`` for ``new_items``."""
    return f"group {name.replace('_', ' ')}"


def block_level(
    recipe: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], holdout: Interval
) -> BlockLevel:
    """Return a recipe's mean on one block, and its ratio to the mean of the best baseline.

    The standard error of the ratio is that of paired means, ``sd(c − L·b)/(√n·mean(b))``. The best
    baseline itself has a ratio of 1 without error.

    Parameters
    ----------
    recipe, judged
        A recipe of the block, and all of them.
    holdout
        The block.

    Returns
    -------
    BlockLevel
        Without a ratio if the best baseline has fewer than two users or no hit.
    """
    best = best_baseline(judged)
    own, base = paired(recipe.users, best.users, NDCG)
    n, level = len(own), float(own.mean()) if len(own) else 0.0
    sd = float(np.std(own, ddof=1)) if n > 1 else 0.0
    ratio = se = None
    if n >= 2 and base.mean() > 0:
        ratio, se = 1.0, 0.0
        if best.name != recipe.name:
            ratio = float(level / base.mean())
            # Paired: the same users are behind both means.
            spread = float(np.std(own - ratio * base, ddof=1))
            se = spread / (math.sqrt(n) * float(base.mean()))
    return BlockLevel(recipe.recipe_hash, holdout, n, level, sd, ratio, se)
