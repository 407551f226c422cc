"""The order of the questions, and the sentence that answers them.

No champion: the ladder. Otherwise a switch is sought first, then the champion's refresh is judged.
Whatever is missing blocks, by its name.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.evaluation.compare import Difference
from pipeline.evaluation.gate.complete import absence_rules, check_rules, completeness
from pipeline.evaluation.gate.decision import Decision, Kind, RuleResult
from pipeline.evaluation.gate.evidence import (
    ANCHOR_BLOCKS,
    Anchor,
    BlockRatio,
    Evidence,
    GateConfig,
    Judged,
    disjoint,
)
from pipeline.evaluation.gate.ladder import climb
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
from pipeline.evaluation.gate.switch import seek_switch

_LIVE_STAYS = "the live lists stay"
_MOST_NAMED = 3


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
    if missing or any(rule.verdict == "fail" for rule in checks):
        return _blocked(evidence, (*missing, *checks, *reports))
    ratios = _ratios(evidence)
    if evidence.champion is None:
        decision = _first(evidence, config)
    else:
        decision = _later(evidence, config)
    accepted = decision.recipe_hash if decision.promotes else None
    return replace(
        decision,
        rules=(*checks, *reports, *decision.rules),
        ratios=tuple(replace(r, accepted=r.recipe_hash == accepted) for r in ratios),
    )


def _first(evidence: Evidence, config: GateConfig) -> Decision:
    n = evidence.judged[0].users.height
    if n < config.min_users:
        return _first_unjudged(evidence, config, n)
    winner, rules = climb(evidence, config)
    figure = f"NDCG@{evidence.k} {mean(winner):.4f} on {n:,} users, {_block(evidence)}"
    best = best_baseline([r for r in evidence.judged if r.name != winner.name] or [winner])
    if winner.rung is None:
        found = compare(winner, best, config)
        reason = (
            f"{winner.name} becomes the champion with {figure}: {percent(found.x)} over "
            f"{best.name} (p {chance(found.p_better)})"
        )
    else:
        reason = (
            f"{winner.name} becomes the champion with {figure}: nothing that learns beats "
            "every baseline here yet"
        )
    refused = _refused(evidence, best if winner.rung is None else winner, winner, config)
    return _accepted("first", evidence, winner, rules, (reason, *refused))


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
    winner, switch_rules = seek_switch(evidence, champion, config)
    if winner is not None:
        reasons = (_switch_reason(evidence, champion, *winner),)
        refused = _refused(evidence, champion, winner[0], config)
        return _accepted("switch", evidence, winner[0], switch_rules, (*reasons, *refused))
    found = judge_refresh(evidence, champion, config)
    rules = (*switch_rules, *found.rules)
    refused = _refused(evidence, champion, champion, config)
    if found.outcome == "pass":
        reason = _refresh_reason(evidence, champion, found)
        return _accepted("refresh", evidence, champion, rules, (reason, *refused))
    if found.outcome == "underpowered":
        return _waiting(evidence, champion, rules, found.rules[0].sentence, config)
    return replace(_blocked(evidence, rules), recipe_hash=champion.recipe_hash)


def _switch_reason(evidence: Evidence, champion: Judged, winner: Judged, found: Difference) -> str:
    return (
        f"{winner.name} replaces {champion.name}: NDCG@{evidence.k} {found.candidate:.4f} against "
        f"{found.champion:.4f}, {percent(found.x)} (p {chance(found.p_better)}, {found.n:,} users, "
        f"{_block(evidence)})"
    )


def _refresh_reason(evidence: Evidence, champion: Judged, found: Refresh) -> str:
    best = best_baseline(evidence.judged)
    ratio = mean(champion) / mean(best) - 1 if mean(best) > 0 else float("nan")
    told = f"{champion.name} on newer data: NDCG@{evidence.k} {mean(champion):.4f}"
    if best.name != champion.name:
        told += f", {percent(ratio)} over {best.name}"
    if found.last is not None:
        told += f", {found.rules[0].sentence}"
    return f"{told}, {_block(evidence)}"


def _waiting(
    evidence: Evidence,
    champion: Judged,
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
        waiting=True,
        anchor=evidence.past.anchor_of(champion.recipe_hash),
    )


def _accepted(
    kind: Kind,
    evidence: Evidence,
    winner: Judged,
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
        anchor=anchor,
    )


def _blocked(evidence: Evidence, rules: tuple[RuleResult, ...]) -> Decision:
    """Block, naming what failed; candidates that lose are no cause."""
    causes = [
        rule
        for rule in rules
        if rule.verdict in ("fail", "missing") and not rule.name.startswith("switch.")
    ]
    reasons = tuple(f"{rule.name}: {rule.sentence}" for rule in causes)
    named = "; ".join(reasons[:_MOST_NAMED])
    if len(reasons) > _MOST_NAMED:
        named += f"; and {len(reasons) - _MOST_NAMED} more"
    stays = _LIVE_STAYS if evidence.champion is not None else "nothing goes live"
    champion = next((r for r in evidence.judged if r.name == evidence.champion), None)
    return Decision(
        kind="block",
        recipe=evidence.champion,
        recipe_hash=champion.recipe_hash if champion else None,
        rules=rules,
        reasons=reasons,
        sentence=f"block: {named}; {stays}",
        anchor=evidence.past.anchor_of(champion.recipe_hash) if champion else None,
    )


def _new_anchor(evidence: Evidence, winner: Judged) -> Anchor | None:
    tonight = block_ratio(winner, evidence.judged, evidence.holdout)
    if tonight is None:
        return None
    earlier = [r for r in evidence.past.ratios if r.block.end <= evidence.holdout.start]
    used = (tonight, *disjoint(earlier, winner.recipe_hash))[:ANCHOR_BLOCKS]
    return Anchor(winner.recipe_hash, sum(r.ratio for r in used) / len(used), len(used))


def _ratios(evidence: Evidence) -> tuple[BlockRatio, ...]:
    found = (block_ratio(r, evidence.judged, evidence.holdout) for r in ordered(evidence.judged))
    return tuple(ratio for ratio in found if ratio is not None)


def _refused(
    evidence: Evidence, against: Judged, winner: Judged, config: GateConfig
) -> tuple[str, ...]:
    """Name the candidates that learn and did not make it."""
    return tuple(
        f"{r.name} is refused ({percent(compare(r, against, config).x)} against {against.name})"
        for r in ordered(evidence.judged)
        if r.rung is None and r.name not in (winner.name, against.name)
    )


def _block(evidence: Evidence) -> str:
    return f"{evidence.holdout.start:%Y-%m-%d} to {evidence.holdout.end:%Y-%m-%d}"
