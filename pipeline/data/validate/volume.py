"""Is the volume of the last day, and of the last week, like that of the 28 days before?

Promises: a day is compared with the median of the same weekday, so that a quiet Sunday or one odd
week blocks nothing; the bound widens with the scatter that these 28 days show themselves, so that
bursty data is not judged like a grocer's. A day without events has a ratio near 0 and blocks where
like weekdays had events: a closed shop and a dead feed look the same from here.

::

    as_of - 29 d       - 22 d       - 15 d       - 8 d        - 1 d      as_of
          |·like·|            |·like·|     |·like·|     |·like·|     |·last·|
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

DAYS: Final = 29
"""Days that are counted: the last one and the 28 before."""
_WEEK: Final = 7


class VolumeConfig(Frozen):
    """How far the number of events may lie off."""

    day_factor: float = Field(
        default=2.5,
        gt=1,
        description="The last day may have so many times more or fewer events than like weekdays.",
    )
    week_factor: float = Field(
        default=1.5,
        gt=1,
        description="The last seven days may have so many times more or fewer than usual weeks.",
    )
    spreads: float = Field(
        default=4.0,
        ge=0,
        description="Both factors widen to so many standard deviations of the days' log volume.",
    )
    min_history_days: int = Field(
        default=7, ge=7, description="With fewer days before the last one, volume is not judged."
    )


def unjudged(status: Status, sentence: str) -> tuple[DataCheck, DataCheck]:
    """Return the checks `volume` and `volume_week` without figures."""
    return (
        DataCheck("volume", status, None, None, sentence),
        DataCheck("volume_week", status, None, None, sentence),
    )


def judge_volume(
    timestamps: pl.Series, as_of: datetime, config: VolumeConfig
) -> tuple[DataCheck, DataCheck]:
    """Compare the last day (`volume`) and the last seven days (`volume_week`) with the past.

    Parameters
    ----------
    timestamps
        Datetime (us, UTC) of all events of the last `DAYS` days, or of more; all before `as_of`.
    as_of
        Days are ``[as_of - j·24 h, as_of - (j - 1)·24 h)``. A day that began before the first
        event is not known as a whole and is left out.
    """
    counts = _count(timestamps, as_of)
    history = len(counts) - 1
    sentence = f"{max(history, 0)} whole days lie before the last one, too few to judge volume"
    day, week = unjudged(Status.NO_HISTORY, sentence)
    if history < config.min_history_days:
        return day, week
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
    """Events a day, last day first, of the days that are known as a whole."""
    first: Any = timestamps.min()
    known = 0 if first is None else min(DAYS, (as_of - first) // timedelta(days=1))
    end = round(as_of.timestamp() * 1e6)
    age = (end - timestamps.dt.epoch("us").to_numpy() - 1) // US_PER_DAY
    return np.bincount(age[(age >= 0) & (age < known)], minlength=known).astype(np.int64)


def _spread(past: NDArray[np.int64]) -> float:
    """Root mean square of log(events / usual events) over the past days, closed days left out.

    Usual = the median of like weekdays; with under two weeks, that of all days.
    """
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
    ratio = (now + 1) / (usual + 1)  # the 1 keeps a day without events comparable
    return DataCheck(
        name,
        verdict(1 / factor <= ratio <= factor),
        ratio,
        factor,
        f"the last {span} brought {now:,} events where {usual:,.0f} are usual: "
        f"{ratio:.2f} times as many, {1 / factor:.2f} to {factor:.2f} is allowed",
    )
