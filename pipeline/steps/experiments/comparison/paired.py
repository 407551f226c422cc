"""Two versions on one footing: the same people, the same truth, scorers that saw none of it.

The scorers are those that the nights judged, trained before each holdout; what people see was
trained again on everything, the holdout included, and can be judged by no past day.

    same days        both nights were judged by one holdout:   their own values, person by person
    other days       ---[learnt by the older]---|              judged on the newer holdout by
                     ---[learnt by the newer]-------|[holdout)  `evaluate_stored`
    another recipe   the newer night trained the older's recipe, too: recipe against recipe
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import read_history, read_scorer, read_split, trained
from pipeline.workspace.versions import Version

HOLDOUT: Final = "holdout"
RECIPES: Final = "recipes"
_WORDS: Final = {NO_LEVEL: "the first of the two is at 0"}
_LOW, _HIGH = "_lo", "_hi"


def paired_comparisons(
    left: Version, right: Version, progress: Progress
) -> tuple[PairedComparison, ...]:
    """Compare two versions on every footing there is; one without rows says why there is none."""
    if same_holdout(left, right):
        return (_same_days(left, right),)
    older, newer = sorted((left, right), key=lambda x: (_split(x).cutoff, x.number))
    progress(f"judging version {older.number} on the holdout of version {newer.number}")
    return (_other_days(older, newer, left), *_recipes(older, newer, left))


def same_holdout(left: Version, right: Version) -> bool:
    """Say whether both nights were judged by the same people and the same truth."""
    first, second = _split(left), _split(right)
    same = (first.holdout, first.task) == (second.holdout, second.task)
    lengths = {x.night.config.recommend.length for x in (left, right)}
    return same and len(lengths) == 1 and first.truth.equals(second.truth)


def judged_on(version: Version) -> str:
    """Name the days that judged a version in its own night."""
    holdout = _split(version).holdout
    return f"{holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}"


def metrics(left: Version, right: Version) -> tuple[MetricRow, ...]:
    """Line up what each was worth in its own night, metric by metric."""
    first, second = _metrics(left), _metrics(right)
    names = [
        name
        for name in dict.fromkeys([*first, *second])
        if not name.endswith((_LOW, _HIGH, f".{USERS}"))
    ]
    return tuple(MetricRow(n, _estimate(first, n), _estimate(second, n)) for n in names)


def _same_days(left: Version, right: Version) -> PairedComparison:
    return PairedComparison(
        HOLDOUT,
        "On the same days",
        f"Both nights were judged by {judged_on(left)}: person by person.",
        _rows(_side(left, left.name), _side(right, right.name), right.night),
    )


def _other_days(older: Version, newer: Version, left: Version) -> PairedComparison:
    title = f"On the days that judged version {newer.number}"
    split, run = _split(newer), newer.night.run
    try:
        pair = evaluate_stored(
            read_scorer(older.night.run, train_step(older.name)),
            read_history(older.night.run, "train"),
            read_scorer(run, train_step(newer.name)),
            read_history(run, "train"),
            split,
            k=newer.night.config.recommend.length,
            segments=_segments(newer),
        )
    except NightjarError as error:
        return PairedComparison(
            HOLDOUT, title, f"They cannot be judged on one footing: {error.sentence}."
        )
    old, new = (
        _Side(pair.stored, _seed_sd(older, older.name)),
        _Side(pair.tonight, _seed_sd(newer, newer.name)),
    )
    rows = _rows(old, new, newer.night) if left is older else _rows(new, old, newer.night)
    about = (
        f"Both scorers as their nights judged them, on the people of {judged_on(newer)} whom both "
        f"know; version {older.number} learnt until {_split(older).cutoff:%Y-%m-%d}, version "
        f"{newer.number} until {split.cutoff:%Y-%m-%d}. "
    )
    alike = older.night.recipes[older.name].hash == newer.night.recipes[newer.name].hash
    about += (
        "The recipe is the same: this is what newer data are worth."
        if alike
        else ("Recipe and data both differ: the lift is of the two together.")
    )
    return PairedComparison(HOLDOUT, title, about, rows)


def _recipes(older: Version, newer: Version, left: Version) -> tuple[PairedComparison, ...]:
    """Compare the two recipes on the newer night's data, where that night trained both."""
    wanted = older.night.recipes[older.name].hash
    night = newer.night
    names = [n for n in trained(night) if night.recipes[n].hash == wanted and n != newer.name]
    if not names or wanted == night.recipes[newer.name].hash:
        return ()
    old, new = _side(newer, names[0]), _side(newer, newer.name)
    about = (
        f"The night of version {newer.number} trained the recipe of version {older.number} "
        f"({names[0]}) on its own data, too: recipe against recipe, person by person."
    )
    rows = _rows(old, new, night) if left is older else _rows(new, old, night)
    return (PairedComparison(RECIPES, "Recipe against recipe on the same data", about, rows),)


@dataclass(frozen=True)
class _Side:
    """Values per person, the spread of their mean over training seeds, and of how many fits."""

    users: pl.DataFrame
    seed_sd: float
    fits: int = 1


def _side(version: Version, recipe: str) -> _Side:
    """Return what a night found of a recipe."""
    run = version.night.run
    frame = run.frame("evaluate", f"users-{recipe}")
    return _Side(frame, _seed_sd(version, recipe), run.read(EvaluationFile).recipes[recipe].fits)


def _seed_sd(version: Version, recipe: str) -> float:
    """Return a recipe's spread as the gate takes it; a baseline rolls no dice."""
    night = version.night
    made = night.recipes[recipe]
    unknown = 0.0 if made.capabilities.baseline is not None else night.config.gate.default_seed_sd
    return night.snapshot.seed_sds.get(made.family, unknown)


def _rows(left: _Side, right: _Side, night: Night) -> tuple[PairedRow, ...]:
    """Compare two sides column by column, with the bounds of a night's gate."""
    gate, k = night.config.gate, night.config.recommend.length
    rows = []
    for column in left.users.columns:
        if column == c.USER_ID or column not in right.users.columns:
            continue
        try:
            candidate, champion = paired(right.users, left.users, column)
        except GateError:  # a metric that is defined for other people on each side
            continue
        if not len(candidate):
            continue
        result = difference(
            candidate,
            champion,
            tau_candidate=right.seed_sd,
            tau_champion=left.seed_sd,
            fits=min(left.fits, right.fits),
            min_users=gate.slice_users if column.startswith(SLICE) else gate.min_users,
            min_nonzero=gate.min_nonzero,
        )
        known = math.isfinite(result.v)
        half = NORMAL_95 * result.se if known else 0.0
        rows.append(
            PairedRow(
                name=_named(column, k),
                people=result.n,
                left=result.champion,
                right=result.candidate,
                lift=result.x if known else None,
                lo=result.x - half if known else None,
                hi=result.x + half if known else None,
                underpowered=_WORDS.get(result.underpowered or "", result.underpowered),
            )
        )
    return tuple(rows)


def _named(column: str, k: int) -> str:
    if column.startswith(SLICE):
        return metric_name(NDCG, k, column.removeprefix(SLICE))
    return metric_name(column, k)


def _split(version: Version) -> Split:
    return read_split(version.night.run)


def _metrics(version: Version) -> Mapping[str, float]:
    return version.night.run.read(EvaluationFile).recipes[version.name].metrics


def _estimate(metrics: Mapping[str, float], name: str) -> Estimate | None:
    if name not in metrics:
        return None
    people = metrics.get(f"{name.rpartition('.')[0]}.{USERS}") if "." in name else None
    return Estimate(
        metrics[name],
        metrics.get(f"{name}{_LOW}"),
        metrics.get(f"{name}{_HIGH}"),
        None if people is None else int(people),
    )


def _segments(version: Version) -> pl.DataFrame | None:
    users = version.night.run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
    return users if users.height else None
