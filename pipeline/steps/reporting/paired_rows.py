"""Rows of the page of two versions: their metrics, and comparisons paired by user.

Guarantees: users, statistic and thresholds are those of the gate; figures of different users are in
no row of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.compare import NO_LEVEL, difference, paired
from pipeline.evaluation.evaluate import NDCG, SLICE, USERS, metric_name
from pipeline.evaluation.intervals import NORMAL_95
from pipeline.report.pair import Estimate, MetricRow, PairedComparison, PairedRow
from pipeline.workspace.artifacts import EvaluationFile
from pipeline.workspace.run_files import read_split, trained
from pipeline.workspace.versions import Version

HOLDOUT: Final = "holdout"
RECIPES: Final = "recipes"
_LOW, _HIGH = "_lo", "_hi"


@dataclass(frozen=True)
class Side:
    """Values per user, the relative SD of their mean over seeds, and the number of fits."""

    users: pl.DataFrame
    seed_sd: float
    fits: int = 1


def same_holdout(left: Version, right: Version) -> bool:
    """Return whether both runs have the same holdout, task, ground truth and list length.

    Parameters
    ----------
    left, right
        In any order.
    """
    first, second = split_of(left), split_of(right)
    same = (first.holdout, first.task) == (second.holdout, second.task)
    lengths = {version.night.config.recommend.length for version in (left, right)}
    return same and len(lengths) == 1 and first.truth.equals(second.truth)


def evaluated_on(version: Version) -> str:
    """Write the days of a version's own holdout."""
    holdout = split_of(version).holdout
    return f"{holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}"


def metrics(left: Version, right: Version) -> tuple[MetricRow, ...]:
    """Line up the metrics of two versions, each on its own holdout.

    Returns
    -------
    A row for each metric of either, in the order of `left`, then of `right`.
    """
    sides = [v.night.run.read(EvaluationFile).recipes[v.name].metrics for v in (left, right)]
    names = dict.fromkeys(name for side in sides for name in side)
    return tuple(
        MetricRow(name, *(_estimate(side, name) for side in sides))
        for name in names
        if not name.endswith((_LOW, _HIGH, f".{USERS}"))
    )


def evaluated_side(version: Version, recipe: str) -> Side:
    """Read the evaluation of a recipe by a version's run.

    Parameters
    ----------
    version
        Version whose run evaluated the recipe.
    recipe
        Its name in that run.
    """
    run = version.night.run
    frame = run.frame("evaluate", f"users-{recipe}")
    return Side(frame, seed_sd(version, recipe), run.read(EvaluationFile).recipes[recipe].fits)


def seed_sd(version: Version, name: str) -> float:
    """Return a recipe's seed SD as the gate takes it; baselines have no randomness.

    Parameters
    ----------
    version
        Version whose run has the recipe.
    name
        Its name in that run.
    """
    night = version.night
    recipe = night.recipes[name]
    baseline = recipe.capabilities.baseline is not None
    unknown = 0.0 if baseline else night.config.gate.default_seed_sd
    return night.snapshot.seed_sds.get(recipe.family, unknown)


def recipe_comparison(
    older: Version, newer: Version, swapped: bool = False
) -> tuple[PairedComparison, ...]:
    """Compare the two recipes on the newer run's data, where that run trained both.

    Parameters
    ----------
    older, newer
        Versions of two runs.
    swapped
        True for lifts of the older one over the newer one.
    """
    wanted, night = older.night.recipes[older.name].hash, newer.night
    names = [n for n in trained(night) if night.recipes[n].hash == wanted and n != newer.name]
    if not names or wanted == night.recipes[newer.name].hash:
        return ()
    sides = [evaluated_side(newer, names[0]), evaluated_side(newer, newer.name)]
    about = (
        f"The run of version {newer.number} also trained the recipe of version {older.number} "
        f"({names[0]}) on its own data: paired by user."
    )
    title, rows = "Recipe against recipe on the same data", paired_rows(sides, newer, swapped)
    return (PairedComparison(RECIPES, title, about, rows),)


def paired_rows(
    sides: Sequence[Side], version: Version, swapped: bool = False
) -> tuple[PairedRow, ...]:
    """Compare two sides column by column, with the bounds of a version's gate.

    Parameters
    ----------
    sides
        Two; lifts are those of the second one over the first one.
    version
        Its run has the settings of the gate.
    swapped
        True to compare them the other way round.
    """
    left, right = reversed(sides) if swapped else sides
    gate, k = version.night.config.gate, version.night.config.recommend.length
    rows = []
    for column in left.users.columns:
        if column == c.USER_ID or column not in right.users.columns:
            continue
        try:
            candidate, champion = paired(right.users, left.users, column)
        except GateError:  # a metric that is defined for other users on each side
            continue
        if not len(candidate):
            continue
        # Columns per user are metrics, and NDCG once more for each slice.
        group = column.removeprefix(SLICE) if column.startswith(SLICE) else None
        result = difference(
            candidate,
            champion,
            tau_candidate=right.seed_sd,
            tau_champion=left.seed_sd,
            # The seed variance is divided by the fits: the smaller number is the cautious one.
            fits=min(left.fits, right.fits),
            min_users=gate.slice_users if group else gate.min_users,
            min_nonzero=gate.min_nonzero,
        )
        # The variance is NaN without a lift: one user, or a left mean of 0.
        has_lift = math.isfinite(result.v)
        half = NORMAL_95 * result.se if has_lift else 0.0
        no_level = result.underpowered == NO_LEVEL
        rows.append(
            PairedRow(
                name=metric_name(NDCG if group else column, k, group),
                users=result.n,
                left=result.champion,
                right=result.candidate,
                lift=result.x if has_lift else None,
                lo=result.x - half if has_lift else None,
                hi=result.x + half if has_lift else None,
                underpowered="the left mean is 0" if no_level else result.underpowered,
            )
        )
    return tuple(rows)


def split_of(version: Version) -> Split:
    """Return the split of a version's run."""
    return read_split(version.night.run)


def _estimate(metrics: Mapping[str, float], name: str) -> Estimate | None:
    if name not in metrics:
        return None
    users = metrics.get(f"{name.rpartition('.')[0]}.{USERS}") if "." in name else None
    low, high = metrics.get(f"{name}{_LOW}"), metrics.get(f"{name}{_HIGH}")
    return Estimate(metrics[name], low, high, None if users is None else int(users))
