"""Checks of the share of items and users that stay active from one week to the next.

The share is that of ids with an event in the last seven days, among the ids with one in the 28 days
before. If a feed loses half of its items, or users get new ids, it falls at once, while the number
of events may hardly change.

::

    as_of - 35 d                                     - 7 d        as_of
          |<------------ 28 days: ids that count ------->|<-- active -->|
                 the same a week earlier, and up to eight weeks earlier

Guarantees: items are compared within three bands of popularity with a third of the events each, so
that best sellers do not hide a loss of rare items; with too few ids or weeks the check does not
fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen, Interval
from pipeline.data.validate.checks import DataCheck
from pipeline.data.validate.usual_shares import (
    AGE,
    EARLIER,
    WEEK,
    Shares,
    UsualShare,
    share_check,
    usual_shares,
)

_BEFORE: Final = 4
"""Number of weeks in which an id must have an event to count."""
_BANDS: Final = ("popular items", "medium items", "rare items")
_USERS: Final = "users"
DAYS: Final = WEEK * (1 + _BEFORE + EARLIER)
"""Number of days before as-of whose events are read."""

_Counts = NDArray[np.int64]


class ActivityConfig(Frozen):
    """Allowed fall of the share of items and users that stay active."""

    item_share: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="Minimum share of active items, as a share of the usual one; 0: no check.",
    )
    user_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Minimum share of active users, as a share of the usual one; 0: no check.",
    )
    min_ids: int = Field(
        default=200, ge=1, description="Minimum number of items or users of a comparison."
    )


def judge_activity(
    events: pl.DataFrame, as_of: datetime, blocked: Sequence[Interval], config: ActivityConfig
) -> tuple[DataCheck, DataCheck]:
    """Compare the active items and users of the last week with those of earlier weeks.

    Parameters
    ----------
    events
        `usual_shares.COLUMNS` of at least the last `DAYS` days; rows at or after `as_of` are
        ignored.
    as_of
        End of the last week.
    blocked
        Holdouts of runs that were blocked: weeks inside them are not usual.
    config
        Minimum shares and numbers.

    Returns
    -------
    The checks `activity_items` and `activity_users`, each of the source and band with the lowest
    share.
    """
    rows = [
        row
        for row in usual_shares(events, as_of, blocked, 1 + _BEFORE, _activity)
        if row.number >= config.min_ids and row.usual > 0
    ]
    users = [row for row in rows if row.name == _USERS]
    return (
        _check("items", [row for row in rows if row.name != _USERS], config.item_share),
        _check("users", users, config.user_share),
    )


def _check(name: str, rows: Sequence[UsualShare], least: float) -> DataCheck:
    absent = f"too few weeks or {name} to compare their activity"
    return share_check(f"activity_{name}", [(row, _text(row)) for row in rows], least, absent)


def _text(row: UsualShare) -> str:
    now, usual = row.texts
    return (
        f"{now} of {row.number:,} {row.name} of source {row.source} have an event in the last "
        f"{WEEK} days, {usual} usual"
    )


def _activity(own: pl.DataFrame) -> Callable[[int], Shares]:
    """Return the function that measures the active share of each band of items, and of users."""
    items, users = _by_week(own, c.ITEM_ID), _by_week(own, c.USER_ID)

    def shares(week: int) -> Shares:
        bands = zip(_BANDS, _active(items, week, len(_BANDS)), strict=True)
        return {**dict(bands), _USERS: _active(users, week, 1)[0]}

    return shares


def _by_week(rows: pl.DataFrame, column: str) -> _Counts:
    """Count the events of each id and week, ``(ids, weeks)``, the last week first."""
    weeks = DAYS // WEEK
    grouped = rows.filter(pl.col(AGE).is_between(0, weeks - 1)).group_by(column, AGE).len()
    names = grouped[column].rank("dense").to_numpy().astype(np.int64) - 1
    counts = np.zeros((int(names.max(initial=-1)) + 1, weeks), np.int64)
    counts[names, grouped[AGE].to_numpy()] = grouped["len"].to_numpy()
    return counts


def _active(counts: _Counts, week: int, bands: int) -> list[tuple[float, int]]:
    """Return the active share and the number of ids in each band, the most popular first."""
    before = counts[:, week + 1 : week + 1 + _BEFORE].sum(axis=1)
    order = np.argsort(-before, kind="stable")
    order = order[before[order] > 0]
    # Each band has the same number of events; an id belongs where its first event lies.
    above = np.cumsum(before[order]) - before[order]
    band = above * bands // max(int(before.sum()), 1)
    active = counts[order, week] > 0
    return [
        (
            float(active[band == number].mean()) if (band == number).any() else 0.0,
            int((band == number).sum()),
        )
        for number in range(bands)
    ]
