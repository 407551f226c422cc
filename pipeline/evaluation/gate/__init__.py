"""Pure function from frozen evidence to a frozen decision.

Here: its input (`evidence`), its result (`decision`), the order of the rules (`decide`), and one
module per question: the first champion (`baselines`), a switch to another recipe (`switch`, by its
`e_process` over `records`, which `processes` opens and continues), a refresh of the champion's
recipe on newer data (`refresh`, bounded by `anchors`). Optional limits of a winner's lists are in
`bounds`. Missing evidence blocks, by its name (`completeness`); figures of several questions are in
`rules`, tests in slices of users in `slice_rules`.
Not here: the quality of a scorer (`evaluation.evaluate`), the statistic (`evaluation.compare`), the
storage of decisions (`workspace.ledger`, `stores.ledger`).
To add a rule: return a `RuleResult` from the module of its question; `decide` needs no change.
"""

from pipeline.evaluation.gate.accept import accept, offers
from pipeline.evaluation.gate.anchors import Anchor, BlockLevel
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decide import decide
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.gate.evidence import (
    Absent,
    EarlierBlock,
    EvaluatedRecipe,
    Evidence,
    GateHistory,
    HitOption,
    Reference,
    build_gate_history,
)
from pipeline.evaluation.gate.rules import compare, first_level, is_proved

__all__ = [
    "Absent",
    "Anchor",
    "BlockLevel",
    "Decision",
    "EarlierBlock",
    "EvaluatedRecipe",
    "Evidence",
    "GateConfig",
    "GateHistory",
    "HitOption",
    "Reference",
    "RuleResult",
    "accept",
    "build_gate_history",
    "compare",
    "decide",
    "first_level",
    "is_proved",
    "offers",
]
