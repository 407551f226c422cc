"""Checks of the users who return, and of the items that they take again.

Users who get new ids, or best sellers whose ids are exchanged, hardly change the number of events
or of active ids, and damage of the last days is in no evaluation. A user's own past shows it::

    as_of - 91 d                        - 28 d              - 7 d         as_of
          |<------ 63 days: the past ------>|<---------- last weeks -------->|
                                                               |<-- week --->|

* ``returning_users``: of the users with events in two weeks of the past, the share with an event in
  the last four weeks.
* ``known_users``: of the users of the last week, the share with an event in the past.
* ``repeated_items``: of the pairs of a known user and a popular item in the last week, the share
  that are pairs of the past as well. The popular items are those with a third of its events.

Guarantees: damage that is younger than four weeks is not in the past; a source without events in
these four weeks has ended and is not compared; where the usual share gives too few users or pairs,
or with too few weeks, a check does not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import polars as pl
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

_RECENT: Final = 4
"""Number of weeks between the past and as-of."""
_PAST: Final = 9
"""Number of weeks of the past."""
_POPULAR: Final = 1 / 3
DAYS: Final = WEEK * (_RECENT + _PAST + EARLIER)
"""Number of days before as-of whose events are read."""

_WORDS: Final = {
    "returning_users": "{n:,} users of earlier weeks have an event in the last 28 days",
    "known_users": "{n:,} users of the last 7 days have an event 28 to 91 days ago",
    "repeated_items": (
        "{n:,} pairs of a known user and a popular item in the last 7 days are pairs of 28 to 91 "
        "days ago as well"
    ),
}


class ReturnsConfig(Frozen):
    """Allowed fall of the shares of returning users, known users, and repeated items."""

    returning_users: float = Field(
        default=0.8,
        ge=0,
        lt=1,
        description="Minimum share of returning users, as a share of the usual one; 0: no check.",
    )
    known_users: float = Field(
        default=0.65,
        ge=0,
        lt=1,
        description="Minimum share of known users, as a share of the usual one; 0: no check.",
    )
    repeated_items: float = Field(
        default=0.75,
        ge=0,
        lt=1,
        description="Minimum share of repeated items, as a share of the usual one; 0: no check.",
    )
    min_expected: int = Field(
        default=200,
        ge=1,
        description="Minimum number of users or pairs that the usual share gives in a comparison.",
    )


def judge_returns(
    events: pl.DataFrame, as_of: datetime, blocked: Sequence[Interval], config: ReturnsConfig
) -> tuple[DataCheck, ...]:
    """Compare returning users, known users and repeated items with those of earlier weeks.

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
    The checks `returning_users`, `known_users` and `repeated_items`, each of the source with the
    lowest share.
    """
    rows = [
        row
        for row in usual_shares(events, as_of, blocked, _RECENT + _PAST, _returns)
        if row.usual * row.number >= config.min_expected
    ]
    bounds = config.model_dump()
    return tuple(
        share_check(
            name,
            [(row, _text(row)) for row in rows if row.name == name],
            bounds[name],
            f"too few weeks, users or pairs to compare {name.replace('_', ' ')}",
        )
        for name in _WORDS
    )


def _text(row: UsualShare) -> str:
    now, usual = row.texts
    words = _WORDS[row.name].format(n=row.number)
    return f"{now} of {words} (source {row.source}), {usual} usual"


def _returns(own: pl.DataFrame) -> Callable[[int], Shares] | None:
    """Return the function that measures the three shares."""
    # A source that has ended would fail until its last active weeks are no longer usual.
    if own.filter(pl.col(AGE) < _RECENT).is_empty():
        return None
    counts = own.group_by(c.USER_ID, c.ITEM_ID, AGE).len()
    return lambda week: _shares(counts, week)


def _shares(counts: pl.DataFrame, week: int) -> Shares:
    """Return the three shares at the end of a week; `counts` has a row per user, item and week."""
    age = pl.col(AGE) - week
    now = counts.filter(age == 0)
    past = counts.filter(age.is_between(_RECENT, _RECENT + _PAST - 1))
    recent = counts.filter(age.is_between(0, _RECENT - 1)).select(c.USER_ID).unique()
    often = past.group_by(c.USER_ID).agg(pl.col(AGE).n_unique()).filter(pl.col(AGE) > 1)
    users = past.select(c.USER_ID).unique()
    known = now.join(users, on=c.USER_ID, how="semi")
    pairs = known.join(_popular(past), on=c.ITEM_ID, how="semi").select(c.USER_ID, c.ITEM_ID)
    again = pairs.join(past, on=(c.USER_ID, c.ITEM_ID), how="semi")
    returned = often.join(recent, on=c.USER_ID, how="semi")
    return {
        "returning_users": _share(returned.height, often.height),
        "known_users": _share(known[c.USER_ID].n_unique(), now[c.USER_ID].n_unique()),
        "repeated_items": _share(again.height, pairs.height),
    }


def _share(count: int, number: int) -> tuple[float, int]:
    return count / max(number, 1), number


def _popular(past: pl.DataFrame) -> pl.DataFrame:
    """Return the items with the first third of the events, the most popular first."""
    ranked = past.group_by(c.ITEM_ID).agg(pl.col("len").sum())
    ranked = ranked.sort("len", c.ITEM_ID, descending=[True, False])
    above = pl.col("len").cum_sum() - pl.col("len")
    return ranked.filter(above < _POPULAR * pl.col("len").sum()).select(c.ITEM_ID)
