"""Another recipe? Each candidate has an account of points, and a switch needs M/α of them.

M candidates are paid for in the threshold, so that looking at many does not find a lucky one; an
account pays for looking every night. What is proved must also hurt nobody: the rules on coverage,
slices and baselines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.evaluation.compare import Difference
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleOutcome, RuleResult
from pipeline.evaluation.gate.e_process import (
    EProcessKey,
    EProcessStatus,
    blocks_expected,
    waiting_day,
)
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.rules import (
    baseline_rules,
    compare,
    e_value_needed,
    ordered,
    seed_sd_of,
    slice_rules,
    verdict,
)

_HELD = ("pass", "underpowered", "reported")


@dataclass(frozen=True)
class Candidacy:
    """A candidate, what tonight's block and its account say of it, and the rules it met.

    Attributes
    ----------
    won
        Points, lift and every rule hold.
    inconclusive
        All but the points, of which it has what one candidate alone would need.
    """

    candidate: EvaluatedRecipe
    comparison: Difference
    status: EProcessStatus
    rules: tuple[RuleResult, ...]
    won: bool
    inconclusive: bool


def seek_switch(
    evidence: Evidence, champion: EvaluatedRecipe, config: GateConfig
) -> tuple[Candidacy, ...]:
    """Return how every other recipe of the night stands, in the order of the ladder."""
    candidates = [r for r in ordered(evidence.judged) if r.name != champion.name]
    threshold = e_value_needed(config, len(candidates))
    return tuple(_candidacy(evidence, r, champion, threshold, config) for r in candidates)


def leader(candidacies: Iterable[Candidacy]) -> Candidacy | None:
    """Return the one with the highest e-value, of equal ones the first by the recipe's hash."""

    def height(candidacy: Candidacy) -> tuple[float, str]:
        return -candidacy.status.e_process.log_e, candidacy.candidate.recipe_hash

    return min(candidacies, key=height, default=None)


def _candidacy(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    threshold: float,
    config: GateConfig,
) -> Candidacy:
    name, paired = candidate.name, compare(candidate, champion, config)
    status = _status(evidence, candidate, champion, paired, threshold)
    own, text = status.e_process, status.sentence
    judged = paired.underpowered is None
    outcome: RuleOutcome = verdict(status.reached)
    if not judged:
        outcome = "underpowered"
    elif status.waiting and not status.reached:
        outcome = "waiting"
    rules = [RuleResult("switch.e_value", name, own.e_value, threshold, outcome, text)]
    enough = judged and own.blocks > 0 and own.lift >= config.min_lift
    if judged and own.blocks:
        rule = RuleResult("switch.lift", name, own.lift, config.min_lift, verdict(enough), text)
        rules.append(rule)
    alone = own.log_e >= math.log(1 / config.alpha)
    if enough and (status.reached or alone):
        rules += _guards(evidence, candidate, champion, paired, config)
    held = enough and all(r.outcome in _HELD for r in rules if r.name != "switch.e_value")
    won = held and status.reached
    return Candidacy(candidate, paired, status, tuple(rules), won, held and alone and not won)


def _status(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    paired: Difference,
    threshold: float,
) -> EProcessStatus:
    """Count tonight's block, if it is a new one and can be judged."""
    days = evidence.holdout.length.days
    key = EProcessKey(champion.recipe_hash, candidate.recipe_hash, NDCG, evidence.k, days)
    account = evidence.past.e_process(key)
    # Two recipes that serve everybody alike give no evidence, and no variance to divide by.
    judged = paired.underpowered is None and paired.v > 0
    waiting = waiting_day(account, evidence.past.opened, evidence.holdout)
    if judged and waiting is None:
        account = account.add(paired.x, paired.v, evidence.holdout)
    return EProcessStatus(
        recipe=candidate.name,
        e_process=account,
        threshold=threshold,
        smallest_effect=paired.smallest_effect if judged else None,
        blocks_for_two_percent=blocks_expected(account, paired.v, threshold) if judged else None,
        waiting=waiting if judged else paired.underpowered or "nothing tells the two apart",
    )


def _guards(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    paired: Difference,
    config: GateConfig,
) -> list[RuleResult]:
    name = candidate.name
    own, other = candidate.coverage or 0.0, champion.coverage or 0.0
    limit = config.coverage_ratio * other
    coverage = f"coverage of {name} {own:.1%}, of {champion.name} {other:.1%}"
    churn = f"{name} would serve {paired.nonzero:,} of {paired.n:,} users differently well"
    frames, root = (candidate.users, champion.users), math.sqrt(min(candidate.fits, champion.fits))
    seed_sds = seed_sd_of(candidate, config) / root, seed_sd_of(champion, config) / root
    return [
        RuleResult("switch.coverage", name, own, limit, verdict(own >= limit), coverage),
        *slice_rules("switch", name, frames, seed_sds, config.slice_alpha_switch, config),
        *baseline_rules("switch", candidate, evidence.judged, 1.0),
        RuleResult("switch.churn", name, paired.nonzero / paired.n, None, "reported", churn),
    ]
