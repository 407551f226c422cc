"""Drift: have data, taste or live quality moved away from what they were?

Promises: nothing before the latest days is judged, nothing after `end` is looked at; a signal that
drifted and was told begins its reference anew, so that one change is one alarm.

`signals` says what is followed, `distance` how far is far, `verdicts` how often. To these comes
``quality.…``: what live lists were worth, against earlier nights; only worse counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from pipeline.data.clustered import Mean
from pipeline.monitoring.distance import robust
from pipeline.monitoring.signals import Known, Signals
from pipeline.monitoring.verdicts import Drift, DriftConfig, Measured, judge, summed
from pipeline.monitoring.windows import Windows

QUALITY_FLOOR: Final = 0.025
"""Of the level before: with a bound of 4, a tenth less is never drift."""


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
    days: tuple[Mean | None, ...]
    nights: tuple[Mean, ...]


def windows_at(end: datetime, config: DriftConfig) -> Windows:
    """Return how time is cut before an instant."""
    return Windows(end, config.judged_days, config.reference_days)


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
    found = list(signals.measured())
    found += [_quality(one, windows, config) for one in qualities]
    return summed(end, [judge(one, config) for one in found])


def _quality(found: Quality, windows: Windows, config: DriftConfig) -> Measured:
    """Measure how far recent days lie from nights, beside their errors and the nights' spread."""
    name, starts = f"quality.{found.name}", tuple(map(windows.start, range(windows.recent)))
    before = np.array([night.mean for night in found.nights])
    if len(before) < config.least_nights:
        return Measured(name, (), starts, len(before), config.least_nights, worse=-1)
    level, spread = robust(before)
    floor = QUALITY_FLOOR * level
    days = [
        math.nan
        if day is None or day.se is None
        else (day.mean - level) / math.sqrt(spread**2 + day.se**2 + floor**2 or 1.0)
        for day in found.days
    ]
    latest = found.days[0]
    told = "" if latest is None else f" ({latest.mean:.4f} where {level:.4f} is usual)"
    return Measured(name, days, starts, len(before), config.least_nights, told, worse=-1)
