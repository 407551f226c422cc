"""Shares of the last week, compared with those of the same source in earlier weeks.

Guarantees: each source is compared with its own weeks, from the same snapshot; the usual share is
the median of at least four of the eight weeks before; a week counts if all days that it needs are
in the data, and if it does not lie inside holdouts of runs that were blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.matrix import US_PER_DAY
from pipeline.data.validate.checks import DataCheck, Status, verdict
from pipeline.number_text import share

AGE: Final = "age"
"""Column: number of complete weeks between an event and as-of."""
COLUMNS: Final = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.SOURCE)
WEEK: Final = 7
EARLIER: Final = 8
"""Number of earlier weeks that the last one is compared with."""
_LEAST_WEEKS: Final = 4

Shares = Mapping[str, tuple[float, int]]
"""Name -> share, and the number of users, items or pairs that it is a share of."""


@dataclass(frozen=True)
class UsualShare:
    """A share of the last week of a source, and its usual value.

    Attributes
    ----------
    number
        Number of users, items or pairs that it is a share of.
    """

    name: str
    source: str
    share: float
    number: int
    usual: float

    @property
    def texts(self) -> tuple[str, str]:
        """Share and usual share in percent."""
        return share(self.share), share(self.usual)


def usual_shares(
    events: pl.DataFrame,
    as_of: datetime,
    blocked: Sequence[Interval],
    weeks_needed: int,
    measure: Callable[[pl.DataFrame], Callable[[int], Shares] | None],
) -> Iterator[UsualShare]:
    """Yield the shares of the last week of each source that has enough earlier weeks.

    Parameters
    ----------
    events
        `COLUMNS`; rows at or after `as_of` are ignored.
    as_of
        End of the last week, whose number is 0.
    blocked
        Holdouts of runs that were blocked: weeks inside them are not usual.
    weeks_needed
        Number of weeks up to the end of a week whose events its shares need.
    measure
        Takes the events of a source with their `AGE`, and returns the shares at the end of a week
        by its number, or None for a source that is not compared.
    """
    end = round(as_of.timestamp() * 1e6)
    # An event at the start of a week belongs to it, one at its end to the next: hence the 1.
    age = (end - pl.col(c.TIMESTAMP).dt.epoch("us") - 1) // (WEEK * US_PER_DAY)
    rows = events.filter(pl.col(c.TIMESTAMP) < as_of).with_columns(age.alias(AGE))
    usual = [week for week in range(1, 1 + EARLIER) if not _inside(as_of, week, blocked)]
    for source in rows[c.SOURCE].unique().sort():
        own = rows.filter(pl.col(c.SOURCE) == source)
        first: Any = own[c.TIMESTAMP].min()
        complete = (as_of - first) // timedelta(days=WEEK)
        weeks = [week for week in usual if week + weeks_needed <= complete]
        shares = measure(own) if len(weeks) >= _LEAST_WEEKS else None
        if shares is None:
            continue
        earlier = [shares(week) for week in weeks]
        for name, (now, number) in shares(0).items():
            median = float(np.median([week[name][0] for week in earlier]))
            yield UsualShare(name, source, now, number, median)


def share_check(
    name: str, shares: Iterable[tuple[UsualShare, str]], least: float, absent: str
) -> DataCheck:
    """Return the check of the lowest of some shares.

    Parameters
    ----------
    name
        Name of the check.
    shares
        Shares with usual ones above 0, each with both in words.
    least
        Minimum share, as a share of the usual one.
    absent
        Sentence of a check without shares.
    """
    ratios = [(row.share / row.usual, text) for row, text in shares]
    if not ratios:
        return DataCheck(name, Status.NO_HISTORY, None, least, absent)
    ratio, text = min(ratios)
    text += f": {share(ratio)} of usual, {share(least)} at least"
    return DataCheck(name, verdict(ratio >= least), ratio, least, text)


def _inside(as_of: datetime, week: int, blocked: Sequence[Interval]) -> bool:
    """Return whether a week lies inside the union of blocked holdouts."""
    end = as_of - timedelta(days=WEEK * week)
    at = end - timedelta(days=WEEK)
    for block in sorted(blocked, key=lambda block: block.start):
        if block.start <= at:
            at = max(at, block.end)
    return at >= end
