"""Override of a decision by a user, with a name and a reason.

Guarantees: a recipe without an evaluation, or data that failed a check, cannot be accepted; figures
of the decision stay as they were.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import GateError
from pipeline.evaluation.gate.anchors import Anchor, disjoint
from pipeline.evaluation.gate.decision import Decision, RuleResult
from pipeline.evaluation.gate.evidence import GateHistory


def offers(decision: Decision) -> tuple[str, ...]:
    """Return the recipes that `accept` would put live, its default first."""
    judged = decision.recipe is not None and decision.recipe_hash is not None
    return _offered(decision) if judged and not _barred(decision) else ()


def accept(
    decision: Decision, past: GateHistory, *, by: str, reason: str, recipe: str | None = None
) -> Decision:
    """Return a decision as changed by a user.

    Parameters
    ----------
    decision
        Decision of a run.
    past
        Decisions of earlier runs, for the anchor of a switch.
    by, reason
        Name of the user, and the reason; both become part of the sentence.
    recipe
        Recipe to put live: the inconclusive candidate, or the champion's recipe if the run kept or
        blocked its refresh. None is the candidate, if there is one.

    Returns
    -------
    Decision
        Of kind `switch` or `refresh`.

    Raises
    ------
    GateError
        `accept.unknown_recipe`: the run does not offer this recipe. `accept.nothing_offered`: the
        decision put a model live already. `accept.not_evaluated`: evidence is missing, or a data
        check failed.
    """
    offered = _offered(decision)
    if offered and recipe is not None and recipe not in offered:
        named = " or ".join(offered)
        raise GateError(
            "accept.unknown_recipe",
            f"--recipe {recipe} cannot be accepted; name a recipe that this run offers: {named}",
        )
    if not offered and decision.promotes:
        raise GateError(
            "accept.nothing_offered",
            f"there is nothing to accept: {decision.sentence}; to publish {decision.recipe}, run "
            "`nightjar nightly` with the as-of of this run",
        )
    # A user can override the gate's own rules, but not the data checks.
    barred = _barred(decision)
    if barred or decision.recipe is None or decision.recipe_hash is None:
        causes = "; ".join(rule.sentence for rule in barred[:3]) or "the champion has no evaluation"
        raise GateError(
            "accept.not_evaluated",
            f"a run without evidence, or with a failed data check, cannot be accepted: {causes}; "
            "correct the cause, then run `nightjar nightly` with a later as-of",
        )
    note = f"accepted by {by}: {reason}"
    if decision.inconclusive is None or recipe == decision.recipe:
        accepted = replace(
            decision,
            kind="refresh",
            reasons=(note, *decision.reasons),
            sentence=f"refresh, {note}; without that, {decision.sentence}",
        )
    else:
        status = next(s for s in decision.e_processes if s.recipe == decision.inconclusive)
        recipe_hash = status.recipe_hash
        accepted = replace(
            decision,
            kind="switch",
            recipe=decision.inconclusive,
            recipe_hash=recipe_hash,
            reasons=(note, status.sentence, *decision.reasons),
            sentence=f"switch, {note}; {status.sentence}",
            anchor=anchor_from(decision, past, recipe_hash),
        )
    return replace(accepted, waiting=False, inconclusive=None)


def anchor_from(decision: Decision, past: GateHistory, recipe_hash: str) -> Anchor | None:
    """Return the mean baseline ratio of a recipe over its last disjoint blocks.

    Parameters
    ----------
    decision
        Its block is the newest that counts.
    past
        Baseline ratios of earlier blocks.
    recipe_hash
        Recipe of the anchor.

    Returns
    -------
    Anchor or None
        None for a recipe without a baseline ratio.
    """
    levels = [
        level
        for level in (*past.levels, *decision.levels)
        if level.ratio is not None and level.block.end <= decision.block.end
    ]
    return Anchor.over(disjoint(levels, recipe_hash))


def _offered(decision: Decision) -> tuple[str, ...]:
    # A promoted recipe is live already.
    kept = decision.recipe if not decision.promotes else None
    return tuple(name for name in (decision.inconclusive, kept) if name is not None)


def _barred(decision: Decision) -> tuple[RuleResult, ...]:
    """Return the failed rules that no user can override: on missing evidence and on the data."""
    return tuple(
        rule
        for rule in decision.rules
        if rule.name == "complete" or (rule.name.startswith("check.") and rule.outcome == "fail")
    )
