"""Refresh of the champion's recipe on newer data: comparison of tonight's fit with earlier ones.

Tonight's evaluation fit is compared with stored scorers on the same users and ground truth, because
a stored figure is not comparable: weeks differ. Its level, and its ratio to the best baseline, have
wide bounds, because both change with the seasons; they find damage that the stored scorers share.

A rule fails if a relative change x is below −max(margin, 3·se), so noise alone hardly ever blocks.

Guarantees: without an accepted scorer the refresh fails; with too few users it is `underpowered`,
not failed, unless a slice or the level fails; the first rule is always the comparison with the last
accepted scorer; a scorer, level or baseline of 0 fails no rule, and a champion that falls to 0
does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pipeline.evaluation.compare import NO_DIFFERENCE, TOO_FEW_USERS, Difference, difference, paired
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.anchors import ANCHOR_BLOCKS, Anchor, BlockLevel, disjoint
from pipeline.evaluation.gate.bounds import bound_rules
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import (
    REFRESH_LAST,
    REFRESH_SLICES,
    EvaluatedRecipe,
    Evidence,
    Reference,
)
from pipeline.evaluation.gate.rules import best_baseline, block_level, mean, seed_sd_of, verdict
from pipeline.evaluation.gate.slice_rules import refresh_slice_rules
from pipeline.number_text import change

_LEVEL: Final = "refresh.level"
_RATIO_BLOCKS: Final = 2
"""Number of blocks that the ratio is the mean of."""
_LEVEL_BLOCKS: Final = 4
"""Number of accepted blocks that the usual level is the median of, at most."""
_LEAST_LEVELS: Final = 2
_MEDIAN_VARIANCE: Final = 1.57
"""Variance of a median over that of a mean, π/2."""
_HEALTHY_BLOCKS: Final = 8
"""Number of accepted blocks from which the spread of the ratio is estimated, at least."""
_HEALTHY_ERRORS: Final = 4.0
_POWER: Final = 0.84
"""Normal quantile of a power of 80 %."""
_GAIN: Final = 0.25
_GAIN_ERRORS: Final = 5.0

Outcome = Literal["pass", "fail", "underpowered"]


@dataclass(frozen=True)
class Refresh:
    """Outcome of a refresh, and every rule that was applied; the first is about the last scorer.

    Attributes
    ----------
    anchor
        Anchor that is set tonight because the champion has none.
    """

    outcome: Outcome
    rules: tuple[RuleResult, ...]
    anchor: Anchor | None = None

    @property
    def few_users(self) -> bool:
        """True if too few users can be compared with the last scorer."""
        return self.rules[0].outcome == "underpowered"

    @property
    def damage(self) -> RuleResult:
        """The rules that a switch needs as well, as one rule: last scorer, slices and level."""
        rules = [
            rule
            for rule in self.rules
            if rule.name in (REFRESH_LAST, _LEVEL) or rule.name.startswith(REFRESH_SLICES)
        ]
        failed = [rule for rule in rules if rule.outcome in ("fail", "missing")]
        if failed:
            text = f"the champion's recipe fails on tonight's data: {failed[0].sentence}"
            return RuleResult("switch.damage", "", None, None, "fail", text)
        if self.few_users:
            text = "too few users to compare tonight's data with the last accepted scorer"
            return RuleResult("switch.damage", "", None, None, "waiting", text)
        text = "the champion's recipe shows no damage of tonight's data"
        return RuleResult("switch.damage", "", None, None, "pass", text)


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
        missing = RuleResult(REFRESH_LAST, champion.name, None, None, "missing", text)
        return Refresh("fail", (missing,))
    name, against = champion.name, _against(evidence.last, champion, config)
    refused, few = evidence.past.refused, against.underpowered == TOO_FEW_USERS
    tonight = block_level(champion, evidence.judged, evidence.holdout)
    frames = evidence.last.tonight, evidence.last.stored
    damage = (
        _last(against, evidence.last, champion, REFRESH_LAST in refused, config),
        *refresh_slice_rules(name, frames, seed_sd_of(champion, config), refused, config),
        _level(evidence, champion, tonight, config),
    )
    if few and not _failed(damage):
        # Not a failure: `decide` counts such runs in a row, and waits.
        return Refresh("underpowered", damage)
    anchor_rule, anchor = _anchor(evidence, champion, tonight, config)
    rules = (
        *damage,
        _month(evidence, champion, config),
        _floor(evidence, champion, tonight, config),
        anchor_rule,
        *bound_rules(champion, config),
        *_gain(against, evidence.last, champion),
    )
    return Refresh("fail" if _failed(rules) else "pass", rules, anchor)


def _failed(rules: Iterable[RuleResult]) -> bool:
    return any(rule.outcome in ("fail", "missing") for rule in rules)


def _bound(margin: float, se: float, config: GateConfig) -> float:
    return -max(margin, config.refresh_errors * se)


def _against(reference: Reference, champion: EvaluatedRecipe, config: GateConfig) -> Difference:
    seed_sd = seed_sd_of(champion, config)
    return difference(
        *paired(reference.tonight, reference.stored, NDCG),
        tau_candidate=seed_sd,
        tau_champion=seed_sd,
        min_users=config.min_users,
        min_nonzero=config.min_nonzero,
    )


def _compared(against: Difference, reference: Reference) -> str:
    text = f"{change(against.x)} against the scorer of {reference.label} ({against.n:,} users)"
    if against.underpowered == NO_DIFFERENCE:
        return f"{text}: too few differences"
    if against.underpowered:
        return f"the scorer of {reference.label} has no hit ({against.n:,} users)"
    return text


def detectable_loss(se: float, config: GateConfig) -> float:
    """Return the loss against the last scorer that the rule detects in four of five cases.

    Parameters
    ----------
    se
        Standard error of the comparison.
    config
        Has the margin.

    Returns
    -------
    float
        As a positive share.
    """
    return -_bound(config.refresh_margin, se, config) + _POWER * se


def _last(
    against: Difference,
    reference: Reference,
    champion: EvaluatedRecipe,
    refused: bool,
    config: GateConfig,
) -> RuleResult:
    if against.underpowered == TOO_FEW_USERS:
        users, needed = against.n, config.min_users
        text = f"{users:,} users can be evaluated against the scorer of {reference.label} "
        text += f"({needed:,} needed)"
        return RuleResult(REFRESH_LAST, champion.name, users, needed, "underpowered", text)
    text = _compared(against, reference)
    # A stored scorer without any hit has a mean of 0, and tonight's cannot be worse.
    if against.underpowered is not None:
        return RuleResult(REFRESH_LAST, champion.name, against.x, None, "pass", text)
    bound = _bound(config.refresh_margin, against.se, config)
    loss = change(detectable_loss(against.se, config)).lstrip("+")
    text += f"; the users suffice to notice a loss of {loss} or more (in four of five cases)"
    if refused:
        # Tested every night, a larger loss would pass within weeks by chance.
        bound = -max(config.refused_margin, against.se)
        text += "; narrower bound, because this rule refused the last refresh"
    held = against.x >= bound
    return RuleResult(REFRESH_LAST, champion.name, against.x, bound, verdict(held), text)


def _month(evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig) -> RuleResult:
    reference, name = evidence.month, "refresh.month"
    if reference is None:
        text = "; ".join(("no scorer was accepted 21 to 45 days ago", *evidence.skipped))
        return RuleResult(name, champion.name, None, None, "reported", text)
    against = _against(reference, champion, config)
    text = _compared(against, reference)
    if against.underpowered is not None:
        return RuleResult(name, champion.name, against.x, None, "reported", text)
    bound = _bound(config.refresh_margin, against.se, config)
    return RuleResult(name, champion.name, against.x, bound, verdict(against.x >= bound), text)


def _level(
    evidence: Evidence, champion: EvaluatedRecipe, tonight: BlockLevel, config: GateConfig
) -> RuleResult:
    """Compare the champion's mean with the median of its means on accepted blocks."""
    since = evidence.past.levels_since
    usual = disjoint(
        (
            level
            for level in evidence.past.levels
            if level.accepted
            and level.block.end <= evidence.holdout.start
            and level.block.length == evidence.holdout.length
            and (since is None or level.block.end >= since)
        ),
        champion.recipe_hash,
    )[:_LEVEL_BLOCKS]
    name, text = champion.name, f"mean of {champion.name} {tonight.mean:.4f}"
    if len(usual) < _LEAST_LEVELS:
        text += f"; {_blocks_text(len(usual), 'accepted ')} to compare with, {_LEAST_LEVELS} needed"
        return RuleResult(_LEVEL, name, None, None, "reported", text)
    median = float(np.median([level.mean for level in usual]))
    text += f", median of {_blocks_text(len(usual), 'accepted ')} {median:.4f}"
    if median <= 0:
        return RuleResult(_LEVEL, name, None, None, "pass", text)
    x = tonight.mean / median - 1
    errors = [level.relative_error**2 for level in usual if level.mean > 0]
    own = tonight.relative_error if tonight.mean > 0 else 0.0
    se = math.sqrt(own**2 + _MEDIAN_VARIANCE * float(np.mean(errors)) / len(usual))
    # A champion without any hit has lost its level, whatever the errors are.
    bound = max(_bound(config.level_margin, se, config), -1 + 1e-9)
    return RuleResult(_LEVEL, name, x, bound, verdict(x >= bound), text)


def _ratio(
    evidence: Evidence, champion: EvaluatedRecipe, tonight: BlockLevel
) -> tuple[float, float, int] | None:
    """Return the baseline ratio over the last two disjoint blocks, its error, and their number."""
    if tonight.ratio is None:
        return None
    earlier = evidence.past.ratios_until(evidence.holdout.start)
    used = (tonight, *disjoint(earlier, champion.recipe_hash))[:_RATIO_BLOCKS]
    ratio = float(np.mean([level.ratio for level in used if level.ratio is not None]))
    se = math.sqrt(sum((level.se or 0.0) ** 2 for level in used)) / len(used)
    return ratio, se, len(used)


def _floor(
    evidence: Evidence, champion: EvaluatedRecipe, tonight: BlockLevel, config: GateConfig
) -> RuleResult:
    best, own, name = best_baseline(evidence.judged), mean(champion), "refresh.floor"
    text = f"mean of {champion.name} {own:.4f}"
    if best.name == champion.name:
        text += ", which is the best baseline itself"
        return RuleResult(name, champion.name, 0.0, None, "pass", text)
    text += f", of {best.name} {mean(best):.4f}"
    measured = _ratio(evidence, champion, tonight)
    if measured is None:
        # The best baseline has no hit: it cannot be better.
        outcome = verdict(own > 0)
        return RuleResult(name, champion.name, None, None, outcome, text)
    ratio, se, blocks = measured
    bound = _bound(config.floor_margin, se, config)
    text += f"; {_blocks_text(blocks)}: {change(ratio - 1)}"
    return RuleResult(name, champion.name, ratio - 1, bound, verdict(ratio - 1 >= bound), text)


def _anchor(
    evidence: Evidence, champion: EvaluatedRecipe, tonight: BlockLevel, config: GateConfig
) -> tuple[RuleResult, Anchor | None]:
    """Compare the baseline ratio with the anchor, or set the anchor if there is none."""
    name, anchor = "refresh.anchor", evidence.past.anchor_of(champion.recipe_hash)
    measured, best = _ratio(evidence, champion, tonight), best_baseline(evidence.judged).name
    earlier = evidence.past.ratios_until(evidence.holdout.start)
    if anchor is None:
        new, text = None, "the champion had no anchor"
        # One of fewer users would bound later refreshes by chance.
        if measured is not None and tonight.n >= config.min_users:
            new = Anchor.over((tonight, *disjoint(earlier, champion.recipe_hash)))
        if new is not None:
            text += f"; tonight it is set to {new.ratio:.3f} ({_blocks_text(new.blocks)})"
        return RuleResult(name, champion.name, None, None, "reported", text), new
    if measured is None:
        # The best baseline has no hit: no loss, unless the champion has none either.
        text = f"{best} has no hit, so the baseline ratio is undefined"
        return RuleResult(name, champion.name, None, None, verdict(tonight.mean > 0), text), None
    ratio, se, blocks = measured
    spread = _HEALTHY_ERRORS * _healthy_spread(earlier, champion.recipe_hash)
    x = ratio / anchor.ratio - 1
    # Of a quotient of two independent means.
    error = math.hypot(se, (x + 1) * anchor.se) / anchor.ratio
    bound = _bound(max(config.anchor_margin, spread), error, config)
    thin = f" (fewer than {ANCHOR_BLOCKS} blocks)" if anchor.thin else ""
    text = (
        f"mean is {ratio:.3f} times that of {best} over {_blocks_text(blocks)} "
        f"(standard error {se:.3f}), anchor {anchor.ratio:.3f}{thin}"
    )
    return RuleResult(name, champion.name, x, bound, verdict(x >= bound), text), None


def _healthy_spread(earlier: list[BlockLevel], recipe_hash: str) -> float:
    """Return the relative SD of the ratio over accepted blocks; 0 with fewer than eight."""
    accepted = disjoint(earlier, recipe_hash)
    if len(accepted) < _HEALTHY_BLOCKS:
        return 0.0
    single = np.array([level.ratio for level in accepted], np.float64)
    rolling = (single[1:] + single[:-1]) / 2  # the ratio is a mean over two blocks
    return float(np.std(rolling, ddof=1) / np.mean(rolling))


def _gain(
    against: Difference, reference: Reference, champion: EvaluatedRecipe
) -> tuple[RuleResult, ...]:
    """Report an unusual gain: the stored scorer or its history may be damaged."""
    if against.underpowered or against.x <= max(_GAIN, _GAIN_ERRORS * against.se):
        return ()
    text = f"unusual gain: {_compared(against, reference)}"
    return (RuleResult("refresh.gain", champion.name, against.x, _GAIN, "reported", text),)


def _blocks_text(blocks: int, kind: str = "") -> str:
    return f"{blocks} {kind}block{'' if blocks == 1 else 's'}"
