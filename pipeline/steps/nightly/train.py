"""Trains each recipe on the training window.

A recipe that fails is left out and the others are compared; a failure of the champion's own recipe
stops the run.

Guarantees: a recipe that does not fit into memory fails before it is trained; a failed recipe
commits nothing; one that does not apply to the task, or equals another one, commits the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.base import Progress, silent
from pipeline.data.features import WEIGHED
from pipeline.data.split import Split
from pipeline.data.windows import with_compact_ids
from pipeline.errors import ConfigError, NightjarError
from pipeline.evaluation import fits
from pipeline.evaluation.earlier_windows import earlier_windows
from pipeline.evaluation.trials import EarlierWindows
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe
from pipeline.models.selection import select_hyperparameters
from pipeline.steps.diagnostics.training_cost import fit
from pipeline.stores.runs import Ref
from pipeline.workspace.artifacts import AbsentFile, train_step
from pipeline.workspace.history import AGAIN
from pipeline.workspace.memory import refusal, refuse_too_large
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.run_files import read_history, read_split, write_fits, write_scorer
from pipeline.workspace.task_log import TaskLog, task_log
from pipeline.workspace.workspace import Workspace

_ABSENT = "lists exclude items that the user had before"


@dataclass(frozen=True)
class Failure:
    """A recipe that could not be trained; the run continues without it."""

    step: str
    sentence: str
    exit_code: int

    def text(self) -> str:
        """Return one line for a log."""
        return f"{self.step} failed: {self.sentence}"


def train(ws: Workspace, run_id: str, recipe: str, *, progress: Progress = silent) -> Ref | Failure:
    """Train one recipe on the training window, or record that it does not apply to this task.

    Parameters
    ----------
    ws, run_id
        Workspace and run.
    recipe
        Name of a recipe of the run.
    progress
        Receives short texts.

    Returns
    -------
    The committed folder, or the failure of a recipe other than the champion's.

    Raises
    ------
    ConfigError
        `recipe.unknown`: the run has no such recipe.
    NightjarError
        The champion's recipe failed.
    """
    night = open_night(ws, run_id)
    if recipe not in night.recipes:
        raise ConfigError(
            "recipe.unknown",
            f"unknown recipe {recipe!r} of run {run_id}. Allowed: {', '.join(night.recipes)}",
        )
    step = train_step(recipe)
    with task_log(step, night.as_of, run_id=run_id, progress=progress) as log:
        log.result = "committed before"
        if night.run.committed(step) is None and (failure := _train(night, recipe, log)):
            return failure
        ref = night.run.ref(step)
        log.rows = ref.rows
    return ref


def _train(night: Night, name: str, log: TaskLog) -> Failure | None:
    """Write the folder of a recipe; return the failure if it could not be trained."""
    recipe, split, config = night.recipes[name], read_split(night.run), night.config.train
    step = train_step(name)
    # A recipe that only lists items of the user's past has nothing to list in this task.
    if recipe.capabilities.repeats_only and split.task == "discovery":
        _leave_out(night, step, _ABSENT, log)
        return None
    history = read_history(night.run, "train")

    def report(text: str) -> None:
        log.progress(f"train {name}: {text}")
        failpoint("mid_train")

    try:
        # Before the search for hyperparameters, which trains the recipe many times.
        refuse_too_large(name, recipe, history, config)
        recipe = _select_hyperparameters(night, recipe, split, report)
        if same := _same(night, name, recipe):
            reason = f"its settings, selected again, are those of {same}"
            _leave_out(night, step, reason, log)
            return None
        scorer, cost = fit(name, recipe, history, config, report)
        more = fits.further(recipe, history, scorer, users=split.n_users, progress=report)
    except NightjarError as error:
        if name == night.champion_name:  # every comparison needs the champion's recipe
            raise
        log.result = f"failed: {error.sentence}"
        return Failure(step, error.sentence, error.exit_code)
    with night.run.draft(step) as draft:
        write_scorer(draft, name, recipe, scorer)
        write_fits(draft, more)
        draft.write(cost)
        draft.rows = history.n_users
    log.result = cost.text()
    return None


def _leave_out(night: Night, step: str, reason: str, log: TaskLog) -> None:
    """Write the reason that a recipe is not trained."""
    with night.run.draft(step) as draft:
        draft.write(AbsentFile(absent=reason))
    log.result = f"left out: {reason}"


def _same(night: Night, name: str, recipe: Recipe) -> str | None:
    """Return another recipe of the run that equals one that was selected again, or ``None``."""
    if not name.endswith(AGAIN):
        return None
    others = night.recipes.items()
    return next((x for x, other in others if x != name and other.hash == recipe.hash), None)


def _select_hyperparameters(
    night: Night, recipe: Recipe, split: Split, progress: Progress
) -> Recipe:
    """Return the recipe with hyperparameters selected on earlier windows."""
    if not recipe.has_free_params:
        return recipe
    config = night.config
    events = with_compact_ids(night.events(*WEIGHED))
    items, users = (night.run.frame("features", table) for table in ("items", "users"))
    earlier = earlier_windows(events, split.cutoff, config.windows, split.pinned, items, users)
    windows = list(earlier)
    if not windows:
        progress("no tuning window before the holdout: open hyperparameters keep their defaults")
    budget = config.train.search_budget
    trials = EarlierWindows(
        windows, config.recommend.length, progress, refusal(config.train), budget * 60
    )
    selected = select_hyperparameters(recipe, trials, progress)
    used = trials.spent / 60
    progress(f"selected: {used:.1f} of {budget:g} CPU minutes (train.search_budget) by estimate")
    return selected
