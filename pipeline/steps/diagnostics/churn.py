"""What a promotion does to the lists of people who did nothing, and how much of it is dice.

Promises: measured on the refit's own lists before they are put before anybody, once a night;
whatever cannot be measured is said in words and stops no night.

The lists of a night are made, and its MLflow run is closed, in this order: refit, cold check,
register, recommend. So the figures come from the cold check, which needs most of them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.errors import NightjarError
from pipeline.evaluation.fits import QUICK_SECONDS, same
from pipeline.models.contract import Scorer
from pipeline.serving.churn import DATA, RECIPE, STOCK, churn, idle, of_people
from pipeline.serving.publish import chain, of_chain, trim, unavailable, unpatched
from pipeline.serving.recommend import model_lists
from pipeline.steps.diagnostics.training_cost import read_cost
from pipeline.stores.runs import Run
from pipeline.workspace.history import Champion
from pipeline.workspace.memory import refuse_too_large
from pipeline.workspace.night import Night, read_events, read_pinned
from pipeline.workspace.run_files import promoted, read_history, read_scorer, read_split
from pipeline.workspace.workspace import Workspace

FILE: Final = "churn"
STEP: Final = "cold_check"
FIRST: Final = 10
"""Entries by which publications are likened; the whole list is beside it."""
_SALT: Final = 1


def measure(ws: Workspace, night: Night, tell: Progress) -> dict[str, Any] | None:
    """Hold the refit's lists against the live ones; ``None`` where nothing is live.

    Returns
    -------
    ``publication_id`` of the live lists, ``users``, ``at``: for the first `FIRST` entries and for
    the whole list what `Churn.to_dict` has, and ``dice``: ``rate``, the share of `FIRST` entries
    that another salt alone would change, and ``why`` in words where it was not measured, or there
    is none.
    """
    champion = night.champion
    if champion is None:
        return None
    tell("churn of people who did nothing")
    chained = chain(ws.lake.read("publications"), champion.publication_id)
    shown = ws.lake.read("recommendations", where=of_chain(chained))
    live = unpatched(shown, champion.publication_id)  # who was folded in did something
    events = read_events(ws, night, c.USER_ID, c.TIMESTAMP)
    history = History.from_arrays(night.run.arrays("refit", "history"))
    people = idle(live, events, champion.as_of, history.user_ids.tolist())
    length = night.config.recommend.length
    gone = unavailable(read_pinned(ws, night, "items"))
    repeat = read_split(night.run).policy == "repeat"
    rows = history.rows(np.flatnonzero(np.isin(history.user_ids, people)))

    def lists(scorer: Scorer) -> pl.DataFrame:
        return model_lists(scorer.score, rows, gone, repeat=repeat, length=length)

    scorer = read_scorer(night.run, "refit")
    fresh = lists(scorer) if people else live.clear()
    stock = trim(of_people(_longer(ws, champion, live), people), gone, length)
    rest = RECIPE if promoted(night)["kind"] == "switch" else DATA
    found = [
        churn(live, fresh, people, k=k, replays=[(STOCK, stock)], rest=rest)
        for k in sorted({FIRST, length})
    ]
    other = _salted(night, scorer, tell) if people else "not measured: nobody did nothing"
    dice: dict[str, Any] = {"rate": None, "why": other}
    if other is scorer:
        dice = {"rate": 0.0, "why": "no dice"}
    elif isinstance(other, Scorer):
        kept = churn(fresh, lists(other), people, k=FIRST).overlap
        dice = {"rate": None if kept is None else 1.0 - kept, "why": None}
    return {
        c.PUBLICATION_ID: champion.publication_id,
        "users": len(people),
        "at": {str(one.k): one.to_dict() for one in found},
        "dice": dice,
    }


def read_churn(run: Run) -> dict[str, Any] | None:
    """Return what `measure` found in a run; ``None`` where it promoted nothing or was the first."""
    if run.committed(STEP) is None or f"{FILE}.json" not in run.manifest(STEP)["files"]:
        return None
    told: dict[str, Any] = run.json(STEP, FILE)
    return told


def churn_metrics(run: Run) -> dict[str, float]:
    """Name a night's churn as metrics: overlaps, and of the first entries the causes and dice."""
    told = read_churn(run)
    if told is None:
        return {}
    at: Mapping[str, Any] = told["at"]
    named = {f"churn.overlap_at_{k}": found["overlap"] for k, found in at.items()}
    named |= {f"churn.{cause}": share for cause, share in at[str(FIRST)]["lost"].items()}
    named |= {"churn.users": float(told["users"]), "churn.dice": told["dice"]["rate"]}
    return {name: float(value) for name, value in named.items() if value is not None}


def _longer(ws: Workspace, champion: Champion, live: pl.DataFrame) -> pl.DataFrame:
    """Return the live lists with what stood behind them, while that run still has them."""
    run = ws.runs.open(champion.run_id)
    if run.committed("recommend") is None:
        return live
    return run.frame("recommend", "lists")


def _salted(night: Night, scorer: Scorer, tell: Progress) -> Scorer | str:
    """Train the refit's recipe with another salt; the scorer itself where that changes nothing.

    A sentence where it was not done.
    """
    name = promoted(night)["recipe"]
    cost = read_cost(night.run, "refit")
    if cost is None or cost.fit_seconds > QUICK_SECONDS:
        took = "an unknown time" if cost is None else f"{cost.fit_seconds:,.0f} s"
        return f"not measured: the refit took {took}, more than {QUICK_SECONDS:.0f} s"
    history, recipe = read_history(night.run, "full"), night.recipes[name]
    try:
        refuse_too_large(name, recipe, history, night.config.train)
        other = recipe.train(history, salt=_SALT, progress=lambda x: tell(f"dice: {x}"))
    except NightjarError as error:
        return f"not measured: {error.sentence}"
    return scorer if same(scorer, other) else other
