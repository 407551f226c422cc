"""Another recipe? One block of days, tested at α/M with the luck of the seeds in the variance.

M candidates are paid for in the threshold, so that looking at many does not find a lucky one.
"""

from __future__ import annotations

from pipeline.evaluation.compare import Difference
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import Evidence, GateConfig, Judged
from pipeline.evaluation.gate.rules import (
    baseline_rules,
    chance,
    compare,
    ordered,
    percent,
    slice_rules,
    tau_of,
    threshold,
    verdict,
)


def seek_switch(
    evidence: Evidence, champion: Judged, config: GateConfig
) -> tuple[tuple[Judged, Difference] | None, tuple[RuleResult, ...]]:
    """Return the candidate to switch to, if there is one, and every rule that was applied.

    All rules of a candidate must hold. Of several winners the surest leads, then the recipe's hash.
    """
    candidates = [r for r in ordered(evidence.judged) if r.name != champion.name]
    bound = threshold(config, len(candidates))
    rules: list[RuleResult] = []
    winners: list[tuple[Judged, Difference]] = []
    for candidate in candidates:
        found = compare(candidate, champion, config)
        results = _evidence(candidate, champion, found, bound, config)
        if all(rule.verdict == "pass" for rule in results):
            results += _guards(evidence, candidate, champion, config)
            results.append(_churn(candidate, found))
            if all(rule.verdict in ("pass", "underpowered", "reported") for rule in results):
                winners.append((candidate, found))
        rules += results
    best = min(winners, key=lambda w: (-w[1].t, w[0].recipe_hash)) if winners else None
    return best, tuple(rules)


def _evidence(
    candidate: Judged, champion: Judged, found: Difference, bound: float, config: GateConfig
) -> list[RuleResult]:
    text = (
        f"{candidate.name} over {champion.name}: {percent(found.x)} "
        f"(p {chance(found.p_better)}, {found.n:,} users; this block finds "
        f"{percent(found.smallest_effect)})"
    )
    name = candidate.name
    if found.underpowered:
        text += f", {found.underpowered}"
        figure = found.p_better
        return [RuleResult("switch.evidence", name, figure, bound, "underpowered", text)]
    sure, enough = found.p_better <= bound, found.x >= config.min_lift
    return [
        RuleResult("switch.evidence", name, found.p_better, bound, verdict(sure), text),
        RuleResult("switch.lift", name, found.x, config.min_lift, verdict(enough), text),
    ]


def _guards(
    evidence: Evidence, candidate: Judged, champion: Judged, config: GateConfig
) -> list[RuleResult]:
    own, other = candidate.coverage or 0.0, champion.coverage or 0.0
    limit = config.coverage_ratio * other
    text = f"coverage of {candidate.name} {own:.1%}, of {champion.name} {other:.1%}"
    return [
        RuleResult("switch.coverage", candidate.name, own, limit, verdict(own >= limit), text),
        *slice_rules(
            "switch",
            candidate.name,
            (candidate.users, champion.users),
            (tau_of(candidate, config), tau_of(champion, config)),
            config.slice_alpha_switch,
            config,
        ),
        *baseline_rules("switch", candidate, evidence.judged, 1.0),
    ]


def _churn(candidate: Judged, found: Difference) -> RuleResult:
    share = found.nonzero / found.n if found.n else float("nan")
    text = f"{candidate.name} would serve {found.nonzero:,} of {found.n:,} users differently well"
    return RuleResult("switch.churn", candidate.name, share, None, "reported", text)
