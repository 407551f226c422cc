"""The night's learning: train every recipe on what lies before the holdout, refit the winner.

A recipe that fails leaves the others compared; the champion's own recipe failing stops the night.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.split import Split
from pipeline.errors import ConfigError, NightjarError
from pipeline.evaluation import fits
from pipeline.evaluation.earlier_windows import earlier
from pipeline.evaluation.trials import EarlierWindows
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe
from pipeline.models.selection import select_hyperparameters
from pipeline.steps.diagnostics.training_cost import fit, write_cost
from pipeline.stores.runs import Ref, Run
from pipeline.workspace.memory import refusal, refuse_too_large
from pipeline.workspace.night import Night, open_night, read_events, train_folder
from pipeline.workspace.run_files import read_history, read_split, write_fits, write_scorer
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class Failure:
    """A recipe that could not be trained; the others go on."""

    step: str
    sentence: str
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def text(self) -> str:
        """As a line for a person."""
        return f"{self.step} failed: {self.sentence}"


def train(ws: Workspace, run_id: str, recipe: str, *, progress: Progress = silent) -> Ref | Failure:
    """Train one recipe on the training window, or find out that it has no place in this task."""
    night = open_night(ws, run_id)
    step = train_folder(recipe)
    if recipe not in night.recipes:
        raise ConfigError(f"run {run_id} has no recipe {recipe!r}: {', '.join(night.recipes)}")
    if (ref := night.run.committed(step)) is not None:
        return ref
    chosen = night.recipes[recipe]
    split = read_split(night.run)
    if chosen.capabilities.repeats_only and split.policy == "discovery":
        return _commit_absent(night.run, step, "lists leave out what their user had before")
    history = read_history(night.run, "train")

    def tell(text: str) -> None:
        progress(f"train {recipe}: {text}")
        failpoint("mid_train")

    try:
        refuse_too_large(recipe, chosen, history, night.config.train)  # before any of it is tried
        chosen = settled(ws, night, chosen, split, tell)
        scorer, cost = fit(recipe, chosen, history, night.config.train, tell)
        seconds, users = cost.fit_seconds, split.n_users
        more = fits.further(chosen, history, scorer, users=users, seconds=seconds, progress=tell)
    except NightjarError as error:
        if recipe == night.champion_name:
            raise
        return Failure(step, error.sentence, error.exit_code)
    with night.run.draft(step) as draft:
        write_scorer(draft, recipe, chosen, scorer)
        write_fits(draft, more)
        write_cost(draft, cost)
        draft.rows = history.n_users
    return night.run.ref(step)


def _commit_absent(run: Run, step: str, why: str) -> Ref:
    with run.draft(step) as draft:
        draft.json("recipe", {"absent": why})
    return run.ref(step)


def settled(ws: Workspace, night: Night, recipe: Recipe, split: Split, tell: Progress) -> Recipe:
    """Return a recipe that leaves nothing open, as `earlier` windows choose it."""
    if not recipe.open:
        return recipe
    events = read_events(ws, night, c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
    items, users = (night.run.frame("features", table) for table in ("items", "users"))
    found = list(earlier(events, split.cutoff, night.config.windows, split.policy, items, users))
    if not found:
        tell("no window lies before the holdout: every open field keeps its default")
    refuse = refusal(night.config.train)
    trials = EarlierWindows(found, night.config.recommend.length, tell, refuse)
    return select_hyperparameters(recipe, trials, tell)
