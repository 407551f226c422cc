"""Drift: have data, taste or live quality moved away from what they were?

Promises: nothing before the latest days is judged, nothing after `end` is looked at; what was told
of the events begins its reference anew, so that one change is one alarm.

`signals` says what is followed, `distance` how far is far, `verdicts` how often. To these comes
``quality.…``: what live lists were worth, against earlier nights; only worse counts, and it is told
until lists are better or the nights themselves are no better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.monitoring.distance import robust
from pipeline.monitoring.drift_windows import DriftWindows
from pipeline.monitoring.signals import Known, Signals
from pipeline.monitoring.verdicts import Drift, DriftConfig, Measured, judge, summed

QUALITY_FLOOR: Final = 0.025
"""Of the level before: with a bound of 4, a tenth less is never drift."""


@dataclass(frozen=True)
class QualityMean:
    """What live lists were worth to the people of one day or night.

    Attributes
    ----------
    se
        Standard error of `mean`, clustered by person; ``None`` where it is not known.
    of
        How many things `mean` is the mean of: days of people, or entries that they were shown.
    people
        How many people these belong to.
    """

    mean: float
    se: float | None
    of: float
    people: int


@dataclass(frozen=True)
class Quality:
    """One measure of live lists: what recent days reached, and nights before them.

    Attributes
    ----------
    name
        Such as ``ndcg``; the signal is called ``quality.ndcg``.
    days
        The judged days, the latest first; ``None`` for one that too few people could judge.
    nights
        Earlier nights that were judged by enough people, in any order.
    """

    name: str
    days: tuple[QualityMean | None, ...]
    nights: tuple[QualityMean, ...]


def windows_at(end: datetime, config: DriftConfig) -> DriftWindows:
    """Return how time is cut before an instant."""
    return DriftWindows(end, config.scored_days, config.reference_days)


def drift(
    events: pl.DataFrame,
    items: pl.DataFrame,
    known: Known,
    qualities: Sequence[Quality],
    restarts: Mapping[str, datetime],
    *,
    end: datetime,
    config: DriftConfig,
) -> Drift:
    """Judge every signal.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`; those outside the span of
        `windows_at(end, config)` are left out.
    items
        `item_id`, `price`, `categories`; may lack some.
    restarts
        Signal → the start of a drift that was told before: its reference begins there.
    """
    windows = windows_at(end, config)
    signals = Signals.of(events, items, known, restarts, windows, config)
    result = [*signals.measured(), *(_quality(quality, config) for quality in qualities)]
    return summed(end, [judge(one, windows, config) for one in result])


def _quality(quality: Quality, config: DriftConfig) -> Measured:
    """Measure how far recent days lie from nights, beside their errors and the nights' spread."""
    name = f"quality.{quality.name}"
    before = np.array([night.mean for night in quality.nights])
    if len(before) < config.least_nights:
        return Measured(name, (), len(before), worse=-1)
    level, spread = robust(before)
    floor, between = QUALITY_FLOOR * level, _between(quality.nights)
    days = [
        math.nan
        if day is None
        else (day.mean - level) / math.sqrt(spread**2 + _error(day, between) + floor**2 or 1.0)
        for day in quality.days
    ]
    latest = quality.days[0]
    note = "" if latest is None else f" ({latest.mean:.4f} where {level:.4f} is usual)"
    return Measured(name, days, len(before), note, worse=-1)


def _between(nights: Sequence[QualityMean]) -> float:
    """Return the variance of one thing, pooled over the nights that know theirs."""
    known = [(night.se, night.of) for night in nights if night.se is not None]
    total = sum(of for _, of in known)
    return sum((se * of) ** 2 for se, of in known) / total if total else 0.0


def _error(day: QualityMean, between: float) -> float:
    """Return a day's squared error, as if `MIN_GROUP_SIZE` more differed as nights' people do.

    The few people of a day may all be worth nothing by chance, and then have no error of their own.
    """
    own = 0.0 if day.se is None else day.people * day.se**2
    return (own + MIN_GROUP_SIZE * between / day.of) / (day.people + MIN_GROUP_SIZE)
