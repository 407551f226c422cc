"""What several questions share: comparisons, rules on slices and baselines, the baseline ratio."""

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
from pipeline.evaluation.gate.e_process import signed
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.slices import SLICES


def verdict(held: bool) -> RuleOutcome:
    """Say `pass` or `fail`."""
    return "pass" if held else "fail"


def percent(x: float) -> str:
    """Write a share with its sign: ``+4.1 %``."""
    return f"{signed(x)} %" if math.isfinite(x) else "no figure"


def chance(p: float) -> str:
    """Write a probability so that a small one does not read as none."""
    if math.isnan(p):
        return "unknown"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def ordered(judged: Sequence[EvaluatedRecipe]) -> tuple[EvaluatedRecipe, ...]:
    """Sort recipes: the ladder from below, then what learns, by name."""
    return tuple(sorted(judged, key=lambda r: (r.level, r.name)))


def mean(recipe: EvaluatedRecipe) -> float:
    """Mean NDCG over the judged users, in the order of their ids; NaN without users."""
    values = recipe.users.sort(c.USER_ID)[NDCG].to_numpy()
    return float(values.mean()) if len(values) else math.nan


def baselines(judged: Sequence[EvaluatedRecipe]) -> tuple[EvaluatedRecipe, ...]:
    """Return the rungs of the ladder, lowest first."""
    return tuple(r for r in ordered(judged) if r.baseline_rank is not None)


def best_baseline(judged: Sequence[EvaluatedRecipe]) -> EvaluatedRecipe:
    """Return the baseline with the highest mean; of equal ones the lowest rung."""
    return max(baselines(judged), key=lambda r: (mean(r), -r.level))


def seed_sd_of(recipe: EvaluatedRecipe, config: GateConfig) -> float:
    """Return a recipe's relative spread over training seeds; a baseline rolls no dice."""
    if recipe.seed_sd is not None:
        return recipe.seed_sd
    return config.default_seed_sd if recipe.baseline_rank is None else 0.0


def compare(
    candidate: EvaluatedRecipe, champion: EvaluatedRecipe, config: GateConfig
) -> Difference:
    """Compare two recipes on tonight's users."""
    return difference(
        *paired(candidate.users, champion.users, NDCG),
        tau_candidate=seed_sd_of(candidate, config),
        tau_champion=seed_sd_of(champion, config),
        fits=min(candidate.fits, champion.fits),
        min_users=config.min_users,
        min_nonzero=config.min_nonzero,
    )


def threshold(config: GateConfig, candidates: int) -> float:
    """Return the p that a candidate must stay under: α, shared among all that may be looked at."""
    return config.alpha / max(config.candidates, candidates)


def e_value_needed(config: GateConfig, candidates: int) -> float:
    """Return the points that a switch needs: M/α for M candidates that may be looked at."""
    return 1.0 / threshold(config, candidates)


def is_proved(paired: Difference, bound: float, config: GateConfig) -> bool:
    """Say whether a comparison shows a candidate to be better, and by enough."""
    enough = paired.x >= config.min_lift
    return paired.underpowered is None and paired.p_better <= bound and enough


def slice_rules(
    prefix: str,
    subject: str,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    taus: tuple[float, float],
    alpha: float,
    config: GateConfig,
) -> tuple[RuleResult, ...]:
    """Look for harm in slices: Holm over one-sided t-tests on the users of each.

    Parameters
    ----------
    frames, taus
        Of the candidate and of what it is held against.

    Returns
    -------
    tuple
        A result a slice. One with too few users, or with too few whom the two serve differently,
        is `underpowered` and leaves the family.
    """
    results: list[RuleResult] = []
    judged: list[tuple[str, Difference]] = []
    columns = {name for frame in frames for name in frame.columns if name.startswith(SLICE)}
    for column in sorted(columns.union(SLICE + name for name in SLICES)):
        name = f"{prefix}.{column}"
        try:
            values = paired(*frames, column)
        except GateError as error:
            results.append(RuleResult(name, subject, None, None, "missing", error.sentence))
            continue
        result = difference(
            *values,
            tau_candidate=taus[0],
            tau_champion=taus[1],
            min_users=config.slice_users,
            min_nonzero=config.min_nonzero,
        )
        if result.underpowered:
            text = f"{column}: {result.underpowered} ({result.n:,}, {result.nonzero:,} differ)"
            results.append(RuleResult(name, subject, result.p_worse, None, "underpowered", text))
        else:
            judged.append((name, result))
    harmed = holm([result.p_worse for _, result in judged], alpha)
    for (name, result), harm in zip(judged, harmed, strict=True):
        harm_text = f"p of harm {chance(result.p_worse)}, {result.n:,} users"
        text = f"{name.removeprefix(f'{prefix}.')}: {percent(result.x)} ({harm_text})"
        results.append(RuleResult(name, subject, result.p_worse, alpha, verdict(not harm), text))
    return tuple(sorted(results, key=lambda r: r.name))


def baseline_rules(
    prefix: str, candidate: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], floor: float
) -> tuple[RuleResult, ...]:
    """Hold a recipe's mean against each baseline's: at least `floor` times as high."""
    own = mean(candidate)
    results = []
    for baseline in (b for b in baselines(judged) if b.name != candidate.name):
        bound = floor * mean(baseline)
        text = f"{candidate.name} {own:.4f}, {baseline.name} {mean(baseline):.4f}"
        name = f"{prefix}.baseline.{baseline.name}"
        results.append(RuleResult(name, candidate.name, own, bound, verdict(own >= bound), text))
    return tuple(results)


def block_ratio(
    recipe: EvaluatedRecipe, judged: Sequence[EvaluatedRecipe], holdout: Interval
) -> BlockRatio | None:
    """Return mean(recipe) ÷ mean(best baseline), with its standard error; None without a level.

    ``se = sd(c − L·b)/(√n·mean(b))``. The best baseline itself has 1 by definition.
    """
    best = best_baseline(judged)
    if best.name == recipe.name:
        return BlockRatio(recipe.recipe_hash, holdout, 1.0, 0.0)
    own, base = paired(recipe.users, best.users, NDCG)
    if len(base) < 2 or base.mean() <= 0:
        return None
    ratio = float(own.mean() / base.mean())
    spread = float(np.std(own - ratio * base, ddof=1))
    se = spread / (math.sqrt(len(base)) * float(base.mean()))
    return BlockRatio(recipe.recipe_hash, holdout, ratio, se)
