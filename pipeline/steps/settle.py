"""What a recipe leaves to the data, chosen on windows that end before the holdout begins.

Promises: nothing of the holdout is looked at; what was chosen once is found again in the ledger and
stays, until something else has passed the gate; a history too short for a window leaves the
defaults, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, parse_instant
from pipeline.data.split import UNDERPOWERED, Split, before
from pipeline.errors import DataError
from pipeline.evaluation.trials import EarlierWindows, Window
from pipeline.models.contract import Recipe
from pipeline.models.families import recipe_from
from pipeline.steps.champion import DECISION
from pipeline.steps.config import Config
from pipeline.steps.night import Night, read_events
from pipeline.steps.run import Workspace
from pipeline.steps.windows import windows

WINDOWS = 3
"""Disjoint windows before the holdout; a choice must pay on most of them."""


def settled(ws: Workspace, night: Night, recipe: Recipe, split: Split, tell: Progress) -> Recipe:
    """Return a recipe that leaves nothing open, as `earlier` windows choose it."""
    if not recipe.open:
        return recipe
    events = read_events(ws, night, c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
    found = list(earlier(events, split.cutoff, night.config, split.policy))
    if not found:
        tell("no window lies before the holdout: every open field keeps its default")
    return recipe.settle(EarlierWindows(found, night.config.recommend.length, tell), tell)


def earlier(events: pl.DataFrame, until: datetime, config: Config, policy: str) -> Iterator[Window]:
    """Yield the windows before an instant, newest first, that enough people judge."""
    end = until
    for _ in range(WINDOWS):
        past = events.filter(before(end))
        try:
            made = windows(past, end, config, policy=policy, first=False, block_days=None)
        except DataError:  # nothing lies before its cutoff
            return
        if UNDERPOWERED in made.split.flags:
            return
        yield Window.of(made.train, made.split, until)
        end -= timedelta(days=made.split.block_days)


def recalled(
    recipes: Mapping[str, Recipe], entries: Iterable[Mapping[str, Any]], as_of: datetime
) -> dict[str, Recipe]:
    """Put what earlier nights chose for a recipe in its place."""
    known: dict[str, Any] = {}
    lines = [e for e in entries if e["type"] == DECISION and parse_instant(e["as_of"]) < as_of]
    for line in sorted(lines, key=lambda entry: parse_instant(entry["as_of"])):
        known |= line.get("settled", {})
    return {n: recipe_from(known[r.hash]) if r.hash in known else r for n, r in recipes.items()}


def choices(night: Night) -> dict[str, Any]:
    """Return what this night chose, by the hash of the recipe that left it open."""
    return {
        asked.hash: night.recipes[name].model_dump(mode="json")
        for name, asked in night.asked.items()
        if asked.open and not night.recipes[name].open
    }
