"""A person's word: what a night did not dare, somebody may, by name and with a reason.

Promises: nobody can accept what was not judged, or data that failed a check; the figures of the
decision stay as they were, only what becomes of them changes.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import GateError
from pipeline.evaluation.gate.anchors import Anchor
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.gate.evidence import GateHistory, disjoint


def offers(decision: Decision) -> tuple[str, ...]:
    """Return the recipes that `accept` would put live, the one that it takes unasked first."""
    judged = decision.recipe is not None and decision.recipe_hash is not None
    return _offered(decision) if judged and not _barred(decision) else ()


def accept(
    decision: Decision, past: GateHistory, *, by: str, reason: str, recipe: str | None = None
) -> Decision:
    """Return the decision as somebody changed it.

    Parameters
    ----------
    recipe
        Who shall go live: the candidate in the grey zone, or the champion's fit that was kept back
        or blocked. None takes the former where there is one.

    Raises
    ------
    GateError
        There is nothing to accept, and why.
    """
    offered = _offered(decision)
    if recipe is not None and recipe not in offered:
        named = " or ".join(offered) or "nobody"
        raise GateError(
            "accept.unknown_recipe", f"{recipe} cannot be accepted; this night offers {named}"
        )
    if not offered and decision.promotes:
        raise GateError("accept.nothing_offered", f"nothing is left to accept: {decision.sentence}")
    barred = _barred(decision)
    if barred or decision.recipe is None or decision.recipe_hash is None:
        causes = "; ".join(rule.sentence for rule in barred[:3]) or "no champion was judged"
        raise GateError("accept.not_evaluated", f"nobody can accept what was not judged: {causes}")
    word = f"accepted by {by}: {reason}"
    if decision.inconclusive is None or recipe == decision.recipe:
        recipe_hash = decision.recipe_hash
        accepted = replace(
            decision,
            kind="refresh",
            reasons=(word, *decision.reasons),
            sentence=f"refresh, {word}; without that, {decision.sentence}",
        )
    else:
        status = next(s for s in decision.e_processes if s.recipe == decision.inconclusive)
        recipe_hash = status.e_process.key.candidate
        accepted = replace(
            decision,
            kind="switch",
            recipe=decision.inconclusive,
            recipe_hash=recipe_hash,
            reasons=(word, status.sentence, *decision.reasons),
            sentence=f"switch, {word}; {status.sentence}",
            anchor=anchor_from(decision, past, recipe_hash),
        )
    ratios = tuple(replace(r, accepted=r.recipe_hash == recipe_hash) for r in decision.ratios)
    return replace(accepted, waiting=False, ratios=ratios, inconclusive=None)


def anchor_from(decision: Decision, past: GateHistory, recipe_hash: str) -> Anchor | None:
    """Return the mean baseline ratio of a recipe's last blocks, this decision's the newest."""
    known = [r for r in (*past.ratios, *decision.ratios) if r.block.end <= decision.block.end]
    ratios = disjoint(known, recipe_hash)
    return Anchor.over(ratios) if ratios else None


def _offered(decision: Decision) -> tuple[str, ...]:
    kept = decision.recipe if not decision.promotes else None
    return tuple(name for name in (decision.inconclusive, kept) if name is not None)


def _barred(decision: Decision) -> tuple[RuleResult, ...]:
    """Return the rules that nobody can overrule: on the data, and on what was never judged."""
    return tuple(
        rule
        for rule in decision.rules
        if rule.name == "complete" or (rule.name.startswith("check.") and rule.outcome == "fail")
    )
