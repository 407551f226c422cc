"""The gate: a pure function from frozen evidence to a frozen decision.

Here: what is laid before it (`evidence`), what it answers (`decision`), the order of the questions
(`decide`), and one module a question: a first model (`baselines`), another recipe (`switch`, by its
`e_process`), the same recipe on newer data (`refresh`, held to the champion's `anchors`). What is
missing blocks, by its name (`completeness`); what the questions share stands in `rules`, the
sentences in `messages`.
Not here: how good a scorer is (`evaluation.evaluate`), the statistic (`evaluation.compare`), where
decisions lie (`workspace.ledger`, `stores.ledger`).
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
