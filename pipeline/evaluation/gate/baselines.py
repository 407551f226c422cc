"""No champion yet: the ladder popularity < decayed popularity < own counts < what learns.

The highest rung that beats every one below it, by the one-block test, becomes the first champion.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.rules import (
    baselines,
    chance,
    compare,
    mean,
    ordered,
    percent,
    threshold,
    verdict,
)


def choose_first(
    evidence: Evidence, config: GateConfig
) -> tuple[EvaluatedRecipe, tuple[RuleResult, ...]]:
    """Return the first champion, and every comparison on the way.

    Each recipe is tested against each rung below it at α/M, with a lift of at least the minimum;
    of several recipes that learn and beat all baselines, the one with the highest mean leads.
    """
    rungs = baselines(evidence.judged)
    learned = [r for r in ordered(evidence.judged) if r.baseline_rank is None]
    bound = threshold(config, len(evidence.judged) - 1)
    rules: list[RuleResult] = []
    winners: list[EvaluatedRecipe] = []
    for recipe in [*rungs, *learned]:
        below = [
            b
            for b in rungs
            if recipe.baseline_rank is None or (b.baseline_rank or 0) < recipe.baseline_rank
        ]
        results = _over_each(recipe, below, bound, config)
        rules += results
        if all(rule.outcome == "pass" for rule in results):
            winners.append(recipe)
    return max(winners, key=_height), tuple(rules)


def _height(recipe: EvaluatedRecipe) -> tuple[bool, float, str]:
    """Order winners: what learns above every rung, then by rung, or by mean among learners."""
    return (
        recipe.baseline_rank is None,
        float(recipe.baseline_rank) if recipe.baseline_rank is not None else mean(recipe),
        recipe.recipe_hash,
    )


def _over_each(
    recipe: EvaluatedRecipe, below: Sequence[EvaluatedRecipe], bound: float, config: GateConfig
) -> list[RuleResult]:
    results = []
    for baseline in below:
        paired = compare(recipe, baseline, config)
        text = (
            f"{recipe.name} over {baseline.name}: {percent(paired.x)} "
            f"(p {chance(paired.p_better)}, {paired.n:,} users)"
        )
        names = [f"first.{what}.{baseline.name}" for what in ("evidence", "lift")]
        if paired.underpowered:
            text += f", {paired.underpowered}"
            results.append(
                RuleResult(names[0], recipe.name, paired.p_better, bound, "underpowered", text)
            )
            continue
        sure, enough = paired.p_better <= bound, paired.x >= config.min_lift
        figures = ((paired.p_better, bound, sure), (paired.x, config.min_lift, enough))
        for name, (figure, limit, held) in zip(names, figures, strict=True):
            results.append(RuleResult(name, recipe.name, figure, limit, verdict(held), text))
    return results
