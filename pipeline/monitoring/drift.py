"""Drift of data, of taste, and of the quality of live lists.

Guarantees: only the latest days are scored, and no event from `end` on is read; a drift that was
reported resets the reference of its signal, so that one change is one alarm.

`signals` lists the signals of events, `distance` has the z-score, `verdicts` the thresholds. The
signals ``quality.…`` compare live lists with those of earlier runs; only a loss counts. They do not
reset: the alarm stays until lists are better, or the reference runs are as low.
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
"""Share of the former level: with a threshold of 4, a loss of a tenth is never drift."""


@dataclass(frozen=True)
class QualityMean:
    """Quality of live lists on one day or nightly run.

    Attributes
    ----------
    se
        Standard error of `mean`, clustered by user; ``None`` if unknown.
    of
        Number of observations of `mean`: user-days, or list entries shown.
    users
        Number of users that these belong to.
    """

    mean: float
    se: float | None
    of: float
    users: int


@dataclass(frozen=True)
class Quality:
    """One measure of live lists, on recent days and in earlier nightly runs.

    Attributes
    ----------
    name
        Such as ``ndcg``; the signal is called ``quality.ndcg``.
    days
        The scored days, the latest first; ``None`` for a day with too few users.
    nights
        Earlier runs with enough users, in any order.
    together
        All scored days as one; ``None`` with too few users.
    """

    name: str
    days: tuple[QualityMean | None, ...]
    nights: tuple[QualityMean, ...]
    together: QualityMean | None = None


def windows_at(end: datetime, config: DriftConfig) -> DriftWindows:
    """Return the windows before an instant.

    Parameters
    ----------
    end
        End of the latest window, UTC.
    config
        Number of scored days, and of reference days.

    Returns
    -------
    DriftWindows
        Whole days of 24 hours.
    """
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
    """Compute every signal.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`; those outside the span of
        `windows_at(end, config)` are left out.
    items
        `item_id`, `price`, `categories`; items may be missing.
    known
        Users and items with events before the windows.
    qualities
        Measures of live lists.
    restarts
        Signal → start of a drift that was reported: its reference starts there.
    end
        End of the latest scored day, UTC.
    config
        Thresholds.

    Returns
    -------
    Drift
        All signals, and their combined status.
    """
    windows = windows_at(end, config)
    signals = Signals.of(events, items, known, restarts, windows, config)
    result = [*signals.measured(), *(_quality(quality, config) for quality in qualities)]
    return summed(end, [judge(measured, windows, config) for measured in result])


def _quality(quality: Quality, config: DriftConfig) -> Measured:
    """Return the distance of recent days from earlier runs, relative to their errors and spread."""
    name = f"quality.{quality.name}"
    before = np.array([night.mean for night in quality.nights])
    if len(before) < config.least_nights:
        return Measured(name, (), len(before), worse=-1)
    level, spread = robust(before)
    floor, between = QUALITY_FLOOR * level, _between(quality.nights)

    def z_score(span: QualityMean | None) -> float:
        if span is None:
            return math.nan
        # `or 1.0`: without any spread, error or level there is nothing to scale by.
        scale = math.sqrt(spread**2 + _error(span, between) + floor**2 or 1.0)
        return (span.mean - level) / scale

    days = [z_score(day) for day in quality.days]
    latest = quality.days[0]
    note = "" if latest is None else f" ({latest.mean:.4f}, usually {level:.4f})"
    return Measured(name, days, len(before), note, z_score(quality.together), worse=-1)


def _between(nights: Sequence[QualityMean]) -> float:
    """Return the variance of one observation, pooled over the runs with a standard error."""
    runs = [(night.se, night.of) for night in nights if night.se is not None]
    # A run without a standard error has no estimate of the variance.
    total = sum(of for _, of in runs)
    return sum((se * of) ** 2 for se, of in runs) / total if total else 0.0


def _error(day: QualityMean, between: float) -> float:
    """Return a day's squared error over its users and `MIN_GROUP_SIZE` users of earlier runs."""
    # The few users of a day may all have a value of 0 by chance, and then no variance of their own:
    # the added users vary as in earlier runs.
    # Weighted by users: the added ones have the variance of earlier runs.
    own = 0.0 if day.se is None else day.users * day.se**2
    return (own + MIN_GROUP_SIZE * between / day.of) / (day.users + MIN_GROUP_SIZE)
