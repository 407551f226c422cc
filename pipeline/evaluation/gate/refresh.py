"""Refresh of the champion's recipe on newer data: comparison of tonight's fit with earlier ones.

Tonight's evaluation fit is compared with stored scorers on the same users and ground truth, because
a stored figure is not comparable: weeks differ. The baseline ratio is only the last test, and
blocks on proof alone: a baseline that is trained on the same damaged data falls with the recipe.

Guarantees: without an accepted scorer the refresh fails; with too few users it is `underpowered`,
not failed; the first rule is always the comparison with the last accepted scorer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.compare import NO_DIFFERENCE, TOO_FEW_USERS, Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.anchors import ANCHOR_BLOCKS, BlockRatio
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence, Reference, disjoint
from pipeline.evaluation.gate.rules import (
    best_baseline,
    block_ratio,
    mean,
    seed_sd_of,
    slice_rules,
    verdict,
)
from pipeline.number_text import change

_PROVES = 2.33
"""Normal quantile of a one-sided test at 1 %."""
_RATIO_BLOCKS = 2
"""Number of blocks that the ratio is the mean of."""
_HEALTHY_BLOCKS = 8
"""Number of accepted blocks from which the spread of the ratio is estimated, at least."""
_HEALTHY_ERRORS = 4.0

Outcome = Literal["pass", "fail", "underpowered"]


@dataclass(frozen=True)
class Refresh:
    """Outcome of a refresh, and every rule that was applied; the first is about the last scorer."""

    outcome: Outcome
    rules: tuple[RuleResult, ...]

    @property
    def regressed(self) -> bool:
        """True if tonight's fit is significantly worse than the last accepted one."""
        return any(r.name == "refresh.last" and r.outcome == "fail" for r in self.rules)


def judge_refresh(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> Refresh:
    """Compare tonight's fit of the champion's recipe with earlier fits.

    Parameters
    ----------
    evidence
        Figures of the run.
    champion
        The champion's recipe.
    config
        Margins and levels.

    Returns
    -------
    Refresh
        Fails if any figure is missing; `underpowered` if there are too few users to compare.
    """
    if evidence.last is None:
        text = "; ".join(("there is no accepted scorer to compare with", *evidence.skipped))
        missing = RuleResult("refresh.last", champion.name, None, None, "missing", text)
        return Refresh("fail", (missing,))
    name, paired = champion.name, _against(evidence.last, champion, config)
    if paired.underpowered == TOO_FEW_USERS:
        text = (
            f"{paired.n:,} users can be evaluated against the scorer of {evidence.last.label} "
            f"({config.min_users:,} needed)"
        )
        # Not a failure: `decide` counts such runs in a row, and waits.
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
    text = f"{change(paired.x)} against the scorer of {reference.label} ({paired.n:,} users)"
    return f"{text}: too few differences" if paired.underpowered == NO_DIFFERENCE else text


def _last(
    paired: Difference, reference: Reference, champion: EvaluatedRecipe, config: GateConfig
) -> RuleResult:
    # A stored scorer without any hit has a mean of 0, and tonight's cannot be worse.
    judged = paired.underpowered is None
    bound = -max(config.refresh_margin, config.refresh_errors * paired.se) if judged else None
    held = bound is None or paired.x >= bound
    text = _compared(paired, reference)
    return RuleResult("refresh.last", champion.name, paired.x, bound, verdict(held), text)


def _month(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    reference = evidence.month
    if reference is None:
        text = "; ".join(("no scorer was accepted 21 to 45 days ago", *evidence.skipped))
        return RuleResult("refresh.month", champion.name, None, None, "reported", text)
    paired = _against(reference, champion, config)
    text = _compared(paired, reference)
    if paired.underpowered == TOO_FEW_USERS:
        return RuleResult("refresh.month", champion.name, paired.x, None, "underpowered", text)
    held = paired.underpowered is not None or paired.x >= 0
    return RuleResult("refresh.month", champion.name, paired.x, 0.0, verdict(held), text)


def _anchor(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    """Block on proven harm alone, because the ratio changes with the seasons."""
    anchor = evidence.past.anchor_of(champion.recipe_hash)
    name = "refresh.baseline_ratio"
    tonight = block_ratio(champion, evidence.judged, evidence.holdout)
    if anchor is None or tonight is None:
        text = "the best baseline has no hits, so the baseline ratio is undefined"
        text = "the champion's anchor is missing" if anchor is None else text
        return RuleResult(name, champion.name, None, None, "missing", text)
    # Only blocks before tonight's: two that overlap would count the same days twice.
    earlier = [r for r in evidence.past.ratios if r.block.end <= evidence.holdout.start]
    used = (tonight, *disjoint(earlier, champion.recipe_hash))[:_RATIO_BLOCKS]
    ratio = float(np.mean([r.ratio for r in used]))
    se = math.sqrt(sum(r.se**2 for r in used)) / len(used)
    spread = _healthy_spread(earlier, champion.recipe_hash)
    bound = anchor.ratio * (1 - max(config.anchor_margin, _HEALTHY_ERRORS * spread))
    best = best_baseline(evidence.judged).name
    thin = f" (fewer than {ANCHOR_BLOCKS} blocks)" if anchor.thin else ""
    text = (
        f"mean is {ratio:.3f} times that of {best} over "
        f"{len(used)} block{'s' if len(used) > 1 else ''} "
        f"(standard error {se:.3f}), anchor {anchor.ratio:.3f}{thin}"
    )
    # The upper end of the interval: noise alone must not block.
    held = ratio + _PROVES * se >= bound
    return RuleResult(name, champion.name, ratio, bound, verdict(held), text)


def _healthy_spread(earlier: list[BlockRatio], recipe_hash: str) -> float:
    """Return the relative SD of the ratio over accepted blocks; 0 with fewer than eight."""
    accepted = disjoint([r for r in earlier if r.accepted], recipe_hash)
    if len(accepted) < _HEALTHY_BLOCKS:
        return 0.0
    single = np.array([r.ratio for r in accepted])
    rolling = (single[1:] + single[:-1]) / 2  # the ratio is a mean over two blocks
    return float(np.std(rolling, ddof=1) / np.mean(rolling))


def _best_baseline(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    best, own, name = best_baseline(evidence.judged), mean(champion), "refresh.baseline"
    text = f"mean of {champion.name} {own:.4f}"
    if best.name == champion.name:
        text += ", which is the best baseline itself"
        return RuleResult(name, champion.name, own, None, "pass", text)
    bound = config.baseline_floor * mean(best)
    text += f", of {best.name} {mean(best):.4f}"
    return RuleResult(name, champion.name, own, bound, verdict(own >= bound), text)
