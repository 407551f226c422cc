"""Order of the gate's rules, and the sentence of a decision.

Without a champion, the first one is chosen among baselines and learned recipes. With a champion,
each other recipe is tested for a switch, and tonight's fit of the champion for a refresh; a switch
has priority. Missing evidence blocks, and the sentence names it.

Guarantees: the order of the recipes has no effect; a missing part or a failed data check blocks,
whatever the figures are; no candidate replaces the champion if a rule on damage of tonight's data
fails; only a first champion, a switch, or a champion without an anchor gets a new anchor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pipeline.evaluation.gate.anchors import Anchor, disjoint
from pipeline.evaluation.gate.answers import lifts_without_answers
from pipeline.evaluation.gate.baselines import choose_first
from pipeline.evaluation.gate.bounds import bound_rules
from pipeline.evaluation.gate.completeness import absence_rules, check_rules, completeness
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import Decision, Kind, RuleResult
from pipeline.evaluation.gate.e_process_status import e_value_text
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.refresh import Refresh, judge_refresh
from pipeline.evaluation.gate.rules import (
    best_baseline,
    block_level,
    compare,
    mean,
    ordered,
)
from pipeline.evaluation.gate.switch import (
    EVIDENCE,
    HELD,
    MIN_LIFT,
    Candidacy,
    leader,
    seek_switch,
    zero_reference,
)
from pipeline.number_text import chance, change

_LIVE_STAYS: Final = "the live lists stay"
_MAX_NAMED: Final = 3
"""Number of candidates, or causes, that a sentence names; the rules hold all of them."""


def decide(evidence: Evidence, config: GateConfig) -> Decision:
    """Decide which model goes live: a pure function, whatever the order of its inputs.

    Parameters
    ----------
    evidence
        All figures that the gate may read.
    config
        Levels and bounds.

    Returns
    -------
    Decision
        Of one of the five kinds; its rules hold every figure and bound.
    """
    missing = completeness(evidence)
    checks = check_rules(evidence)
    reports = absence_rules(evidence)
    if missing or any(rule.outcome == "fail" for rule in checks):
        return _blocked(evidence, (*missing, *checks, *reports))
    decision = (_first if evidence.champion is None else _later)(evidence, config)
    # Every recipe's level is kept: the anchor of a later switch is a mean over earlier blocks.
    levels = (block_level(r, evidence.judged, evidence.holdout) for r in ordered(evidence.judged))
    # A reader of the decision must see which recipes the comparison lacks.
    left_out = tuple(f"degraded: {rule.subject} was left out" for rule in reports)
    return replace(
        decision,
        rules=(*checks, *reports, *decision.rules),
        reasons=(*decision.reasons, *evidence.notes, *left_out),
        sentence="; ".join((decision.sentence, *evidence.notes, *left_out)),
        levels=tuple(levels),
        recipes=tuple(sorted(r.recipe_hash for r in evidence.judged)),
        without_answers=lifts_without_answers(evidence, config),
    )


def _first(evidence: Evidence, config: GateConfig) -> Decision:
    n = evidence.judged[0].users.height
    # With so few users no test is valid: a baseline goes live without one.
    if n < config.min_users:
        text = f"{n:,} users can be evaluated ({config.min_users:,} needed)"
        return _first_unjudged(evidence, config, n, text)
    if not any(mean(r) > 0 for r in evidence.judged):
        return _first_unjudged(evidence, config, n, _no_hit_text(evidence, n))
    winner, rules = choose_first(evidence, config)
    figure = f"NDCG@{evidence.k} {mean(winner):.4f} on {n:,} users, {_block_text(evidence)}"
    if winner.baseline_rank is None:
        reference = best_baseline(evidence.judged)
        paired = compare(winner, reference, config)
        lead = f"{change(paired.x)} over {reference.name} ({chance(paired.p_better)})"
    else:
        reference, lead = winner, "no learned recipe beats every baseline"
    refused = {rule.subject: rule for rule in reversed(rules) if rule.outcome != "pass"}
    others = [
        _other_text(r, compare(r, reference, config).x, winner, reference, refused.get(r.name))
        for r in ordered(evidence.judged)
        if r.baseline_rank is None and r is not winner
    ]
    reason = f"{winner.name} becomes the champion with {figure}: {lead}"
    return _accepted("first", evidence, winner, rules, (reason, *others), config)


def _other_text(
    other: EvaluatedRecipe,
    lift: float,
    winner: EvaluatedRecipe,
    reference: EvaluatedRecipe,
    refused: RuleResult | None,
) -> str:
    figure = f"({change(lift)} against {reference.name})"
    if refused is None:
        return f"{other.name} is behind {winner.name} {figure}"
    # A reader asks for the rule only if the lift alone would be enough.
    return f"{other.name} fails a rule {figure}" + (f": {refused.sentence}" if lift > 0 else "")


def _no_hit_text(evidence: Evidence, n: int) -> str:
    text = (
        f"no recipe lists a target of any of the {n:,} users at k = {evidence.k} in "
        f"{evidence.holdout.length.days} days"
    )
    options = [
        f"{option.setting} = {option.value} ({option.recipe}: {option.users:,} users)"
        for option in evidence.hit_options
    ]
    if not options:
        return f"{text}; no longer list, other block length or other target kind has hits either"
    return f"{text}; with hits: {', '.join(options)}"


def _first_unjudged(evidence: Evidence, config: GateConfig, n: int, text: str) -> Decision:
    """Put the fallback live without a test, for the reason in `text`."""
    fallback = next((r for r in evidence.judged if r.name == config.fallback), None)
    if fallback is None:
        text += f", and the baseline {config.fallback} is missing"
        rule = RuleResult("complete", config.fallback, None, None, "missing", text)
        return _blocked(evidence, (rule,))
    rule = RuleResult("first.users", fallback.name, n, config.min_users, "underpowered", text)
    reason = f"underpowered: {text}; {fallback.name} goes live until there are more"
    return _accepted("first", evidence, fallback, (rule,), (reason,), config)


def _later(evidence: Evidence, config: GateConfig) -> Decision:
    champion = next(r for r in evidence.judged if r.name == evidence.champion)
    refresh = judge_refresh(evidence, champion, config)
    damage = refresh.damage
    candidacies = seek_switch(evidence, champion, damage, config)
    # Damaged data are damaged for the candidates, too.
    counted = () if damage.outcome == "fail" else candidacies
    winner = leader(candidacy for candidacy in counted if candidacy.won)
    without_hits = _without_hits(evidence, champion, refresh, config)
    if winner is not None:
        others = _statuses(champion, (x for x in counted if x is not winner))
        reasons = (_switch_reason(evidence, champion, winner), *others)
        decision = _accepted("switch", evidence, winner.candidate, (), reasons, config)
    elif without_hits is not None:
        decision = without_hits
    elif refresh.outcome == "pass":
        reasons = (_refresh_reason(evidence, champion, refresh), *_statuses(champion, counted))
        decision = _accepted("refresh", evidence, champion, refresh.rules, reasons, config)
        decision = replace(decision, anchor=decision.anchor or refresh.anchor)
    elif refresh.outcome == "underpowered":
        decision = _waiting(evidence, champion, refresh, config)
    else:
        decision = replace(_blocked(evidence, refresh.rules), waiting=refresh.few_users)
    inconclusive = leader(candidacy for candidacy in counted if candidacy.inconclusive)
    if inconclusive is not None and decision.kind != "switch":
        name = inconclusive.candidate.name
        reason = f"{name} is inconclusive: only its threshold is missing, and you may accept it"
        decision = replace(
            decision,
            reasons=(*decision.reasons, reason),
            sentence=f"{decision.sentence}; {reason}",
            inconclusive=name,
        )
    tried = tuple(rule for candidacy in candidacies for rule in candidacy.rules)
    statuses = tuple(candidacy.status for candidacy in counted)
    return replace(decision, rules=(*tried, *decision.rules), e_processes=statuses)


def _without_hits(
    evidence: Evidence, champion: EvaluatedRecipe, refresh: Refresh, config: GateConfig
) -> Decision | None:
    """Decide on a champion without any hit, whose lifts are undefined; None if it has hits."""
    n = champion.users.height
    if n < config.min_users or mean(champion) > 0:
        return None
    if not any(mean(r) > 0 for r in evidence.judged):
        reason = _no_hit_text(evidence, n)
        decision = _decision("keep", evidence, champion, refresh.rules, (reason,))
        return replace(decision, sentence=f"keep: {reason}; {_LIVE_STAYS}")
    best, rules = zero_reference(evidence, champion, refresh.damage, config)
    if best is None:
        return None
    reason = f"{best.name} replaces {champion.name}: {rules[0].sentence}, {_block_text(evidence)}"
    return _accepted("switch", evidence, best, rules, (reason,), config)


def _switch_reason(evidence: Evidence, champion: EvaluatedRecipe, winner: Candidacy) -> str:
    paired, name = winner.comparison, winner.candidate.name
    return (
        f"{name} replaces {champion.name}: {winner.status.sentence.removeprefix(f'{name}: ')}; "
        f"NDCG@{evidence.k} {paired.candidate:.4f} against {paired.champion:.4f} on "
        f"{paired.n:,} users, {_block_text(evidence)}"
    )


def _refresh_reason(evidence: Evidence, champion: EvaluatedRecipe, refresh: Refresh) -> str:
    best = best_baseline(evidence.judged)
    text = f"{champion.name} on newer data: NDCG@{evidence.k} {mean(champion):.4f}"
    if best.name != champion.name:
        ratio = mean(champion) / mean(best) - 1 if mean(best) > 0 else float("nan")
        text += f", {change(ratio)} over {best.name}"
    return f"{text}, {refresh.rules[0].sentence}, {_block_text(evidence)}"


def _statuses(champion: EvaluatedRecipe, candidacies: Iterable[Candidacy]) -> tuple[str, ...]:
    """Describe the learned candidates that are not live, those with the most evidence first."""
    learned = [c for c in candidacies if c.candidate.baseline_rank is None]
    learned.sort(key=lambda c: (-c.status.log_e, c.candidate.name))
    sentences = []
    for candidacy in learned[:_MAX_NAMED]:
        status = candidacy.status
        text = (
            f"{status.recipe}: e-value {e_value_text(status.e_value)} "
            f"({status.threshold:,.0f} needed)"
        )
        if status.lift is not None:
            text += f", lift {change(status.lift)} against {champion.name}"
        text += f", {status.waiting}" if status.waiting else ""
        sentences.append(text + _refusal(candidacy))
    left = len(learned) - len(sentences)
    return (*sentences, f"and {left} more candidates") if left else tuple(sentences)


def _refusal(candidacy: Candidacy) -> str:
    """Return the reason why a candidate with a positive lift is not live; else an empty text."""
    if candidacy.status.lift is None or candidacy.status.lift <= 0:
        return ""
    if candidacy.won:
        return ", refused: another candidate has more evidence"
    failed = (r for r in candidacy.rules if r.name != EVIDENCE and r.outcome not in HELD)
    if (rule := next(failed, None)) is None:
        return ", refused: its lead is not proven yet"
    reason = "its lift is too small" if rule.name == MIN_LIFT else rule.sentence
    return f", refused: {reason}"


def _waiting(
    evidence: Evidence, champion: EvaluatedRecipe, refresh: Refresh, config: GateConfig
) -> Decision:
    # Later holdouts may have more users, so `patience` such runs keep; then the operator decides.
    run, text = evidence.past.underpowered_nights + 1, refresh.rules[0].sentence
    kind: Kind
    if run <= config.patience:
        kind, reason = "keep", f"{text}: run {run} of {config.patience}"
    else:
        kind, reason = "block", f"{text} in {run} runs in a row: accept it, or wait for users"
    sentence = f"{kind}, underpowered: {reason}; {_LIVE_STAYS}"
    decision = _decision(kind, evidence, champion, refresh.rules, (reason,))
    return replace(decision, sentence=sentence, waiting=True)


def _accepted(
    kind: Kind,
    evidence: Evidence,
    winner: EvaluatedRecipe,
    rules: tuple[RuleResult, ...],
    reasons: tuple[str, ...],
    config: GateConfig,
) -> Decision:
    if kind == "refresh":
        return _decision(kind, evidence, winner, rules, reasons)
    if kind == "first":  # without any list live, one outside the bounds is better than none
        bounds = bound_rules(winner, config)
        rules = (*rules, *(replace(rule, outcome="reported") for rule in bounds))
    # A refresh keeps the anchor; only a recipe that was not live before gets a new one.
    tonight = block_level(winner, evidence.judged, evidence.holdout)
    anchor = None
    # With few users the first refresh with enough sets the anchor.
    if tonight.ratio is not None and tonight.n >= config.min_users:
        earlier = evidence.past.ratios_until(evidence.holdout.start)
        anchor = Anchor.over((tonight, *disjoint(earlier, winner.recipe_hash)))
        if anchor is not None and anchor.thin:
            plural = "block" if anchor.blocks == 1 else "blocks"
            reasons = (*reasons, f"its anchor covers only {anchor.blocks} {plural}")
    return replace(_decision(kind, evidence, winner, rules, reasons), anchor=anchor)


def _blocked(evidence: Evidence, rules: tuple[RuleResult, ...]) -> Decision:
    """Block, with the sentence of each rule that failed or lacks a figure."""
    # Without the rules' ids: the sentence is read on the page and in MLflow.
    reasons = tuple(rule.sentence for rule in rules if rule.outcome in ("fail", "missing"))
    named = "; ".join(reasons[:_MAX_NAMED])
    if len(reasons) > _MAX_NAMED:
        named += f"; and {len(reasons) - _MAX_NAMED} more"
    stays = _LIVE_STAYS if evidence.champion is not None else "nothing goes live"
    # The champion itself may be missing.
    champion = next((r for r in evidence.judged if r.name == evidence.champion), None)
    decision = _decision("block", evidence, champion, rules, reasons)
    return replace(decision, sentence=f"block: {named}; {stays}")


def _decision(
    kind: Kind,
    evidence: Evidence,
    recipe: EvaluatedRecipe | None,
    rules: tuple[RuleResult, ...],
    reasons: tuple[str, ...],
) -> Decision:
    return Decision(
        kind=kind,
        recipe=recipe.name if recipe else evidence.champion,
        recipe_hash=recipe.recipe_hash if recipe else None,
        rules=rules,
        reasons=reasons,
        sentence=f"{kind}: {'; '.join(reasons)}",
        block=evidence.holdout,
        anchor=evidence.past.anchor_of(recipe.recipe_hash) if recipe else None,
    )


def _block_text(evidence: Evidence) -> str:
    return f"{evidence.holdout.start:%Y-%m-%d} to {evidence.holdout.end:%Y-%m-%d}"
