"""Switch to another recipe: each candidate needs enough evidence against the champion.

The threshold of a candidate follows from its share of α, so that testing many does not promote a
lucky one; the e-process is valid at every block, so that testing every night does not either. A
proven candidate must also pass the rules on slices and baselines over all recorded blocks, and on
coverage and damage of this run.

Guarantees: each other recipe has one candidacy; a block that overlaps a recorded one adds no
evidence, nor does one of a run with a failed rule on damage; a candidate wins, or is inconclusive,
only if no rule but that of the threshold is missing or failed; no candidate is both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pipeline.base import Interval
from pipeline.evaluation.compare import NO_DIFFERENCE, NO_LEVEL, TOO_FEW_USERS, Difference
from pipeline.evaluation.gate.bounds import bound_rules
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleOutcome, RuleResult
from pipeline.evaluation.gate.e_process import EProcess, figures_of, threshold_of
from pipeline.evaluation.gate.e_process_status import (
    MAX_E_VALUE,
    BlockUse,
    EProcessStatus,
    e_value_text,
    status_of,
)
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.processes import processes_of, with_record
from pipeline.evaluation.gate.records import BlockRecord, RecipeTotal, record_of
from pipeline.evaluation.gate.rules import baselines, compare, hit_users, mean, ordered, verdict
from pipeline.evaluation.gate.slice_rules import recorded_slice_rules
from pipeline.number_text import change, share

HELD: Final = ("pass", "underpowered", "reported")
"""Outcomes that do not prevent a switch."""
_USES: Final[Mapping[str, BlockUse]] = {
    TOO_FEW_USERS: "underpowered",
    NO_DIFFERENCE: "alike",
    NO_LEVEL: "no_level",
}
_UNRECORDED: Final[Mapping[BlockUse, RuleOutcome]] = {
    "waiting": "waiting",
    "no_level": "reported",
}
EVIDENCE: Final = "switch.evidence"
MIN_LIFT: Final = "switch.lift"


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
    evidence: Evidence, champion: EvaluatedRecipe, damage: RuleResult, config: GateConfig
) -> tuple[Candidacy, ...]:
    """Evaluate every other recipe of the run against the champion.

    Parameters
    ----------
    evidence
        Figures of the run.
    champion
        The champion's recipe.
    damage
        The rule `switch.damage`; unless it passes, nothing is switched to, and if it fails,
        tonight's block adds no evidence.
    config
        Levels and bounds.

    Returns
    -------
    tuple
        Candidacies, baselines first, then learned recipes by name.
    """
    candidates = [r for r in ordered(evidence.judged) if r.name != champion.name]
    processes = processes_of(
        evidence.past,
        champion.recipe_hash,
        [r.recipe_hash for r in candidates],
        evidence.holdout.end,
    )
    return tuple(
        _candidacy(evidence, r, champion, processes[r.recipe_hash], damage, config)
        for r in candidates
    )


def leader(candidacies: Iterable[Candidacy]) -> Candidacy | None:
    """Return the candidacy with the largest e-value ÷ threshold; of equal ones the lowest hash."""

    def height(candidacy: Candidacy) -> tuple[float, str]:
        status = candidacy.status
        return math.log(status.threshold) - status.log_e, candidacy.candidate.recipe_hash

    return min(candidacies, key=height, default=None)


def zero_reference(
    evidence: Evidence, champion: EvaluatedRecipe, damage: RuleResult, config: GateConfig
) -> tuple[EvaluatedRecipe | None, tuple[RuleResult, ...]]:
    """Select the recipe that replaces a champion without any hit.

    Parameters
    ----------
    evidence, champion, damage, config
        As for `seek_switch`; the champion's mean is 0.

    Returns
    -------
    tuple
        The recipe with the largest mean of those with enough hits, if coverage suffices and no rule
        on damage fails; and the rules. None without such a recipe.
    """
    able = [r for r in evidence.judged if hit_users(r) >= config.min_nonzero]
    best = max(able, key=lambda r: (mean(r), r.recipe_hash), default=None)
    if best is None:
        return None, ()
    text = f"{champion.name} has no hit, {best.name} has hits for {hit_users(best):,} users"
    rules = (
        RuleResult("switch.zero_reference", best.name, mean(best), 0.0, "pass", text),
        _coverage(best, champion, config),
        *bound_rules(best, config),
        damage,
    )
    return (best if all(r.outcome in HELD for r in rules) else None), rules


def _candidacy(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    process: EProcess,
    damage: RuleResult,
    config: GateConfig,
) -> Candidacy:
    name, paired = candidate.name, compare(candidate, champion, config)
    process, status = _with_tonight(
        evidence, candidate, champion, process, paired, damage.outcome == "fail", config
    )
    text, lift = status.sentence, status.lift
    outcome: RuleOutcome = verdict(status.reached)
    if not status.reached and status.use != "recorded":
        # Evidence of earlier blocks can suffice on a night that is not recorded.
        outcome = _UNRECORDED.get(status.use, "underpowered")
    rules = [RuleResult(EVIDENCE, name, status.e_value, status.threshold, outcome, text)]
    enough = lift is not None and lift >= config.min_lift
    if lift is not None:
        rules.append(RuleResult(MIN_LIFT, name, lift, config.min_lift, verdict(enough), text))
    alone = status.log_e >= math.log(1 / config.alpha)
    # The other rules matter only to a candidate that can win or be inconclusive.
    if enough and alone:
        rules += _guards(evidence, candidate, champion, process, status, paired, config)
        rules.append(_damage_of(damage, name))
    held = enough and alone and all(r.outcome in HELD for r in rules if r.name != EVIDENCE)
    held = held and damage.outcome == "pass"
    won = held and status.reached
    return Candidacy(candidate, paired, status, tuple(rules), won, held and not won)


def _damage_of(damage: RuleResult, name: str) -> RuleResult:
    """Return the rule on damage as one about a candidate."""
    return RuleResult(damage.name, name, None, None, damage.outcome, damage.sentence)


def _with_tonight(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    process: EProcess,
    paired: Difference,
    damaged: bool,
    config: GateConfig,
) -> tuple[EProcess, EProcessStatus]:
    """Record earlier blocks and tonight's block if they may be, and return the status."""
    block, use, waiting = evidence.holdout, _USES.get(paired.underpowered or ""), None
    judged, before = paired.underpowered is None, process
    if not damaged:  # the days of an earlier block may be damaged as well
        process = _caught_up(evidence, process, config)
    record = None
    if judged and paired.v > 0 and not damaged:
        record = _record(candidate, champion, evidence.judged, paired, block)
    process = process.reopened(block, evidence.past.excused, record)
    earlier = tuple(record for record in process.records if record not in before.records)
    excused = tuple(span for span in process.excused if span not in before.excused)
    dropped = tuple(r for r in process.dropped if r not in before.all_records)
    if judged and paired.v <= 0:
        use, waiting = "alike", "the two recipes do not differ"
    elif use is not None:
        waiting = paired.underpowered
    elif damaged:
        use, waiting = "waiting", "tonight's block may be damaged"
    elif record is None or block.start < process.free_from:
        day = max((block.end - process.free_from).days, 0)
        use, waiting = "waiting", f"waiting, day {day} of {block.length.days}"
    else:
        use, process = "recorded", process.add(record)
    status = status_of(
        candidate.name,
        process,
        threshold=threshold_of(config.alpha, process.weight),
        period_sd=config.period_sd_of(evidence.task),
        use=use,
        holes=process.hole_days(block.start, evidence.past.excused),
        smallest_effect=paired.smallest_effect if judged else None,
        waiting=waiting,
    )
    return process, replace(status, earlier=earlier, excused=excused, dropped=dropped)


def _caught_up(evidence: Evidence, process: EProcess, config: GateConfig) -> EProcess:
    """Return the e-process with the records of the earlier blocks that this run evaluated."""
    for block in evidence.earlier:
        if block.users < config.min_users:
            process = with_record(process, block.holdout, None)
            continue
        by_hash = {recipe.recipe_hash: recipe for recipe in block.judged}
        candidate = by_hash.get(process.key.candidate)
        champion = by_hash.get(process.key.champion)
        # A recipe whose training failed leaves a hole.
        if candidate is None or champion is None:
            continue
        paired = compare(candidate, champion, config)
        if paired.underpowered == NO_LEVEL:
            continue
        record = None
        if paired.underpowered is None and paired.v > 0:
            record = _record(candidate, champion, block.judged, paired, block.holdout)
        process = with_record(process, block.holdout, record)
    return process


def _record(
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    judged: Sequence[EvaluatedRecipe],
    paired: Difference,
    block: Interval,
) -> BlockRecord:
    totals = [
        RecipeTotal(r.recipe_hash, mean(r) * r.users.height)
        for r in (candidate, *baselines(judged))
    ]
    return record_of(paired, (candidate.users, champion.users), totals, block)


def _guards(
    evidence: Evidence,
    candidate: EvaluatedRecipe,
    champion: EvaluatedRecipe,
    process: EProcess,
    status: EProcessStatus,
    paired: Difference,
    config: GateConfig,
) -> list[RuleResult]:
    name = candidate.name
    rules = [_not_one_week(name, status, config), _coverage(candidate, champion, config)]
    rules += _all_records(name, status, process, evidence, config)
    rules += bound_rules(candidate, config)
    frames = candidate.users, champion.users
    rules += recorded_slice_rules(name, frames, process.records, config)
    rules += _over_baselines(evidence, candidate, process)
    text = f"{name} changes the NDCG of {paired.nonzero:,} of {paired.n:,} users"
    changed = paired.nonzero / paired.n
    return [*rules, RuleResult("switch.churn", name, changed, None, "reported", text)]


def _not_one_week(name: str, status: EProcessStatus, config: GateConfig) -> RuleResult:
    log, bound = status.log_rest, config.not_one_week
    if log is None:
        text = f"{name}: one block is recorded, a switch needs two"
        return RuleResult("switch.not_one_week", name, None, bound, "fail", text)
    value = math.exp(min(log, math.log(1e6)))
    text = f"{name}: e-value {value:,.1f} without its strongest block"
    return RuleResult("switch.not_one_week", name, value, bound, verdict(value >= bound), text)


def _all_records(
    name: str, status: EProcessStatus, process: EProcess, evidence: Evidence, config: GateConfig
) -> list[RuleResult]:
    """Test the evidence with the records from before days in no record; none without these."""
    if not process.dropped:
        return []
    # Otherwise each time that the e-process is emptied would be another chance to switch falsely.
    figures = figures_of(process.all_records, config.period_sd_of(evidence.task))
    bound = status.threshold if status.reached else 1 / config.alpha
    held = (
        figures.log_e >= math.log(bound)
        and figures.lift >= config.min_lift
        and figures.log_rest >= math.log(config.not_one_week)
    )
    value = math.exp(min(figures.log_e, math.log(MAX_E_VALUE)))
    text = (
        f"{name}: e-value {e_value_text(value)}, lift {change(figures.lift)} over all "
        f"{len(process.all_records)} recorded blocks"
    )
    return [RuleResult("switch.all_records", name, value, bound, verdict(held), text)]


def _coverage(
    candidate: EvaluatedRecipe, champion: EvaluatedRecipe, config: GateConfig
) -> RuleResult:
    own, other = candidate.coverage or 0.0, champion.coverage or 0.0
    limit, name = config.coverage_ratio * other, candidate.name
    text = f"coverage of {name} {share(own)}, of {champion.name} {share(other)}"
    return RuleResult("switch.coverage", name, own, limit, verdict(own >= limit), text)


def _over_baselines(
    evidence: Evidence, candidate: EvaluatedRecipe, process: EProcess
) -> list[RuleResult]:
    """Compare the sum of the candidate's values with each baseline's, over the records of both."""
    rules, name = [], candidate.name
    for baseline in (b for b in baselines(evidence.judged) if b.name != name):
        used = [
            (own, other, record.n)
            for record in process.records
            if (own := record.total(candidate.recipe_hash)) is not None
            and (other := record.total(baseline.recipe_hash)) is not None
        ]
        rule = f"switch.baselines.{baseline.name}"
        if not used:
            text = f"no recorded block has values of {baseline.name}"
            rules.append(RuleResult(rule, name, None, None, "missing", text))
            continue
        own, other, users = (sum(column) for column in zip(*used, strict=True))
        text = (
            f"mean of {name} {own / users:.3f}, of {baseline.name} {other / users:.3f}, as shares "
            f"of the champion's, over {len(used)} block{'s' if len(used) > 1 else ''}"
        )
        rules.append(RuleResult(rule, name, own, other, verdict(own >= other), text))
    return rules
