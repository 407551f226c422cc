"""What the gate says to a person: pieces of a decision's sentence, with their figures."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.e_process import points_text
from pipeline.evaluation.gate.evidence import Evidence, Judged
from pipeline.evaluation.gate.refresh import Refresh
from pipeline.evaluation.gate.rules import best_baseline, compare, mean, ordered, percent
from pipeline.evaluation.gate.switch import Candidacy

MOST_NAMED = 3
"""Candidates, or causes, that a sentence names; the rules hold them all."""


def switch_reason(evidence: Evidence, champion: Judged, winner: Candidacy) -> str:
    """Say why another recipe goes live."""
    paired, name = winner.found, winner.candidate.name
    return (
        f"{name} replaces {champion.name}: {winner.standing.sentence.removeprefix(f'{name}: ')}; "
        f"NDCG@{evidence.k} {paired.candidate:.4f} against {paired.champion:.4f} on "
        f"{paired.n:,} users, {block_text(evidence)}"
    )


def refresh_reason(evidence: Evidence, champion: Judged, refresh: Refresh) -> str:
    """Say what the champion's recipe is worth on newer data."""
    best = best_baseline(evidence.judged)
    ratio = mean(champion) / mean(best) - 1 if mean(best) > 0 else float("nan")
    text = f"{champion.name} on newer data: NDCG@{evidence.k} {mean(champion):.4f}"
    if best.name != champion.name:
        text += f", {percent(ratio)} over {best.name}"
    if refresh.last is not None:
        text += f", {refresh.rules[0].sentence}"
    return f"{text}, {block_text(evidence)}"


def standings(candidacies: Iterable[Candidacy]) -> tuple[str, ...]:
    """Name the candidates that learn and are not there, the nearest ones first."""
    learned = [one for one in candidacies if one.candidate.rung is None]
    learned.sort(key=lambda one: (-one.standing.account.log_points, one.candidate.name))
    sentences = tuple(_standing(one) for one in learned[:MOST_NAMED])
    left = len(learned) - len(sentences)
    return (*sentences, f"and {left} more candidates") if left else sentences


def left_behind(
    evidence: Evidence,
    against: Judged,
    winner: Judged,
    rules: Iterable[RuleResult],
    config: GateConfig,
) -> tuple[str, ...]:
    """Name the candidates that learn and did not make it: refused by a rule, or only behind."""
    refused = {rule.subject for rule in rules if rule.verdict != "pass"}

    def told(r: Judged) -> str:
        what = "is refused" if r.name in refused else f"is behind {winner.name}"
        return f"{r.name} {what} ({percent(compare(r, against, config).x)} against {against.name})"

    return tuple(
        told(r)
        for r in ordered(evidence.judged)
        if r.rung is None and r.name not in (winner.name, against.name)
    )


def block_text(evidence: Evidence) -> str:
    """Name the days that judged."""
    return f"{evidence.holdout.start:%Y-%m-%d} to {evidence.holdout.end:%Y-%m-%d}"


def _standing(one: Candidacy) -> str:
    own, standing = one.standing.account, one.standing
    text = f"{standing.recipe} has {points_text(own.points)} of {standing.threshold:,.0f} points"
    if own.blocks:
        text += f" ({percent(own.lift)})"
    return f"{text}, {standing.waiting}" if standing.waiting else text
