"""Switch to another recipe: each candidate needs an e-value of M/α against the champion.

The threshold corrects for M candidates, so that testing many does not promote a lucky one; the
e-process is valid at every block, so that testing every night does not either. A proven candidate
must also pass the rules on coverage, slices and baselines.

Guarantees: each other recipe has one candidacy; a block that overlaps a counted one adds no
evidence; a candidate wins, or is inconclusive, only if no rule but that of the threshold is missing
or failed; no candidate is both.
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
from pipeline.number_text import share

_HELD = ("pass", "underpowered", "reported")
"""Outcomes that do not prevent a switch."""


@dataclass(frozen=True)
class Candidacy:
    """A candidate with its comparison on tonight's block, its e-process, and its rules.

    Attributes
    ----------
    won
        The threshold is reached, the lift suffices, and every rule holds.
    inconclusive
        All of these hold but the threshold, and the e-value suffices for one candidate alone.
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
    """Evaluate every other recipe of the run against the champion.

    Parameters
    ----------
    evidence
        Figures of the run.
    champion
        The champion's recipe.
    config
        Levels and bounds.

    Returns
    -------
    tuple
        Candidacies, baselines first, then learned recipes by name.
    """
    candidates = [r for r in ordered(evidence.judged) if r.name != champion.name]
    # All other recipes of the run count as candidates, baselines included.
    threshold = e_value_needed(config, len(candidates))
    return tuple(_candidacy(evidence, r, champion, threshold, config) for r in candidates)


def leader(candidacies: Iterable[Candidacy]) -> Candidacy | None:
    """Return the candidacy with the highest e-value; of equal ones the lowest recipe hash."""

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
    # Evidence of earlier blocks can suffice on a night that is not counted.
    elif status.waiting and not status.reached:
        outcome = "waiting"
    rules = [RuleResult("switch.e_value", name, own.e_value, threshold, outcome, text)]
    enough = judged and own.blocks > 0 and own.lift >= config.min_lift
    if judged and own.blocks:
        rule = RuleResult("switch.lift", name, own.lift, config.min_lift, verdict(enough), text)
        rules.append(rule)
    alone = own.log_e >= math.log(1 / config.alpha)
    # The other rules matter only to a candidate that can win or be inconclusive.
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
    """Count tonight's block if it is disjoint and can be evaluated."""
    days = evidence.holdout.length.days
    key = EProcessKey(champion.recipe_hash, candidate.recipe_hash, NDCG, evidence.k, days)
    e_process = evidence.past.e_process(key)
    # Two recipes with equal values for every user have a variance of 0, by which `add` divides.
    judged = paired.underpowered is None and paired.v > 0
    waiting = waiting_day(e_process, evidence.past.opened, evidence.holdout)
    if judged and waiting is None:
        e_process = e_process.add(paired.x, paired.v, evidence.holdout)
    return EProcessStatus(
        recipe=candidate.name,
        e_process=e_process,
        threshold=threshold,
        smallest_effect=paired.smallest_effect if judged else None,
        blocks_for_two_percent=blocks_expected(e_process, paired.v, threshold) if judged else None,
        waiting=waiting if judged else paired.underpowered or "the two recipes do not differ",
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
    coverage = f"coverage of {name} {share(own)}, of {champion.name} {share(other)}"
    churn = f"{name} changes the NDCG of {paired.nonzero:,} of {paired.n:,} users"
    # The mean over S fits has 1/S of the variance that one seed has.
    frames, root = (candidate.users, champion.users), math.sqrt(min(candidate.fits, champion.fits))
    seed_sds = seed_sd_of(candidate, config) / root, seed_sd_of(champion, config) / root
    return [
        RuleResult("switch.coverage", name, own, limit, verdict(own >= limit), coverage),
        *slice_rules("switch", name, frames, seed_sds, config.slice_alpha_switch, config),
        *baseline_rules("switch", candidate, evidence.judged, 1.0),
        RuleResult("switch.churn", name, paired.nonzero / paired.n, None, "reported", churn),
    ]
