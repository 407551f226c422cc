"""The order of the questions, and the sentence that answers them.

No champion: the ladder. Otherwise a switch is sought first, then the champion's refresh is judged.
Whatever is missing blocks, by its name.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.evaluation.gate.anchors import ANCHOR_BLOCKS, Anchor, BlockRatio
from pipeline.evaluation.gate.baselines import choose_first
from pipeline.evaluation.gate.completeness import absence_rules, check_rules, completeness
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import Decision, Kind, RuleResult
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence, disjoint
from pipeline.evaluation.gate.messages import (
    MOST_NAMED,
    block_text,
    left_behind,
    refresh_reason,
    statuses_text,
    switch_reason,
)
from pipeline.evaluation.gate.refresh import Refresh, judge_refresh
from pipeline.evaluation.gate.rules import (
    best_baseline,
    block_ratio,
    chance,
    compare,
    mean,
    ordered,
    percent,
)
from pipeline.evaluation.gate.switch import Candidacy, leader, seek_switch

_LIVE_STAYS = "the live lists stay"


def decide(evidence: Evidence, config: GateConfig) -> Decision:
    """Decide what goes live: a pure function, whatever the order of its inputs.

    Parameters
    ----------
    evidence
        Everything that is looked at.
    config
        Thresholds.

    Returns
    -------
    Decision
        Of the five kinds; its rules hold every figure and bound.
    """
    missing = completeness(evidence)
    checks = check_rules(evidence)
    reports = absence_rules(evidence)
    if missing or any(rule.outcome == "fail" for rule in checks):
        return _blocked(evidence, (*missing, *checks, *reports))
    ratios = _ratios(evidence)
    if evidence.champion is None:
        decision = _first(evidence, config)
    else:
        decision = _later(evidence, config)
    accepted = decision.recipe_hash if decision.promotes else None
    decision = _degraded(decision, evidence)
    return replace(
        decision,
        rules=(*checks, *reports, *decision.rules),
        ratios=tuple(replace(r, accepted=r.recipe_hash == accepted) for r in ratios),
    )


def _degraded(decision: Decision, evidence: Evidence) -> Decision:
    """Say who was left out: the others were judged without them."""
    names = sorted(gone.name for gone in evidence.absent)
    reasons = tuple(f"degraded: {name} was left out" for name in names)
    return replace(
        decision,
        reasons=(*decision.reasons, *reasons),
        sentence="; ".join((decision.sentence, *reasons)),
    )


def _first(evidence: Evidence, config: GateConfig) -> Decision:
    n = evidence.judged[0].users.height
    if n < config.min_users:
        return _first_unjudged(evidence, config, n)
    winner, rules = choose_first(evidence, config)
    figure = f"NDCG@{evidence.k} {mean(winner):.4f} on {n:,} users, {block_text(evidence)}"
    best = best_baseline([r for r in evidence.judged if r.name != winner.name] or [winner])
    if winner.baseline_rank is None:
        paired = compare(winner, best, config)
        reason = (
            f"{winner.name} becomes the champion with {figure}: {percent(paired.x)} over "
            f"{best.name} (p {chance(paired.p_better)})"
        )
    else:
        reason = (
            f"{winner.name} becomes the champion with {figure}: nothing that learns beats "
            "every baseline here yet"
        )
    against = best if winner.baseline_rank is None else winner
    losers = left_behind(evidence, against, winner, rules, config)
    return _accepted("first", evidence, winner, rules, (reason, *losers))


def _first_unjudged(evidence: Evidence, config: GateConfig, n: int) -> Decision:
    fallback = next((r for r in evidence.judged if r.name == config.fallback), None)
    if fallback is None:
        text = f"{n:,} users can be judged, and the baseline {config.fallback} is missing"
        rule = RuleResult("complete", config.fallback, None, None, "missing", text)
        return _blocked(evidence, (rule,))
    text = f"{n:,} users can be judged, {config.min_users:,} are needed"
    rule = RuleResult("first.users", fallback.name, n, config.min_users, "underpowered", text)
    reason = f"underpowered: {text}, so {fallback.name} goes live until there are more"
    return _accepted("first", evidence, fallback, (rule,), (reason,))


def _later(evidence: Evidence, config: GateConfig) -> Decision:
    champion = next(r for r in evidence.judged if r.name == evidence.champion)
    candidacies = seek_switch(evidence, champion, config)
    refresh = judge_refresh(evidence, champion, config)
    decision = _switch_or_refresh(evidence, champion, candidacies, refresh, config)
    grey = leader(tuple(one for one in candidacies if one.inconclusive))
    if grey is not None and decision.kind != "switch" and not refresh.regressed:
        decision = _with_inconclusive(decision, grey)
    # Figures of a night whose data lost something are no evidence for anybody.
    accounts = () if refresh.regressed else tuple(one.status for one in candidacies)
    return replace(decision, e_processes=accounts)


def _switch_or_refresh(
    evidence: Evidence,
    champion: EvaluatedRecipe,
    candidacies: tuple[Candidacy, ...],
    refresh: Refresh,
    config: GateConfig,
) -> Decision:
    tried = tuple(rule for one in candidacies for rule in one.rules)
    winner = leader(tuple(one for one in candidacies if one.won))
    # A switch that learnt from the same damaged data is no way out.
    if winner is not None and not refresh.regressed:
        reasons = (switch_reason(evidence, champion, winner),)
        others = statuses_text(one for one in candidacies if one is not winner)
        return _accepted("switch", evidence, winner.candidate, tried, (*reasons, *others))
    rules = (*tried, *refresh.rules)
    if refresh.outcome == "pass":
        reason = refresh_reason(evidence, champion, refresh)
        return _accepted(
            "refresh", evidence, champion, rules, (reason, *statuses_text(candidacies))
        )
    if refresh.outcome == "underpowered":
        return _waiting(evidence, champion, rules, refresh.rules[0].sentence, config)
    return replace(_blocked(evidence, rules), recipe_hash=champion.recipe_hash)


def _with_inconclusive(decision: Decision, grey: Candidacy) -> Decision:
    name = grey.candidate.name
    reason = f"{name} is in the grey zone: all rules hold, and a person may switch to it"
    return replace(
        decision,
        reasons=(*decision.reasons, reason),
        sentence=f"{decision.sentence}; {reason}",
        inconclusive=name,
    )


def _waiting(
    evidence: Evidence,
    champion: EvaluatedRecipe,
    rules: tuple[RuleResult, ...],
    text: str,
    config: GateConfig,
) -> Decision:
    night = evidence.past.underpowered_nights + 1
    kind: Kind
    if night <= config.patience:
        kind, reason = "keep", f"{text}: night {night} of {config.patience}"
    else:
        kind, reason = "block", f"{text}, for {night} nights now: a person is asked"
    return Decision(
        kind=kind,
        recipe=champion.name,
        recipe_hash=champion.recipe_hash,
        rules=rules,
        reasons=(reason,),
        sentence=f"{kind}, underpowered: {reason}; {_LIVE_STAYS}",
        block=evidence.holdout,
        waiting=True,
        anchor=evidence.past.anchor_of(champion.recipe_hash),
    )


def _accepted(
    kind: Kind,
    evidence: Evidence,
    winner: EvaluatedRecipe,
    rules: tuple[RuleResult, ...],
    reasons: tuple[str, ...],
) -> Decision:
    anchor = evidence.past.anchor_of(winner.recipe_hash)
    if kind in ("first", "switch"):
        anchor = _new_anchor(evidence, winner)
        if anchor is not None and anchor.thin:
            plural = "block" if anchor.blocks == 1 else "blocks"
            reasons = (*reasons, f"its anchor is thin ({anchor.blocks} {plural})")
    return Decision(
        kind=kind,
        recipe=winner.name,
        recipe_hash=winner.recipe_hash,
        rules=rules,
        reasons=reasons,
        sentence=f"{kind}: {'; '.join(reasons)}",
        block=evidence.holdout,
        anchor=anchor,
    )


def _blocked(evidence: Evidence, rules: tuple[RuleResult, ...]) -> Decision:
    """Block, naming what failed; candidates that lose are no cause."""
    causes = [
        rule
        for rule in rules
        if rule.outcome in ("fail", "missing") and not rule.name.startswith("switch.")
    ]
    reasons = tuple(f"{rule.name}: {rule.sentence}" for rule in causes)
    named = "; ".join(reasons[:MOST_NAMED])
    if len(reasons) > MOST_NAMED:
        named += f"; and {len(reasons) - MOST_NAMED} more"
    stays = _LIVE_STAYS if evidence.champion is not None else "nothing goes live"
    champion = next((r for r in evidence.judged if r.name == evidence.champion), None)
    return Decision(
        kind="block",
        recipe=evidence.champion,
        recipe_hash=champion.recipe_hash if champion else None,
        rules=rules,
        reasons=reasons,
        sentence=f"block: {named}; {stays}",
        block=evidence.holdout,
        anchor=evidence.past.anchor_of(champion.recipe_hash) if champion else None,
    )


def _new_anchor(evidence: Evidence, winner: EvaluatedRecipe) -> Anchor | None:
    tonight = block_ratio(winner, evidence.judged, evidence.holdout)
    if tonight is None:
        return None
    earlier = [r for r in evidence.past.ratios if r.block.end <= evidence.holdout.start]
    used = (tonight, *disjoint(earlier, winner.recipe_hash))[:ANCHOR_BLOCKS]
    return Anchor(winner.recipe_hash, sum(r.ratio for r in used) / len(used), len(used))


def _ratios(evidence: Evidence) -> tuple[BlockRatio, ...]:
    ratios = (block_ratio(r, evidence.judged, evidence.holdout) for r in ordered(evidence.judged))
    return tuple(ratio for ratio in ratios if ratio is not None)
