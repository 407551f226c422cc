"""Choice of the first champion.

Recipes are ranked popularity < decayed popularity < personal frequency < learned recipes. The
highest one that beats every baseline below it, by the test of one block, becomes the champion.

Guarantees: one recipe is always chosen, in doubt the lowest baseline; a
recipe whose comparison with a lower baseline is underpowered is not chosen, unless that baseline
has no hit; the order of the recipes has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.compare import NO_LEVEL
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.rules import (
    baselines,
    compare,
    first_level,
    hit_users,
    mean,
    ordered,
    verdict,
)
from pipeline.number_text import chance, change


def choose_first(
    evidence: Evidence, config: GateConfig
) -> tuple[EvaluatedRecipe, tuple[RuleResult, ...]]:
    """Return the first champion, and the result of every comparison.

    Each recipe is tested against each baseline below it at level α/(recipes − 1), with a lift of at
    least the minimum; a baseline without any hit is beaten by enough users with one. Of several
    learned recipes that beat all baselines, the one with the highest mean wins.

    Parameters
    ----------
    evidence
        Without a champion; at least one baseline is evaluated.
    config
        Levels and bounds.

    Returns
    -------
    tuple
        The recipe, and its rules in the order of the ranks.
    """
    bound = first_level(config, len(evidence.judged))
    rules: list[RuleResult] = []
    winners: list[EvaluatedRecipe] = []
    for recipe in ordered(evidence.judged):
        below = [b for b in baselines(evidence.judged) if b.level < recipe.level]
        results = _over_each(recipe, below, bound, config)
        rules += results
        if all(rule.outcome == "pass" for rule in results):
            winners.append(recipe)
    # Equal means are ordered by hash, so that the order of the input has no effect.
    first = max(winners, key=lambda r: (r.level, mean(r), r.recipe_hash))
    return first, tuple(rules)


def _over_each(
    recipe: EvaluatedRecipe, below: Sequence[EvaluatedRecipe], bound: float, config: GateConfig
) -> list[RuleResult]:
    results = []
    for baseline in below:
        paired = compare(recipe, baseline, config)
        text = (
            f"{recipe.name} over {baseline.name}: {change(paired.x)} "
            f"({chance(paired.p_better)}, {paired.n:,} users)"
        )
        names = [f"first.{rule}.{baseline.name}" for rule in ("evidence", "lift")]
        hits = hit_users(recipe)
        if paired.underpowered == NO_LEVEL and hits >= config.min_nonzero:
            text = f"{recipe.name} has hits for {hits:,} users, {baseline.name} for none"
            name = f"first.zero_reference.{baseline.name}"
            least = config.min_nonzero
            results.append(RuleResult(name, recipe.name, hits, least, "pass", text))
            continue
        if paired.underpowered:
            # Without a valid comparison there is only one rule, which does not pass.
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
