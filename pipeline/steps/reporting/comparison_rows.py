"""Comparisons of a run's recipes as rows of its page.

Guarantees: users, statistic and thresholds are those of the gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.errors import GateError
from pipeline.evaluation.compare import difference, paired
from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate import compare, first_level, is_proved
from pipeline.evaluation.gate.e_process_status import EProcessStatus
from pipeline.evaluation.gate.rules import seed_sd_of
from pipeline.evaluation.intervals import normal_interval
from pipeline.report.night import LiftRow, SliceRow
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import read_evaluated_recipes


def lift_rows(
    night: Night, against: str | None, e_processes: Sequence[EProcessStatus] = ()
) -> tuple[LiftRow, ...]:
    """Compare every recipe with `against` on the same users, as the gate does.

    Parameters
    ----------
    against
        Champion's recipe or a baseline; empty result without its evaluation.
    e_processes
        Of the run's decision; against a champion they determine which recipe is proven better.
    """
    config, recipes = (
        night.config.gate,
        {recipe.name: recipe for recipe in read_evaluated_recipes(night.run, night.snapshot)},
    )
    if against not in recipes:
        return ()
    bound = first_level(config, len(recipes))
    reached = {status.recipe for status in e_processes if status.reached}
    rows = []
    for name, recipe in recipes.items():
        if name == against:
            continue
        try:
            comparison = compare(recipe, recipes[against], config)
        except GateError:  # an incomplete evaluation; the decision reports it
            continue
        if not math.isfinite(comparison.v):  # no users, or a mean of 0 to divide by
            continue
        low, high = normal_interval(comparison.x, comparison.se)
        # Against a baseline one block decides; against a champion the e-process over all blocks.
        proved = is_proved(comparison, bound, config) if night.champion is None else name in reached
        rows.append(LiftRow(name, comparison.x, low, high, proved, comparison.underpowered))
    return tuple(rows)


def slice_rows(night: Night, challenger: str | None, against: str | None) -> tuple[SliceRow, ...]:
    """Compare two recipes in each user group, as the slice rules of the gate do.

    Parameters
    ----------
    challenger, against
        Names of recipes; empty result without both evaluations.
    """
    config, recipes = (
        night.config.gate,
        {recipe.name: recipe for recipe in read_evaluated_recipes(night.run, night.snapshot)},
    )
    if challenger not in recipes or against not in recipes:
        return ()
    candidate, champion = recipes[challenger], recipes[against]
    rows = []
    for column in (name for name in candidate.users.columns if name.startswith(SLICE)):
        try:
            values = paired(candidate.users, champion.users, column)
        except GateError:  # an incomplete evaluation; the decision reports it
            continue
        comparison = difference(
            *values,
            tau_candidate=seed_sd_of(candidate, config),
            tau_champion=seed_sd_of(champion, config),
            min_users=config.slice_users,
            min_nonzero=config.min_nonzero,
        )
        if not comparison.n:
            continue
        lift = lo = hi = None
        if math.isfinite(comparison.v):
            lift, (lo, hi) = comparison.x, normal_interval(comparison.x, comparison.se)
        means, name = (comparison.candidate, comparison.champion), column.removeprefix(SLICE)
        rows.append(SliceRow(name, comparison.n, *means, lift, lo, hi, comparison.underpowered))
    return tuple(rows)
