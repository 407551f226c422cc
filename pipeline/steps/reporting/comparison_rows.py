"""Recipes of a night held against one of them, as rows of its page.

Promises: the same people, the same statistic and the same thresholds as the gate's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import GateError
from pipeline.evaluation.compare import difference, paired
from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate import compare, is_proved, threshold
from pipeline.evaluation.gate.rules import tau_of
from pipeline.report.night import LiftRow, SliceRow
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import judged

_95 = 1.96


def lift_rows(
    night: Night, against: str | None, accounts: Sequence[Mapping[str, Any]]
) -> tuple[LiftRow, ...]:
    """Compare every recipe with `against` on the same people, as the gate compares them.

    Parameters
    ----------
    accounts
        Of the night's decision: against a champion, they say who is proved better.
    """
    config, recipes = night.config.gate, {recipe.name: recipe for recipe in judged(night)}
    if against not in recipes:
        return ()
    bound = threshold(config, len(recipes) - 1)
    reached = {s["recipe"] for s in accounts if s["log_points"] >= math.log(s["threshold"])}
    rows = []
    for name, recipe in recipes.items():
        if name == against:
            continue
        try:
            found = compare(recipe, recipes[against], config)
        except GateError:  # the decision names what is missing
            continue
        if not math.isfinite(found.v):  # nobody to compare on
            continue
        half = _95 * found.se
        low, high = found.x - half, found.x + half
        proved = is_proved(found, bound, config) if night.champion is None else name in reached
        rows.append(LiftRow(name, found.x, low, high, proved, found.underpowered))
    return tuple(rows)


def slice_rows(night: Night, challenger: str | None, against: str | None) -> tuple[SliceRow, ...]:
    """Compare two recipes in each group of people, as the gate looks for harm in them."""
    config, recipes = night.config.gate, {recipe.name: recipe for recipe in judged(night)}
    if challenger not in recipes or against not in recipes:
        return ()
    mine, theirs = recipes[challenger], recipes[against]
    rows = []
    for column in mine.users.columns:
        if not column.startswith(SLICE):
            continue
        try:
            values = paired(mine.users, theirs.users, column)
        except GateError:  # the decision names what is missing
            continue
        found = difference(
            *values,
            tau_candidate=tau_of(mine, config),
            tau_champion=tau_of(theirs, config),
            min_users=config.slice_users,
            min_nonzero=config.min_nonzero,
        )
        if not found.n:
            continue
        known = math.isfinite(found.v)
        half = _95 * found.se if known else 0.0
        rows.append(
            SliceRow(
                name=column.removeprefix(SLICE),
                users=found.n,
                candidate=found.candidate,
                champion=found.champion,
                lift=found.x if known else None,
                lo=found.x - half if known else None,
                hi=found.x + half if known else None,
                underpowered=found.underpowered,
            )
        )
    return tuple(rows)
