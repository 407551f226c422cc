"""Paired comparisons of two versions: the same users, the same ground truth, and no leak.

The scorers are those that the runs evaluated, trained before each holdout. The live model was
trained again on everything, the holdout included, so no past day can evaluate it.

    same holdout     both runs were evaluated on one holdout:    their own values per user
    other holdouts   ---[training window, older]---|             both on the newer holdout, by
                     ---[training window, newer]-------|[holdout)  `evaluate_stored`
    another recipe   the newer run trained the older's recipe, too: recipe against recipe

Guarantees: at least one comparison is returned, with rows or the reason for their absence; lifts
are those of the right version over the left one, whichever is older.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.split import Split
from pipeline.errors import GateError, NightjarError
from pipeline.evaluation.compare import NO_LEVEL, difference, paired
from pipeline.evaluation.evaluate import NDCG, SLICE, USERS, evaluate_stored, metric_name
from pipeline.evaluation.intervals import NORMAL_95
from pipeline.report.pair import Estimate, MetricRow, PairedComparison, PairedRow
from pipeline.workspace.artifacts import EvaluationFile, train_step
from pipeline.workspace.run_files import read_history, read_scorer, read_split, trained
from pipeline.workspace.versions import Version

HOLDOUT: Final = "holdout"
RECIPES: Final = "recipes"
_LOW, _HIGH = "_lo", "_hi"


def paired_comparisons(
    left: Version, right: Version, progress: Progress
) -> tuple[PairedComparison, ...]:
    """Compare two versions in every way that is free of leaks.

    Parameters
    ----------
    left, right
        Lifts are those of `right` over `left`.

    Returns
    -------
    At least one comparison; one without rows gives the reason in `about`.
    """
    if same_holdout(left, right):
        return (
            PairedComparison(
                HOLDOUT,
                "On the same holdout",
                f"Both runs were evaluated on {evaluated_on(left)}: paired by user.",
                _rows([_side(left, left.name), _side(right, right.name)], right),
            ),
        )
    # Only the newer holdout lies after the training windows of both scorers.
    older, newer = sorted((left, right), key=lambda x: (_split(x).cutoff, x.number))
    progress(f"evaluating version {older.number} on the holdout of version {newer.number}")
    swapped = newer is left
    return (_on_newer_holdout(older, newer, swapped), *_recipes(older, newer, swapped))


def same_holdout(left: Version, right: Version) -> bool:
    """Return whether both runs have the same holdout, task, ground truth and list length.

    Parameters
    ----------
    left, right
        In any order.
    """
    first, second = _split(left), _split(right)
    same = (first.holdout, first.task) == (second.holdout, second.task)
    lengths = {version.night.config.recommend.length for version in (left, right)}
    return same and len(lengths) == 1 and first.truth.equals(second.truth)


def evaluated_on(version: Version) -> str:
    """Write the days of a version's own holdout."""
    holdout = _split(version).holdout
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


def _on_newer_holdout(older: Version, newer: Version, swapped: bool) -> PairedComparison:
    title = f"On the holdout of version {newer.number}"
    split, run, before = _split(newer), newer.night.run, older.night.run
    users = run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
    try:
        pair = evaluate_stored(
            read_scorer(before, train_step(older.name)),
            read_history(before, "train"),
            read_scorer(run, train_step(newer.name)),
            read_history(run, "train"),
            split,
            k=newer.night.config.recommend.length,
            segments=users if users.height else None,
        )
    except NightjarError as error:
        return PairedComparison(HOLDOUT, title, f"No paired comparison: {error.sentence}.")
    sides = [
        _Side(pair.stored, _seed_sd(older, older.name)),
        _Side(pair.tonight, _seed_sd(newer, newer.name)),
    ]
    same = older.night.recipes[older.name].hash == newer.night.recipes[newer.name].hash
    about = (
        f"Both scorers of the evaluations, on the users of {evaluated_on(newer)} in both; "
        f"version {older.number} was trained until {_split(older).cutoff:%Y-%m-%d}, version "
        f"{newer.number} until {split.cutoff:%Y-%m-%d}. "
        + ("Same recipe: the lift is that of newer data." if same else "Recipe and data differ.")
    )
    return PairedComparison(HOLDOUT, title, about, _rows(sides, newer, swapped))


def _recipes(older: Version, newer: Version, swapped: bool) -> tuple[PairedComparison, ...]:
    """Compare the two recipes on the newer run's data, where that run trained both."""
    wanted, night = older.night.recipes[older.name].hash, newer.night
    names = [n for n in trained(night) if night.recipes[n].hash == wanted and n != newer.name]
    if not names or wanted == night.recipes[newer.name].hash:
        return ()
    sides = [_side(newer, names[0]), _side(newer, newer.name)]
    about = (
        f"The run of version {newer.number} also trained the recipe of version {older.number} "
        f"({names[0]}) on its own data: paired by user."
    )
    title, rows = "Recipe against recipe on the same data", _rows(sides, newer, swapped)
    return (PairedComparison(RECIPES, title, about, rows),)


@dataclass(frozen=True)
class _Side:
    """Values per user, the relative SD of their mean over seeds, and the number of fits."""

    users: pl.DataFrame
    seed_sd: float
    fits: int = 1


def _side(version: Version, recipe: str) -> _Side:
    """Read the evaluation of a recipe by a version's run."""
    run = version.night.run
    frame = run.frame("evaluate", f"users-{recipe}")
    return _Side(frame, _seed_sd(version, recipe), run.read(EvaluationFile).recipes[recipe].fits)


def _seed_sd(version: Version, name: str) -> float:
    """Return a recipe's seed SD as the gate takes it; baselines have no randomness."""
    night = version.night
    recipe = night.recipes[name]
    baseline = recipe.capabilities.baseline is not None
    unknown = 0.0 if baseline else night.config.gate.default_seed_sd
    return night.snapshot.seed_sds.get(recipe.family, unknown)


def _rows(sides: Sequence[_Side], version: Version, swapped: bool = False) -> tuple[PairedRow, ...]:
    """Compare two sides column by column, with the bounds of the version's gate."""
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


def _split(version: Version) -> Split:
    return read_split(version.night.run)


def _estimate(metrics: Mapping[str, float], name: str) -> Estimate | None:
    if name not in metrics:
        return None
    users = metrics.get(f"{name.rpartition('.')[0]}.{USERS}") if "." in name else None
    low, high = metrics.get(f"{name}{_LOW}"), metrics.get(f"{name}{_HIGH}")
    return Estimate(metrics[name], low, high, None if users is None else int(users))
