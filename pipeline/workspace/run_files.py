"""Typed access to the files that steps write into a run."""

from __future__ import annotations

from typing import Any

from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.fits import FITS
from pipeline.evaluation.gate import Judged
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.families import load
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.history import PROMOTIONS
from pipeline.workspace.night import Night, decision_of, train_folder

FALLBACK = "decayed_popularity"
"""Recipe of the list for people we know nothing of."""


def promoted(night: Night) -> dict[str, Any]:
    """Return the decision; raises `GateError` where it promotes nothing."""
    decision = decision_of(night.run)
    if decision["kind"] not in PROMOTIONS:
        raise GateError(f"run {night.run.run_id} promotes nothing: {decision['sentence']}")
    return decision


def trained(night: Night) -> tuple[str, ...]:
    """Return the recipes that have a scorer, in the order of the night."""
    return tuple(name for name in night.recipes if _absence(night.run, name) is None)


def absences(night: Night) -> dict[str, str]:
    """Return why recipes of the night have no scorer, by name."""
    found = {name: _absence(night.run, name) for name in night.recipes}
    return {name: why for name, why in found.items() if why is not None}


def _absence(run: Run, name: str) -> str | None:
    if run.committed(train_folder(name)) is None:
        return "its training failed"
    absent = run.json(train_folder(name), "recipe").get("absent")
    return None if absent is None else str(absent)


def write_scorer(draft: Draft, name: str, recipe: Recipe, scorer: Scorer) -> None:
    """Write a scorer's arrays beside what it was made from."""
    draft.arrays("scorer", scorer.arrays())
    dumped = recipe.model_dump(mode="json")
    draft.json("recipe", {"name": name, "recipe": dumped, "trained_on": scorer.trained_on})


def read_scorer(run: Run, step: str, name: str = "scorer") -> Scorer:
    """Read a scorer that `write_scorer` wrote, or one of its further fits by name."""
    family = run.json(step, "recipe")["recipe"]["family"]
    return load(family, run.arrays(step, name))


def read_history(run: Run, name: str) -> History:
    """Read the ``train`` or the ``full`` window."""
    return History.from_arrays(run.arrays("features", name))


def read_split(run: Run) -> Split:
    """Read the holdout, its truth and its ratings."""
    rated = "ratings.parquet" in run.manifest("features")["files"]
    return Split.from_dict(
        run.json("features", "split"),
        run.frame("features", "truth"),
        run.frame("features", "ratings") if rated else None,
    )


def write_fits(draft: Draft, scorers: tuple[Scorer, ...]) -> None:
    """Write further fits beside the first one."""
    for salt, scorer in enumerate(scorers, start=1):
        draft.arrays(fit_name(salt), scorer.arrays())


def fit_names(run: Run, step: str) -> tuple[str, ...]:
    """Return the names of all fits of a step, the first one first."""
    written = run.manifest(step)["files"]
    return tuple(name for name in map(fit_name, range(FITS)) if f"{name}.npz" in written)


def fit_name(salt: int) -> str:
    """Name the file of a fit."""
    return f"scorer-{salt}" if salt else "scorer"


def judged(night: Night) -> tuple[Judged, ...]:
    """Return what the evaluation found of each trained recipe, as the gate takes it."""
    evaluation = night.run.json("evaluate", "evaluation")["recipes"]
    return tuple(
        Judged(
            name=name,
            recipe_hash=night.recipes[name].hash,
            rung=night.recipes[name].capabilities.baseline,
            users=night.run.frame("evaluate", f"users-{name}"),
            coverage=evaluation[name]["coverage"],
            k=night.config.recommend.length,
            fits=evaluation[name]["fits"],
            tau=night.taus.get(night.recipes[name].family),
        )
        for name in trained(night)
    )
