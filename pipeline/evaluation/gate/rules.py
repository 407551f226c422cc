"""Rules and figures that several decisions of the gate share: slices, baselines, thresholds.

Guarantees: a mean does not depend on the order of the users; a slice with too few users or
differences is reported as `underpowered` and does not change the level of the others; the best
baseline has a baseline ratio of 1 without error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.errors import GateError
from pipeline.evaluation.compare import Difference, difference, holm, paired
from pipeline.evaluation.evaluate import NDCG, SLICE
from pipeline.evaluation.gate.anchors import BlockRatio
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleOutcome, RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.slices import SLICES
from pipeline.number_text import change


def verdict(held: bool) -> RuleOutcome:
    """Return `pass` or `fail`."""
    return "pass" if held else "fail"


def chance(p: float) -> str:
    """Format a probability: ``p 0.021``, ``p under 0.001``."""
    if math.isnan(p):
        return "p unknown"
    if p < 0.001:
        return "p under 0.001"
    # A probability is never 1.
    return "p over 0.999" if p > 0.999 else f"p {p:.3f}"


def ordered(judged: Sequence[EvaluatedRecipe]) -> tuple[EvaluatedRecipe, ...]:
    """Sort recipes: baselines by rank, then learned recipes by name."""
    return tuple(sorted(judged, key=lambda r: (r.level, r.name)))


def mean(recipe: EvaluatedRecipe) -> float:
    """Return the mean NDCG of the evaluated users; NaN without users."""
    # Sums of floats depend on their order, and equal evidence must give an equal decision.
    values = recipe.users.sort(c.USER_ID)[NDCG].to_numpy()
    return float(values.mean()) if len(values) else math.nan


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
        fits=min(candidate.fits, champion.fits),
        min_users=config.min_users,
        min_nonzero=config.min_nonzero,
    )


def threshold(config: GateConfig, candidates: int) -> float:
    """Return the level of one test: α, divided among all candidates (Bonferroni).

    Parameters
    ----------
    config
        Has α and the number of candidates that are always corrected for.
    candidates
        Number of candidates of this run; counts if it is larger.

    Returns
    -------
    float
        Largest p that passes.
    """
    # More recipes than configured make the test stricter, fewer never looser.
    return config.alpha / max(config.candidates, candidates)


def e_value_needed(config: GateConfig, candidates: int) -> float:
    """Return the e-value that a switch needs.

    Parameters
    ----------
    config, candidates
        As in `threshold`.

    Returns
    -------
    float
        M/α for M candidates.
    """
    return 1.0 / threshold(config, candidates)


def is_proved(paired: Difference, bound: float, config: GateConfig) -> bool:
    """Return True if one block shows a candidate to be better, by at least the minimum lift.

    Parameters
    ----------
    paired
        Candidate against champion.
    bound
        Largest p that passes, from `threshold`.
    config
        Has the minimum lift.

    Returns
    -------
    bool
        False if the comparison is underpowered.
    """
    enough = paired.x >= config.min_lift
    return paired.underpowered is None and paired.p_better <= bound and enough


def group_name(column: str) -> str:
    """Name the users of a slice's column: ``group new items`` for ``slice.new_items``."""
    return f"group {column.removeprefix(SLICE).replace('_', ' ')}"


def slice_rules(
    prefix: str,
    subject: str,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    taus: tuple[float, float],
    alpha: float,
    config: GateConfig,
) -> tuple[RuleResult, ...]:
    """Test each slice for harm: Holm's procedure over one-sided t-tests on its users.

    Parameters
    ----------
    prefix, subject
        Start of the rules' names, and the recipe they are about.
    frames, taus
        Values per user, and seed SDs, of the candidate and of its reference.
    alpha
        Family-wise level.
    config
        Minimum numbers of users and of differences.

    Returns
    -------
    tuple
        One result per slice, sorted by name. A slice with too few users or differences is
        `underpowered` and leaves the family.
    """
    results: list[RuleResult] = []
    judged: list[tuple[str, Difference]] = []
    # Segments differ by shop; a standard slice without a column is reported as missing.
    columns = {name for frame in frames for name in frame.columns if name.startswith(SLICE)}
    for column in sorted(columns.union(SLICE + name for name in SLICES)):
        name, group = f"{prefix}.{column}", group_name(column)
        try:
            values = paired(*frames, column)
        except GateError as error:
            text = error.sentence.replace(column, group)
            results.append(RuleResult(name, subject, None, None, "missing", text))
            continue
        result = difference(
            *values,
            tau_candidate=taus[0],
            tau_champion=taus[1],
            min_users=config.slice_users,
            min_nonzero=config.min_nonzero,
        )
        if result.underpowered:
            text = f"{group}: {result.underpowered} ({result.n:,} users, {result.nonzero:,} differ)"
            results.append(RuleResult(name, subject, result.p_worse, None, "underpowered", text))
        else:
            # Only slices that can be tested share the level.
            judged.append((name, result))
    harmed = holm([result.p_worse for _, result in judged], alpha)
    for (name, result), harm in zip(judged, harmed, strict=True):
        harm_text = f"test for harm: {chance(result.p_worse)}, {result.n:,} users"
        group = group_name(name.removeprefix(f"{prefix}."))
        text = f"{group}: {change(result.x)} ({harm_text})"
        results.append(RuleResult(name, subject, result.p_worse, alpha, verdict(not harm), text))
    return tuple(sorted(results, key=lambda r: r.name))


def baseline_rules(
    prefix: str, candidate: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], floor: float
) -> tuple[RuleResult, ...]:
    """Compare a recipe's mean with each baseline's.

    Parameters
    ----------
    prefix
        Start of the rules' names.
    candidate
        Is not compared with itself.
    judged
        Has the baselines.
    floor
        Share of a baseline's mean that the candidate must reach.

    Returns
    -------
    tuple
        One result per baseline.
    """
    own = mean(candidate)
    results = []
    for baseline in (b for b in baselines(judged) if b.name != candidate.name):
        bound = floor * mean(baseline)
        text = f"mean of {candidate.name} {own:.4f}, of {baseline.name} {mean(baseline):.4f}"
        name = f"{prefix}.baseline.{baseline.name}"
        results.append(RuleResult(name, candidate.name, own, bound, verdict(own >= bound), text))
    return tuple(results)


def block_ratio(
    recipe: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], holdout: Interval
) -> BlockRatio | None:
    """Return mean(recipe) ÷ mean(best baseline) on one block.

    The standard error is that of a ratio of paired means, ``sd(c − L·b)/(√n·mean(b))``. The best
    baseline itself has a ratio of 1 without error.

    Parameters
    ----------
    recipe, judged
        A recipe of the block, and all of them.
    holdout
        The block.

    Returns
    -------
    BlockRatio or None
        None if the best baseline has fewer than two users or no hit.
    """
    best = best_baseline(judged)
    if best.name == recipe.name:
        return BlockRatio(recipe.recipe_hash, holdout, 1.0, 0.0)
    own, base = paired(recipe.users, best.users, NDCG)
    if len(base) < 2 or base.mean() <= 0:
        return None
    ratio = float(own.mean() / base.mean())
    # Paired: the same users are behind both means.
    spread = float(np.std(own - ratio * base, ddof=1))
    se = spread / (math.sqrt(len(base)) * float(base.mean()))
    return BlockRatio(recipe.recipe_hash, holdout, ratio, se)
