"""What the gate says to a person: pieces of a decision's sentence, with their figures."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.e_process import e_value_text
from pipeline.evaluation.gate.evidence import EvaluatedRecipe, Evidence
from pipeline.evaluation.gate.refresh import Refresh
from pipeline.evaluation.gate.rules import best_baseline, compare, mean, ordered, percent
from pipeline.evaluation.gate.switch import Candidacy

MOST_NAMED = 3
"""Candidates, or causes, that a sentence names; the rules hold them all."""


def switch_reason(evidence: Evidence, champion: EvaluatedRecipe, winner: Candidacy) -> str:
    """Say why another recipe goes live."""
    paired, name = winner.comparison, winner.candidate.name
    return (
        f"{name} replaces {champion.name}: {winner.status.sentence.removeprefix(f'{name}: ')}; "
        f"NDCG@{evidence.k} {paired.candidate:.4f} against {paired.champion:.4f} on "
        f"{paired.n:,} users, {block_text(evidence)}"
    )


def refresh_reason(evidence: Evidence, champion: EvaluatedRecipe, refresh: Refresh) -> str:
    """Say what the champion's recipe is worth on newer data."""
    best = best_baseline(evidence.judged)
    ratio = mean(champion) / mean(best) - 1 if mean(best) > 0 else float("nan")
    text = f"{champion.name} on newer data: NDCG@{evidence.k} {mean(champion):.4f}"
    if best.name != champion.name:
        text += f", {percent(ratio)} over {best.name}"
    if refresh.last is not None:
        text += f", {refresh.rules[0].sentence}"
    return f"{text}, {block_text(evidence)}"


def statuses_text(candidacies: Iterable[Candidacy]) -> tuple[str, ...]:
    """Name the candidates that learn and are not there, the nearest ones first."""
    learned = [one for one in candidacies if one.candidate.baseline_rank is None]
    learned.sort(key=lambda one: (-one.status.e_process.log_e, one.candidate.name))
    sentences = tuple(_status_text(one) for one in learned[:MOST_NAMED])
    left = len(learned) - len(sentences)
    return (*sentences, f"and {left} more candidates") if left else sentences


def left_behind(
    evidence: Evidence,
    against: EvaluatedRecipe,
    winner: EvaluatedRecipe,
    rules: Iterable[RuleResult],
    config: GateConfig,
) -> tuple[str, ...]:
    """Name the candidates that learn and did not make it: refused by a rule, or only behind."""
    refused = {rule.subject for rule in rules if rule.outcome != "pass"}

    def refusal(r: EvaluatedRecipe) -> str:
        what = "is refused" if r.name in refused else f"is behind {winner.name}"
        return f"{r.name} {what} ({percent(compare(r, against, config).x)} against {against.name})"

    return tuple(
        refusal(r)
        for r in ordered(evidence.judged)
        if r.baseline_rank is None and r.name not in (winner.name, against.name)
    )


def block_text(evidence: Evidence) -> str:
    """Name the days that judged."""
    return f"{evidence.holdout.start:%Y-%m-%d} to {evidence.holdout.end:%Y-%m-%d}"


def _status_text(one: Candidacy) -> str:
    own, standing = one.status.e_process, one.status
    text = f"{standing.recipe} has {e_value_text(own.e_value)} of {standing.threshold:,.0f} points"
    if own.blocks:
        text += f" ({percent(own.lift)})"
    return f"{text}, {standing.waiting}" if standing.waiting else text
