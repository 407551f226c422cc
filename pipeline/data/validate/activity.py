"""Checks of the share of items and users that stay active from one week to the next.

The share is that of ids with an event in the last seven days, among the ids with one in the 28 days
before. If a feed loses half of its items, or users get new ids, it falls at once, while the number
of events may hardly change.

::

    as_of - 35 d                                     - 7 d        as_of
          |<------------ 28 days: ids that count ------->|<-- active -->|
                 the same a week earlier, and up to eight weeks earlier

Guarantees: each source is compared with its own earlier weeks, from the same snapshot; items are
compared within three bands of popularity with a third of the events each, so that best sellers do
not hide a loss of rare items; with too few ids or weeks the check does not fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from pipeline import columns as c
from pipeline import number_text
from pipeline.base import Frozen, Interval
from pipeline.data.matrix import US_PER_DAY
from pipeline.data.validate.checks import DataCheck, Status, verdict

_WEEK: Final = 7
_BEFORE: Final = 4
"""Number of weeks in which an id must have an event to count."""
_EARLIER: Final = 8
"""Number of earlier weeks that the last one is compared with."""
_LEAST_WEEKS: Final = 4
_BANDS: Final = ("popular", "medium", "rare")
DAYS: Final = _WEEK * (1 + _BEFORE + _EARLIER)
"""Number of days before as-of whose events are read."""
COLUMNS: Final = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.SOURCE)

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
        `COLUMNS` of at least the last `DAYS` days; rows at or after `as_of` are ignored.
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
    end = round(as_of.timestamp() * 1e6)
    # An event at the start of a week belongs to it, one at its end to the next: hence the 1.
    age = (end - pl.col(c.TIMESTAMP).dt.epoch("us") - 1) // (_WEEK * US_PER_DAY)
    rows = events.filter(pl.col(c.TIMESTAMP) < as_of).with_columns(age.alias(_AGE))
    unusual = [week for week in range(1, 1 + _EARLIER) if inside(as_of, week, blocked)]
    checks = []
    for name, column, least in (
        ("items", c.ITEM_ID, config.item_share),
        ("users", c.USER_ID, config.user_share),
    ):
        shares = [
            share
            for source in rows[c.SOURCE].unique().sort()
            for share in _shares(
                rows.filter(pl.col(c.SOURCE) == source), source, column, as_of, unusual, config
            )
        ]
        checks.append(_check(name, shares, least))
    return checks[0], checks[1]


_AGE: Final = "age"
_Share = tuple[float, str]
"""Active share ÷ usual active share, and both in words."""


def inside(as_of: datetime, week: int, blocked: Sequence[Interval]) -> bool:
    """Return whether a week lies inside the union of blocked holdouts.

    Parameters
    ----------
    as_of
        End of week 0.
    week
        Number of weeks before it.
    blocked
        Holdouts of runs that were blocked.
    """
    end = as_of - timedelta(days=_WEEK * week)
    at = end - timedelta(days=_WEEK)
    for block in sorted(blocked, key=lambda block: block.start):
        if block.start <= at:
            at = max(at, block.end)
    return at >= end


def _shares(
    rows: pl.DataFrame,
    source: str,
    column: str,
    as_of: datetime,
    unusual: Sequence[int],
    config: ActivityConfig,
) -> list[_Share]:
    first: Any = rows[c.TIMESTAMP].min()
    complete = (as_of - first) // timedelta(days=_WEEK)
    counts = _by_week(rows, column)
    # The weeks of the ids that count must be complete, too.
    weeks = [w for w in range(1, 1 + _EARLIER) if w + _BEFORE < complete and w not in unusual]
    if len(weeks) < _LEAST_WEEKS:
        return []
    bands = _BANDS if column == c.ITEM_ID else ("",)
    shares: list[_Share] = []
    tonight = _active(counts, 0, len(bands))
    earlier = [_active(counts, week, len(bands)) for week in weeks]
    for number, band in enumerate(bands):
        share, ids = tonight[number]
        usual = float(np.median([week[number][0] for week in earlier]))
        if ids >= config.min_ids and usual > 0:
            named = f"{band} items" if band else "users"
            text = (
                f"{number_text.share(share)} of {ids:,} {named} of source {source} have an event "
                f"in the last {_WEEK} days, {number_text.share(usual)} usual"
            )
            shares.append((share / usual, text))
    return shares


def _by_week(rows: pl.DataFrame, column: str) -> _Counts:
    """Count the events of each id and week, ``(ids, weeks)``, the last week first."""
    weeks = DAYS // _WEEK
    grouped = rows.filter(pl.col(_AGE).is_between(0, weeks - 1)).group_by(column, _AGE).len()
    names = grouped[column].rank("dense").to_numpy().astype(np.int64) - 1
    counts = np.zeros((int(names.max(initial=-1)) + 1, weeks), np.int64)
    counts[names, grouped[_AGE].to_numpy()] = grouped["len"].to_numpy()
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


def _check(name: str, shares: Sequence[_Share], least: float) -> DataCheck:
    rule = f"activity_{name}"
    if not shares:
        text = f"too few weeks or {name} to compare their activity"
        return DataCheck(rule, Status.NO_HISTORY, None, least, text)
    ratio, text = min(shares)
    text += f": ratio {ratio:.2f}, {least:.2f} at least"
    return DataCheck(rule, verdict(ratio >= least), ratio, least, text)
