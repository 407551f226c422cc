"""Checks of the last day's and the last week's number of events against the 28 days before.

Guarantees: a day is compared with the median of the same weekdays, so that a quiet Sunday or one
unusual week does not block; the bound widens with the scatter of these 28 days, so that irregular
data have wider bounds. A day without events has a ratio near 0 and blocks if the same weekdays had
events: the data do not show the difference between a closed shop and a failed feed.

::

    as_of - 29 d       - 22 d       - 15 d       - 8 d        - 1 d      as_of
          |·same·|            |·same·|     |·same·|     |·same·|     |·last·|
          |<--------------- 28 days: scatter ------------------->|
          .      |<-- a week -->|<-- a week -->|<-- a week -->|<- last week ->|
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Frozen
from pipeline.data.matrix import US_PER_DAY
from pipeline.data.validate.checks import DataCheck, Status, verdict
from pipeline.number_text import share

DAYS: Final = 29
"""Number of days that are counted: the last one and the 28 before."""
_WEEK: Final = 7


class VolumeConfig(Frozen):
    """Allowed deviations of the number of events."""

    day_factor: float = Field(
        default=2.5,
        gt=1,
        description="Maximum factor between the events of the last day and of the same weekdays, "
        "in both directions.",
    )
    week_factor: float = Field(
        default=1.5,
        gt=1,
        description="Maximum factor between the events of the last seven days and of the weeks "
        "before, in both directions.",
    )
    spreads: float = Field(
        default=4.0,
        ge=0,
        description="Both factors are at least e to the power of this number × the standard "
        "deviation of the days' log volume.",
    )
    min_history_days: int = Field(
        default=7,
        ge=7,
        description="Complete days that must lie before the last one; with fewer, volume is not "
        "checked.",
    )


def unjudged(status: Status, sentence: str) -> tuple[DataCheck, DataCheck]:
    """Return the checks `volume` and `volume_week` without figures.

    Parameters
    ----------
    status
        Status of both.
    sentence
        Reason in words.
    """
    return (
        DataCheck("volume", status, None, None, sentence),
        DataCheck("volume_week", status, None, None, sentence),
    )


def judge_volume(
    timestamps: pl.Series, as_of: datetime, config: VolumeConfig
) -> tuple[DataCheck, DataCheck]:
    """Compare the last day and the last seven days with the days before.

    Parameters
    ----------
    timestamps
        Datetime (us, UTC) of all events of at least the last `DAYS` days, all before `as_of`.
    as_of
        End of the last day; days are ``[as_of - j·24 h, as_of - (j - 1)·24 h)``. A day that began
        before the first event is incomplete and left out.
    config
        Factors and the minimum number of days.

    Returns
    -------
    The checks `volume` (last day) and `volume_week` (last seven days).
    """
    counts = _count(timestamps, as_of)
    history = len(counts) - 1
    sentence = f"{max(history, 0)} complete days lie before the last one, too few to compare"
    day, week = unjudged(Status.NO_HISTORY, sentence)
    if history < config.min_history_days:
        return day, week
    # The scatter is that of log volume, so the widened bound is a factor like the config's.
    scatter = math.exp(config.spreads * _spread(counts[1:]))
    day = _compare(
        "volume", "day", int(counts[0]), counts[_WEEK::_WEEK], max(config.day_factor, scatter)
    )
    weeks = counts[: len(counts) // _WEEK * _WEEK].reshape(-1, _WEEK).sum(axis=1)
    if len(weeks) > 1:
        factor = max(config.week_factor, scatter)
        week = _compare("volume_week", "seven days", int(weeks[0]), weeks[1:], factor)
    return day, week


def _count(timestamps: pl.Series, as_of: datetime) -> NDArray[np.int64]:
    """Count the events of each complete day, last day first."""
    first: Any = timestamps.min()
    complete = 0 if first is None else min(DAYS, (as_of - first) // timedelta(days=1))
    end = round(as_of.timestamp() * 1e6)
    # An event at the start of a day belongs to it, one at its end to the next: hence the 1.
    age = (end - timestamps.dt.epoch("us").to_numpy() - 1) // US_PER_DAY
    return np.bincount(age[(age >= 0) & (age < complete)], minlength=complete).astype(np.int64)


def _spread(past: NDArray[np.int64]) -> float:
    """Return the root mean square of log(events / usual events) over days with events."""
    # The usual number is the median of the same weekdays. Within two weeks most weekdays occur once
    # and would equal their own median, so there it is the median of all days.
    step = _WEEK if len(past) >= 2 * _WEEK else 1
    logs = [
        np.log(like[like > 0] / np.median(like))
        for like in (past[start::step] for start in range(step))
        if np.median(like) > 0
    ]
    scattered = np.concatenate(logs) if logs else np.zeros(0)
    return float(np.sqrt(np.mean(scattered**2))) if len(scattered) else 0.0


def _compare(name: str, span: str, now: int, before: NDArray[np.int64], factor: float) -> DataCheck:
    usual = float(np.median(before))
    ratio = (now + 1) / (usual + 1)  # the 1 gives days without events a finite ratio
    sentence = (
        f"{now:,} events in the last {span}, {usual:,.0f} usual: "
        f"{share(1 / factor)} to {share(factor)} of usual allowed"
    )
    bound = factor if ratio > 1 else 1 / factor
    return DataCheck(name, verdict(1 / factor <= ratio <= factor), ratio, bound, sentence)
