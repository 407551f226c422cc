"""Events -> the three things a night learns from and is judged on, in the one right order.

Cleaning is learnt on the training window alone and applied to the rest, the split sees what was
cleaned, and the full window of the refit is cleaned with figures of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.data.clean.policies import CleanConfig, ColumnTreatment
from pipeline.data.clean.treat import CleanReport, apply, learn
from pipeline.data.feature_encoding import described
from pipeline.data.features import FeaturesConfig, cap_events, weigh
from pipeline.data.matrix import History, build_history
from pipeline.data.split import Split, SplitConfig, before, split

_WHERE = "clean.events"


@dataclass(frozen=True)
class WindowConfig:
    """Settings that decide what a window holds."""

    clean: CleanConfig
    features: FeaturesConfig
    split: SplitConfig


def cleaned(
    table: str, rows: pl.DataFrame, policies: Mapping[str, ColumnTreatment]
) -> tuple[pl.DataFrame, CleanReport]:
    """Clean a table of items or users by its policies; returns the rows and what was done."""
    return apply(rows, learn(rows, policies, where=f"clean.{table}"))


def parted(
    events: pl.DataFrame,
    as_of: datetime,
    config: WindowConfig,
    *,
    task: str | None,
    first: bool,
    holdout_days: int | None,
) -> Split:
    """Separate the holdout of one as-of instant from its training window.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`; rows at or after `as_of` are ignored.
    task
        Task of the previous run, used where the config says `auto`: an inferred task is kept, so
        that it does not change under a champion.
    first
        There is no champion: the longest possible holdout is used.
    holdout_days
        Holdout length of the previous run in days; the length never shrinks.
    """
    split_config = config.split
    if split_config.task == "auto" and task is not None:
        split_config = split_config.model_copy(update={"task": task})
    return split(
        events,
        as_of,
        split_config,
        first=first,
        holdout_days=holdout_days,
        rating_threshold=config.features.rating_threshold,
    )


def window(
    events: pl.DataFrame,
    end: datetime,
    config: WindowConfig,
    items: pl.DataFrame | None,
    users: pl.DataFrame | None,
) -> tuple[History, CleanReport]:
    """Clean, weigh and describe what lies before an instant; also return what cleaning did."""
    past = events.filter(before(end))
    rows, report = apply(past, learn(past, config.clean.events, where=_WHERE))
    return described(build_history(_weighed(rows, config), end), items, users), report


def of_people(events: pl.DataFrame, whole: pl.DataFrame, config: WindowConfig) -> pl.DataFrame:
    """Clean and weigh the events of some people as `window` does everybody's.

    Parameters
    ----------
    events
        What they did, until whenever. A kind that the config has no weight for, since it came
        later, says nothing.
    whole
        The events of the window that the figures of cleaning are learnt from.
    """
    known = events.filter(events[c.KIND].is_in(list(config.features.weights)))
    rows, _ = apply(known, learn(whole, config.clean.events, where=_WHERE))
    return _weighed(rows, config)


def _weighed(events: pl.DataFrame, config: WindowConfig) -> pl.DataFrame:
    return weigh(cap_events(events, config.features), config.features)
