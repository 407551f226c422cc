"""Check of the evidence for missing or unusable parts; each one blocks, by its name.

Guarantees: complete evidence gives no rule; a recipe without an evaluation blocks only if it is the
champion's or a baseline, or if no reason for its absence is known; the order of the recipes has no
effect.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.evaluation.evaluate import NDCG, SLICE
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import Evidence, Reference
from pipeline.evaluation.gate.rules import baselines, ordered, verdict
from pipeline.evaluation.slices import SLICES

_Fault = tuple[str, str]


def completeness(evidence: Evidence) -> tuple[RuleResult, ...]:
    """Return a rule for each part that is missing or unusable; none if the evidence is complete."""
    faults = [*_recipes(evidence), *_users(evidence)]
    if not evidence.checks:
        faults.append(("", "the data checks are missing"))
    for label, reference in (("last", evidence.last), ("month", evidence.month)):
        faults += [(label, text) for text in _pair_faults(reference)] if reference else []
    return tuple(RuleResult("complete", name, None, None, "missing", x) for name, x in faults)


def check_rules(evidence: Evidence) -> tuple[RuleResult, ...]:
    """Return the data checks of the run, such as volume and schema, as rules."""
    results = (
        RuleResult(f"check.{x.name}", "", x.figure, x.bound, verdict(x.passed), x.sentence)
        for x in evidence.checks
    )
    return tuple(sorted(results, key=lambda result: result.name))


def absence_rules(evidence: Evidence) -> tuple[RuleResult, ...]:
    """Report the recipes of the run that have no evaluation."""
    return tuple(
        RuleResult("absent", gone.name, None, None, "reported", f"{gone.name}: {gone.sentence}")
        for gone in sorted(evidence.absent, key=lambda a: a.name)
    )


def _recipes(evidence: Evidence) -> list[_Fault]:
    names, champion = {recipe.name for recipe in evidence.judged}, evidence.champion
    present = names | {absent.name for absent in evidence.absent}
    faults: list[_Fault] = []
    if len(names) < len(evidence.judged):
        faults.append(("", "two evaluations have the same name"))
    for name in sorted(set(evidence.expected) - present):
        faults.append((name, f"the evaluation of {name} is missing"))
    # A failed candidate is left out; the champion and the baselines are needed to decide.
    for absent in sorted(evidence.absent, key=lambda a: a.name):
        if absent.baseline_rank is not None or absent.name == champion:
            faults.append((absent.name, f"{absent.name} is missing: {absent.sentence}"))
    if champion is not None and champion not in present:
        faults.append((champion, f"the champion's recipe {champion} is missing"))
    if not baselines(evidence.judged):
        faults.append(("", "no baseline was evaluated"))
    return faults


def _users(evidence: Evidence) -> list[_Fault]:
    missing: list[_Fault] = []
    users = None
    for recipe in ordered(evidence.judged):
        faults = _frame_faults(recipe.users)
        if recipe.coverage is None or not math.isfinite(recipe.coverage):
            faults.append("coverage is missing")
        if recipe.k != evidence.k:
            faults.append(f"was evaluated at k = {recipe.k}, not {evidence.k}")
        if not faults:
            # Means are comparable only over the same users; the first usable recipe defines them.
            own = recipe.users[c.USER_ID].sort()
            users = own if users is None else users
            if not own.equals(users):
                faults.append("was evaluated on other users than the rest")
        missing += [(recipe.name, f"{recipe.name}: {fault}") for fault in faults]
    return missing


def _pair_faults(reference: Reference) -> list[str]:
    faults = [
        f"{reference.label}, {side}: {fault}"
        for side, frame in (("tonight", reference.tonight), ("stored", reference.stored))
        for fault in _frame_faults(frame)
    ]
    if not faults and not reference.tonight[c.USER_ID].sort().equals(
        reference.stored[c.USER_ID].sort()
    ):
        faults.append(f"{reference.label}: the two scorers were evaluated on different users")
    return faults


def _frame_faults(users: pl.DataFrame) -> list[str]:
    columns = [NDCG, *(SLICE + name for name in SLICES)]
    faults = [f"{name} is missing" for name in (c.USER_ID, *columns) if name not in users.columns]
    if c.USER_ID in users.columns and users[c.USER_ID].n_unique() != users.height:
        faults.append("a user appears twice")
    for name in (name for name in columns if name in users.columns):
        # Null marks users outside a slice; NDCG has a value for every user.
        values = users[name].cast(pl.Float64).drop_nulls().to_numpy()
        if not np.isfinite(values).all() or (name == NDCG and len(values) < users.height):
            faults.append(f"{name} has values that are missing or not finite")
    return faults
