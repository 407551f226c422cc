"""The gate: a pure function from frozen evidence to a frozen decision.

Here: what is laid before it (`evidence`), what it answers (`decision`), the order of the questions
(`decide`), and one module a question: a first model (`ladder`), another recipe (`switch`), the same
recipe on newer data (`refresh`). What is missing blocks, by its name (`complete`); what the
questions share stands in `rules`.
Not here: how good a scorer is (`evaluate`), the statistic (`compare`), where decisions lie
(`steps`, `stores`).
"""

from pipeline.evaluation.gate.accept import accept, offers
from pipeline.evaluation.gate.anchors import Anchor, BlockRatio
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decide import decide
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.gate.evidence import (
    Absent,
    EvaluatedRecipe,
    Evidence,
    GateHistory,
    Reference,
    build_gate_history,
)
from pipeline.evaluation.gate.rules import compare, is_proved, threshold

__all__ = [
    "Absent",
    "Anchor",
    "BlockRatio",
    "Decision",
    "EvaluatedRecipe",
    "Evidence",
    "GateConfig",
    "GateHistory",
    "Reference",
    "RuleResult",
    "accept",
    "build_gate_history",
    "compare",
    "decide",
    "is_proved",
    "offers",
    "threshold",
]
