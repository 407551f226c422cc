"""Lifts of the recipe that is live after a run.

    over the best baseline     tonight's scorer of the live recipe, over tonight's best baseline
    over the version before    the same scorer, over the stored scorer of the version that was live,
                               on the users and the ground truth that the gate uses for a refresh

Pages, terminal, Airflow and MLflow show these lifts.

Guarantees: lifts are those of the run's own evaluations, so equal files give equal lifts; one that
does not exist has a reason in its place.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from pipeline.evaluation.gate.rules import seed_sd_of
from pipeline.evaluation.lift import Lift, over_best_baseline, over_stored
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import REFIT, EvaluationFile, SnapshotFile
from pipeline.workspace.night import register_folder
from pipeline.workspace.release_artifacts import VersionFiguresFile
from pipeline.workspace.run_files import read_evaluated_recipes

REPLACED: Final = "replaced"
"""Frames of the refit of a switch: values of tonight's scorer, and of the one that it replaces."""
_NOT_EVALUATED: Final = "no evaluated recipe is live after this run"


def registered_figures(run: Run) -> VersionFiguresFile | None:
    """Return the lifts that `register` committed; None before it, or if its files are gone."""
    return run.find(VersionFiguresFile, register_folder(run))


def over_baseline(run: Run, snapshot: SnapshotFile, name: str | None) -> Lift | str:
    """Return the lift of a recipe over the best baseline, or the reason for its absence.

    Parameters
    ----------
    run, snapshot
        An evaluated run, and its snapshot.
    name
        A recipe of the run.
    """
    baselines = {
        other
        for other, recipe in snapshot.recipes.items()
        if recipe.capabilities.baseline is not None
    }
    judged = read_evaluated_recipes(run, snapshot, {*baselines, str(name)})
    own = next((recipe for recipe in judged if recipe.name == name), None)
    if own is None:
        return _NOT_EVALUATED
    return over_best_baseline(own, judged, snapshot.config.gate)


def over_version_before(run: Run, snapshot: SnapshotFile, name: str | None) -> Lift | str:
    """Return the lift of a recipe over the version before, or the reason for its absence.

    Parameters
    ----------
    run, snapshot, name
        As for `over_baseline`.
    """
    names = {str(name), str(snapshot.champion_name)}
    recipes = {row.name: row for row in read_evaluated_recipes(run, snapshot, names)}
    if name not in recipes:
        return _NOT_EVALUATED
    frames, gate = pair_with_version_before(run, snapshot, name), snapshot.config.gate
    if isinstance(frames, str):
        return frames
    replaced = recipes.get(str(snapshot.champion_name), recipes[name])
    number = str(snapshot.champion and snapshot.champion.model_version)
    seed_sds = seed_sd_of(recipes[name], gate), seed_sd_of(replaced, gate)
    return over_stored(*frames, number, seed_sds=seed_sds)


def pair_with_version_before(
    run: Run, snapshot: SnapshotFile, name: str
) -> tuple[pl.DataFrame, pl.DataFrame] | str:
    """Return the values of tonight's scorer and of the stored one of the version before, per user.

    Parameters
    ----------
    run, snapshot
        As for `over_baseline`.
    name
        Recipe of tonight's scorer.

    Returns
    -------
    tuple or str
        Both frames, or the reason why the two were not compared.
    """
    champion = snapshot.champion
    if champion is None:
        return "there is no version before this one"
    if name == snapshot.champion_name:
        references = run.read(EvaluationFile).references
        if references.last is None or references.last.run_id != champion.run_id:
            skipped = f"the scorer of version {champion.model_version} was not compared"
            return references.skipped or skipped
        step, prefix = "evaluate", "reference-last"
    else:
        step, prefix = REFIT, REPLACED
        if run.committed(REFIT) is None:
            return "the recipe has not been trained for its lists yet"
        if f"{prefix}-stored.parquet" not in run.manifest(step)["files"]:
            return (
                f"the scorer of version {champion.model_version} was trained on events of this "
                "holdout"
            )
    return run.frame(step, f"{prefix}-tonight"), run.frame(step, f"{prefix}-stored")
