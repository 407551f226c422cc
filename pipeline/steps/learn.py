"""The night's learning: train every recipe on what lies before the holdout, refit the winner.

A recipe that fails leaves the others compared; the champion's own recipe failing stops the night.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.data.split import Split
from pipeline.errors import ConfigError, GateError, NightjarError
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.families import load
from pipeline.serving.recommend import fallback_list
from pipeline.steps import fits
from pipeline.steps.champion import PROMOTIONS
from pipeline.steps.cost import fit, write_cost
from pipeline.steps.memory import refuse_too_large
from pipeline.steps.night import Night, decision_of, open_night, train_folder
from pipeline.steps.run import Workspace
from pipeline.steps.settle import settled
from pipeline.stores.runs import Draft, Ref, Run

CANARIES = 100
"""Users whose lists a fresh process must repeat."""
FALLBACK = "decayed_popularity"
"""Recipe of the list for people we know nothing of."""


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
        fits.write(draft, more)
        write_cost(draft, cost)
        draft.rows = history.n_users
    return night.run.ref(step)


def refit(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Train the promoted recipe, and the fallback, on everything up to the as-of."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("refit")) is not None:
        return ref
    decision = promoted(night)
    name = decision["recipe"]
    recipe = night.recipes[name]
    history, split = read_history(night.run, "full"), read_split(night.run)
    scorer, cost = fit(name, recipe, history, night.config.train, lambda x: progress(f"refit: {x}"))
    history = history.over(scorer.item_ids)  # from here on the catalogue is the champion's
    fallback = night.recipes[FALLBACK].train(history)
    canaries = np.linspace(0, history.n_users - 1, min(CANARIES, history.n_users)).astype(np.int64)
    anyone = fallback_list(fallback, history, night.config.recommend.length)
    with night.run.draft("refit") as draft:
        write_scorer(draft, name, recipe, scorer)
        write_cost(draft, cost)
        draft.arrays("fallback", fallback.arrays())
        draft.json(
            "meta",
            {
                "family": recipe.model_dump()["family"],
                "exclude_seen": split.policy == "discovery",
                "fallback": [{c.ITEM_ID: item, c.SCORE: score} for item, score in anyone],
            },
        )
        draft.arrays("history", history.arrays())
        draft.arrays("canaries", canary_lists(scorer, history, canaries, night, split))
        draft.rows = history.n_users
    failpoint("refit")
    return night.run.ref("refit")


def canary_lists(
    scorer: Scorer, history: History, rows: np.ndarray[Any, Any], night: Night, split: Split
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the lists of a few users as arrays: rows, indptr, item, score."""
    from pipeline.models.topk import top_k

    part = history.rows(rows)
    exclude = part.seen if split.policy == "discovery" else None
    lists = top_k(scorer.score(part), night.config.recommend.length, exclude=exclude)
    return {"rows": rows, "indptr": lists.indptr, "item": lists.item, "score": lists.score}


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


def _commit_absent(run: Run, step: str, why: str) -> Ref:
    with run.draft(step) as draft:
        draft.json("recipe", {"absent": why})
    return run.ref(step)


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
