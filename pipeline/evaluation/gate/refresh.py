"""The champion's recipe on newer data: is the night's fit as good as the ones before it?

A stored number would not do: weeks differ. So tonight's evaluation fit stands beside stored
scorers, on the same users and the same truth; and because a baseline trained on the same damaged
data falls with it, the baseline ratio is only the last of these tests, and blocks on proof alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.compare import NO_DIFFERENCE, TOO_FEW_USERS, Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.anchors import BlockRatio
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence, Reference, disjoint
from pipeline.evaluation.gate.rules import (
    best_baseline,
    block_ratio,
    mean,
    percent,
    seed_sd_of,
    slice_rules,
    verdict,
)

_PROVES = 2.33  # one-sided 1 %
_RATIO_BLOCKS = 2
_HEALTHY_BLOCKS = 8
_HEALTHY_ERRORS = 4.0

Outcome = Literal["pass", "fail", "underpowered"]


@dataclass(frozen=True)
class Refresh:
    """Outcome of a refresh, and every rule that was applied; the first is about the last scorer."""

    outcome: Outcome
    rules: tuple[RuleResult, ...]

    @property
    def regressed(self) -> bool:
        """Whether tonight's fit is clearly worse than the one accepted last."""
        return any(r.name == "refresh.last" and r.outcome == "fail" for r in self.rules)


def judge_refresh(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> Refresh:
    """Hold tonight's fit of the champion's recipe against the past.

    Anything missing fails. With fewer users than a comparison needs nothing is judged.
    """
    if evidence.last is None:
        text = "; ".join(("no scorer of an accepted night to compare with", *evidence.skipped))
        missing = RuleResult("refresh.last", champion.name, None, None, "missing", text)
        return Refresh("fail", (missing,))
    name, paired = champion.name, _against(evidence.last, champion, config)
    if paired.underpowered == TOO_FEW_USERS:
        text = (
            f"{paired.n:,} users can be judged against the scorer of {evidence.last.label}, "
            f"{config.min_users:,} are needed"
        )
        few = RuleResult("refresh.last", name, paired.n, config.min_users, "underpowered", text)
        return Refresh("underpowered", (few,))
    seed_sds = (seed_sd_of(champion, config),) * 2
    frames = evidence.last.tonight, evidence.last.stored
    rules = (
        _last(paired, evidence.last, champion, config),
        _month(evidence, champion, config),
        _anchor(evidence, champion, config),
        *slice_rules("refresh", name, frames, seed_sds, config.slice_alpha_refresh, config),
        _best_baseline(evidence, champion, config),
    )
    failed = any(rule.outcome in ("fail", "missing") for rule in rules)
    return Refresh("fail" if failed else "pass", rules)


def _against(reference: Reference, champion: EvaluatedRecipe, config: GateConfig) -> Difference:
    seed_sd = seed_sd_of(champion, config)
    return difference(
        *paired(reference.tonight, reference.stored, NDCG),
        tau_candidate=seed_sd,
        tau_champion=seed_sd,
        min_users=config.min_users,
        min_nonzero=config.min_nonzero,
    )


def _compared(paired: Difference, reference: Reference) -> str:
    text = f"{percent(paired.x)} against the scorer of {reference.label} ({paired.n:,} users)"
    return f"{text}: no difference to speak of" if paired.underpowered == NO_DIFFERENCE else text


def _last(
    paired: Difference, reference: Reference, champion: EvaluatedRecipe, config: GateConfig
) -> RuleResult:
    # Where the stored scorer hits nobody there is no level, and tonight's cannot be worse.
    judged = paired.underpowered is None
    bound = -max(config.refresh_margin, config.refresh_errors * paired.se) if judged else None
    held = bound is None or paired.x >= bound
    text = _compared(paired, reference)
    return RuleResult("refresh.last", champion.name, paired.x, bound, verdict(held), text)


def _month(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    reference = evidence.month
    if reference is None:
        text = "; ".join(("no scorer accepted 21 to 45 days ago", *evidence.skipped))
        return RuleResult("refresh.month", champion.name, None, None, "reported", text)
    paired = _against(reference, champion, config)
    text = _compared(paired, reference)
    if paired.underpowered == TOO_FEW_USERS:
        return RuleResult("refresh.month", champion.name, paired.x, None, "underpowered", text)
    held = paired.underpowered is not None or paired.x >= 0
    return RuleResult("refresh.month", champion.name, paired.x, 0.0, verdict(held), text)


def _anchor(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    """Block on proved harm alone: the ratio moves with the seasons."""
    anchor = evidence.past.anchor_of(champion.recipe_hash)
    name = "refresh.baseline_ratio"
    tonight = block_ratio(champion, evidence.judged, evidence.holdout)
    if anchor is None or tonight is None:
        text = "the best baseline hits nobody: there is no baseline ratio"
        text = "the champion's anchor is missing" if anchor is None else text
        return RuleResult(name, champion.name, None, None, "missing", text)
    earlier = [r for r in evidence.past.ratios if r.block.end <= evidence.holdout.start]
    used = (tonight, *disjoint(earlier, champion.recipe_hash))[:_RATIO_BLOCKS]
    ratio = float(np.mean([r.ratio for r in used]))
    se = math.sqrt(sum(r.se**2 for r in used)) / len(used)
    spread = _healthy_spread(earlier, champion.recipe_hash)
    bound = anchor.ratio * (1 - max(config.anchor_margin, _HEALTHY_ERRORS * spread))
    best = best_baseline(evidence.judged).name
    text = (
        f"{ratio:.3f} times {best} over {len(used)} block{'s' if len(used) > 1 else ''} "
        f"(standard error {se:.3f}), anchor {anchor.ratio:.3f}{' (thin)' if anchor.thin else ''}"
    )
    held = ratio + _PROVES * se >= bound
    return RuleResult(name, champion.name, ratio, bound, verdict(held), text)


def _healthy_spread(earlier: list[BlockRatio], recipe_hash: str) -> float:
    """Relative spread of L over accepted blocks; 0 with fewer than eight."""
    accepted = disjoint([r for r in earlier if r.accepted], recipe_hash)
    if len(accepted) < _HEALTHY_BLOCKS:
        return 0.0
    single = np.array([r.ratio for r in accepted])
    rolling = (single[1:] + single[:-1]) / 2  # L is a mean over two blocks
    return float(np.std(rolling, ddof=1) / np.mean(rolling))


def _best_baseline(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    best, own, name = best_baseline(evidence.judged), mean(champion), "refresh.baseline"
    text = f"{champion.name} {own:.4f}"
    if best.name == champion.name:
        text += " is the best baseline itself"
        return RuleResult(name, champion.name, own, None, "pass", text)
    bound = config.baseline_floor * mean(best)
    text += f", {best.name} {mean(best):.4f}"
    return RuleResult(name, champion.name, own, bound, verdict(own >= bound), text)
