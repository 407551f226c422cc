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

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.errors import NightjarError
from pipeline.evaluation.evaluate import evaluate_stored
from pipeline.report.pair import PairedComparison
from pipeline.steps.reporting.paired_rows import (
    HOLDOUT,
    Side,
    evaluated_on,
    evaluated_side,
    paired_rows,
    recipe_comparison,
    same_holdout,
    seed_sd,
    split_of,
)
from pipeline.workspace.artifacts import train_step
from pipeline.workspace.run_files import read_history, read_scorer
from pipeline.workspace.versions import Version


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
                paired_rows(
                    [evaluated_side(left, left.name), evaluated_side(right, right.name)], right
                ),
            ),
        )
    # Only the newer holdout lies after the training windows of both scorers.
    older, newer = sorted((left, right), key=lambda x: (split_of(x).cutoff, x.number))
    progress(f"evaluating version {older.number} on the holdout of version {newer.number}")
    swapped = newer is left
    return (_on_newer_holdout(older, newer, swapped), *recipe_comparison(older, newer, swapped))


def _on_newer_holdout(older: Version, newer: Version, swapped: bool) -> PairedComparison:
    title = f"On the holdout of version {newer.number}"
    split, run, before = split_of(newer), newer.night.run, older.night.run
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
        Side(pair.stored, seed_sd(older, older.name)),
        Side(pair.tonight, seed_sd(newer, newer.name)),
    ]
    same = older.night.recipes[older.name].hash == newer.night.recipes[newer.name].hash
    about = (
        f"Both scorers of the evaluations, on the users of {evaluated_on(newer)} in both; "
        f"version {older.number} was trained until {split_of(older).cutoff:%Y-%m-%d}, version "
        f"{newer.number} until {split.cutoff:%Y-%m-%d}. "
        + ("Same recipe: the lift is that of newer data." if same else "Recipe and data differ.")
    )
    return PairedComparison(HOLDOUT, title, about, paired_rows(sides, newer, swapped))
