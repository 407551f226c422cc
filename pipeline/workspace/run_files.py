"""Typed access to the files that steps write into a run: scorers, windows, splits, evaluations.

Guarantees: each recipe of a run has either a scorer (`trained`) or a reason (`absences`), in the
order of the run; `promoted` raises for a run that promotes no recipe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import count

from pipeline.base import Interval
from pipeline.data.features import WEIGHED
from pipeline.data.matrix import History
from pipeline.data.split import Split, split_at
from pipeline.data.windows import window
from pipeline.errors import GateError
from pipeline.evaluation.fits import FITS
from pipeline.evaluation.gate import Decision, EarlierBlock, EvaluatedRecipe
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.families import load
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.artifacts import (
    REFIT,
    AbsentFile,
    CostFile,
    EarlierBlockFile,
    EvaluationFile,
    RecipeEvaluation,
    RecipeFile,
    SnapshotFile,
    SplitFile,
    train_step,
)
from pipeline.workspace.night import Night, decision_of, trained_recipes

FALLBACK = "decayed_popularity"
"""Recipe of the fallback list, for users without a history."""


def promoted(night: Night) -> Decision:
    """Return the decision; `gate.no_promotion` if it promotes no recipe."""
    decision = decision_of(night.run)
    if not decision.promotes:
        raise GateError(
            "gate.no_promotion",
            f"run {night.run_id} promotes no recipe: {decision.sentence}; start a nightly run with "
            "a later as-of, or override the gate with `nightjar gate accept`",
        )
    return decision


def trained(night: Night) -> tuple[str, ...]:
    """Return the recipes that have a scorer, in the order of the run."""
    return tuple(name for name in night.recipes if _absence(night.run, name) is None)


def absences(night: Night) -> dict[str, str]:
    """Return the recipes of the run that have no scorer: name -> reason."""
    reasons = {name: _absence(night.run, name) for name in night.recipes}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _absence(run: Run, name: str) -> str | None:
    # A task that failed commits nothing; a recipe that was left out commits its reason.
    if run.committed(train_step(name)) is None:
        return "its training failed"
    absent = run.find(AbsentFile, train_step(name))
    return None if absent is None else absent.absent


def write_scorer(draft: Draft, name: str, recipe: Recipe, scorer: Scorer) -> None:
    """Write ``scorer.npz`` and `RecipeFile`.

    Parameters
    ----------
    name, recipe
        Recipe with which the scorer was trained.
    """
    draft.arrays("scorer", scorer.arrays())
    draft.write(RecipeFile(name=name, recipe=recipe, trained_on=scorer.trained_on))


def read_scorer(run: Run, step: str, name: str = "scorer") -> Scorer:
    """Read a scorer that `write_scorer` or `write_fits` wrote.

    Parameters
    ----------
    step
        ``refit``, or `train_step` of the recipe.
    name
        Name of the fit (`fit_name`).
    """
    return load(run.read(RecipeFile, step).recipe.family, run.arrays(step, name))


def read_history(run: Run, name: str) -> History:
    """Read a window of the run.

    Parameters
    ----------
    name
        ``train`` or ``full``.
    """
    return History.from_arrays(run.arrays("features", name))


def read_split(run: Run) -> Split:
    """Read the holdout, its ground truth and its ratings."""
    # Data without ratings have no such frame.
    rated = "ratings.parquet" in run.manifest("features")["files"]
    return run.read(SplitFile).split(
        run.frame("features", "truth"),
        run.frame("features", "targets"),
        run.frame("features", "ratings") if rated else None,
    )


def read_block(night: Night, holdout: Interval, like: Split) -> tuple[Split, History | None]:
    """Separate other days of a run's events, and the training window before them.

    Parameters
    ----------
    holdout, like
        The days, and a split with the task.

    Returns
    -------
    tuple
        No window if fewer than `gate.min_users` users can be evaluated, because the gate compares
        nothing on fewer.
    """
    events, config = night.events(*WEIGHED), night.config
    split = split_at(events, holdout, like, config.features.rating_threshold)
    if split.n_users < config.gate.min_users:
        return split, None
    items, users = (night.run.frame("features", table) for table in ("items", "users"))
    history, _ = window(events, holdout.start, config.windows, items, users)
    return split, history


def training_costs(run: Run) -> dict[str, CostFile]:
    """Return the cost of each training: of recipes by name, of the refit as ``NAME (refit)``."""
    steps = {step.removeprefix(train_step("")): step for step in run.steps("train")}
    refit = run.find(RecipeFile, REFIT)
    if refit is not None:
        steps[f"{refit.name} ({REFIT})"] = REFIT
    costs = {name: run.find(CostFile, step) for name, step in steps.items()}
    return {name: cost for name, cost in costs.items() if cost is not None}


def write_fits(draft: Draft, scorers: tuple[Scorer, ...]) -> None:
    """Write the scorers of a recipe's further fits, which differ in their random numbers.

    Parameters
    ----------
    scorers
        Replicates 1, 2, ...; `write_scorer` writes replicate 0.
    """
    for replicate, scorer in enumerate(scorers, start=1):
        draft.arrays(fit_name(replicate), scorer.arrays())


def fit_names(run: Run, step: str) -> tuple[str, ...]:
    """Return the names of all fits of a step, by replicate.

    Parameters
    ----------
    step
        `train_step` of the recipe.
    """
    written = run.manifest(step)["files"]
    return tuple(name for name in map(fit_name, range(FITS)) if f"{name}.npz" in written)


def fit_name(replicate: int) -> str:
    """Name the arrays of a fit: ``scorer``, ``scorer-1``, ..."""
    return f"scorer-{replicate}" if replicate else "scorer"


def read_evaluated_recipes(
    run: Run, snapshot: SnapshotFile, names: Collection[str] | None = None
) -> tuple[EvaluatedRecipe, ...]:
    """Return the evaluations of recipes, in the form that the gate reads.

    Parameters
    ----------
    run, snapshot
        The run, and its snapshot.
    names
        Recipes, of which those without a scorer have no evaluation; default: all.
    """
    recipes, wanted = run.read(EvaluationFile).recipes, snapshot.recipes if names is None else names
    # In the order of the run.
    chosen = {name: recipes[name] for name in snapshot.recipes if name in {*recipes} & {*wanted}}
    return _evaluated(run, snapshot, "evaluate", chosen)


def earlier_step(number: int) -> str:
    """Return the folder of a run for an earlier block, by its number from 0."""
    return f"{EarlierBlockFile.STEP}/{number}"


def read_earlier_blocks(night: Night) -> tuple[EarlierBlock, ...]:
    """Return the earlier blocks that the run evaluated, oldest first."""
    blocks: list[EarlierBlock] = []
    for step in map(earlier_step, count()):
        if night.run.committed(step) is None:
            return tuple(blocks)
        file = night.run.read(EarlierBlockFile, step)
        blocks.append(
            EarlierBlock(
                file.holdout, file.users, _evaluated(night.run, night.snapshot, step, file.recipes)
            )
        )
    return ()


def _evaluated(
    run: Run, snapshot: SnapshotFile, step: str, evaluations: Mapping[str, RecipeEvaluation]
) -> tuple[EvaluatedRecipe, ...]:
    recipes = trained_recipes(run, snapshot)
    return tuple(
        EvaluatedRecipe(
            name=name,
            recipe_hash=recipes[name].hash,
            baseline_rank=recipes[name].capabilities.baseline,
            # Values per user, not means: the gate pairs recipes by user.
            users=run.frame(step, f"users-{name}"),
            coverage=evaluation.coverage,
            k=snapshot.config.recommend.length,
            fits=evaluation.fits,
            metrics=evaluation.metrics,
            seed_sd=snapshot.seed_sds.get(recipes[name].family),
        )
        for name, evaluation in evaluations.items()
    )
