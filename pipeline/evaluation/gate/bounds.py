"""Optional bounds on the lists of a winner: coverage, Gini index, novelty, diversity.

Guarantees: without a configured bound there is no rule; a metric that is absent or not finite gives
the verdict `missing`, which fails the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY
from pipeline.evaluation.evaluate import metric_name
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.gate.rules import verdict
from pipeline.number_text import decimal


def bound_rules(recipe: EvaluatedRecipe, config: GateConfig) -> Iterator[RuleResult]:
    """Yield a rule for each configured bound.

    Parameters
    ----------
    recipe
        The winner, as evaluated in this run.
    config
        Bounds; None for no bound.
    """
    lowest = {
        COVERAGE: config.min_coverage,
        NOVELTY: config.min_novelty,
        DIVERSITY: config.min_diversity,
    }
    limits = {metric: (limit, True) for metric, limit in lowest.items()}
    limits[GINI] = (config.max_gini, False)
    for metric, (limit, is_minimum) in limits.items():
        if limit is None:
            continue
        name, rule = recipe.name, f"bounds.{metric}"
        value = recipe.metrics.get(metric_name(metric, recipe.k), math.nan)
        if not math.isfinite(value):
            text = f"{metric} of {name} was not measured"
            yield RuleResult(rule, name, None, limit, "missing", text)
            continue
        side = "minimum" if is_minimum else "maximum"
        text = f"{metric} of {name} {decimal(value, 3)}, {side} {limit:g}"
        held = value >= limit if is_minimum else value <= limit
        yield RuleResult(rule, name, value, limit, verdict(held), text)
