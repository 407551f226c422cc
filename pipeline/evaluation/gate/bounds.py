"""Optional bounds on the lists of a winner: coverage, Gini index, novelty, diversity.

Guarantees: without a configured bound there is no rule; a metric that is absent or not finite gives
the verdict `missing`, which fails the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY
from pipeline.evaluation.evaluate import metric_name
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe
from pipeline.evaluation.gate.rules import verdict
from pipeline.number_text import decimal, share

BOUNDS: Final = "bounds."
"""First part of the names of these rules."""
SETTINGS: Final[Mapping[str, str]] = {
    COVERAGE: "min_coverage",
    NOVELTY: "min_novelty",
    DIVERSITY: "min_diversity",
    GINI: "max_gini",
}
"""Metric -> setting of `gate` with its bound."""
SHARES: Final = {COVERAGE, DIVERSITY}
"""Metrics that are shares of a whole."""


def bound_rules(recipe: EvaluatedRecipe, config: GateConfig) -> Iterator[RuleResult]:
    """Yield a rule for each configured bound.

    Parameters
    ----------
    recipe
        The winner, as evaluated in this run.
    config
        Bounds; None for no bound.
    """
    for metric, setting in SETTINGS.items():
        limit: float | None = getattr(config, setting)
        if limit is None:
            continue
        name, rule = recipe.name, f"{BOUNDS}{metric}"
        value = recipe.metrics.get(metric_name(metric, recipe.k), math.nan)
        if not math.isfinite(value):
            text = f"{metric} of {name} was not measured"
            yield RuleResult(rule, name, None, limit, "missing", text)
            continue
        is_minimum = setting.startswith("min")
        side = "minimum" if is_minimum else "maximum"
        figure, bound = (share(x) if metric in SHARES else decimal(x, 3) for x in (value, limit))
        text = f"{metric} of {name} {figure}, {side} {bound}"
        held = value >= limit if is_minimum else value <= limit
        yield RuleResult(rule, name, value, limit, verdict(held), text)
