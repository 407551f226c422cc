"""Pairs of a user and an own item, as of any instant of a window.

Guarantees: pairs as of an instant come from events before it, and repurchases from events at or
after it: no event is on both sides. A pair whose events were all taken back is absent with all its
events.

::

    window        |------------------------------------------) end
    pairs as of   |-------------------) cut
    taken again                       [----block----)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.sparse_rows import find_sorted

HALF_LIVES = (7.0, 30.0, 90.0, 365.0)
"""Days after which an event counts half, one per row of `Pairs.own`."""
US_PER_DAY = 86_400_000_000
_ROUNDING = 1e-6
"""Share of the summed sizes of weights up to which a net weight is rounding: all was returned."""


@dataclass(frozen=True)
class Events:
    """Events sorted by pair, then time.

    Attributes
    ----------
    pair
        ``(n,)`` int64, row of the user · number of items + column of the item.
    at, weight
        ``(n,)`` int64 microseconds since 1970, and float32, see `History`.
    n_users, n_items
        Number of rows and columns.
    """

    pair: NDArray[np.int64]
    at: NDArray[np.int64]
    weight: NDArray[np.float32]
    n_users: int
    n_items: int

    @classmethod
    def of(cls, history: History) -> Events:
        """Sort the events of a window."""
        pair = history.user * np.int64(history.n_items) + history.item
        order = np.argsort(pair, kind="stable")  # the events of a user are in the order of time
        times, weights = history.timestamp_us[order], history.weight[order]
        return cls(pair[order], times, weights, history.n_users, history.n_items)

    def where(self, keep: NDArray[np.bool_]) -> Events:
        """Return some of the events."""
        return Events(self.pair[keep], self.at[keep], self.weight[keep], self.n_users, self.n_items)


@dataclass(frozen=True)
class Pairs:
    """Pairs as of an instant, in the order of users and items; ages count back from it.

    Attributes
    ----------
    user, item
        ``(n,)`` int32 row and column.
    first_at
        ``(n,)`` int64 microseconds since 1970: time of the user's first event of it.
    first, last
        ``(n,)`` float32 days since the user's first and last event of it; > 0.
    days
        ``(n,)`` int32 number of days (of 24 hours, back from the instant) on which they had it.
    own
        ``(len(HALF_LIVES), n)`` float32: sum of decayed weights, floor 0.
    user_days
        ``(n_users,)`` int32 number of days on which the user had any item.
    n_items
        Number of columns.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    first_at: NDArray[np.int64]
    first: NDArray[np.float32]
    last: NDArray[np.float32]
    days: NDArray[np.int32]
    own: NDArray[np.float32]
    user_days: NDArray[np.int32]
    n_items: int

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return len(self.user_days)

    @property
    def counts(self) -> NDArray[np.float32]:
        """``(n,)`` float32 row of `own` that replaces the trees: decayed by 90 days."""
        counts: NDArray[np.float32] = self.own[HALF_LIVES.index(90.0)]
        return counts


def pairs_at(events: Events, now: int) -> Pairs:
    """Return the pairs as of an instant.

    Parameters
    ----------
    events
        Events of the window.
    now
        Instant in microseconds since 1970; only events before it are read.
    """
    events = _kept(events.where(events.at < now))
    start = _starts(events.pair)
    age = (now - events.at) / US_PER_DAY
    own = [_summed(events.weight * np.exp2(-age / days), start) for days in HALF_LIVES]
    # Returns count in the sums above; days and ages are those of events of positive weight.
    gave = events.weight > 0
    events, age = events.where(gave), age[gave]
    start = _starts(events.pair)
    user, item = np.divmod(events.pair[start], events.n_items)
    day = age.astype(np.int64)
    # Events are sorted by pair and time, so a change of pair or day begins another day of a pair.
    another = np.append(True, (np.diff(events.pair) != 0) | (np.diff(day) != 0))[: len(day)]
    width = day.max(initial=0) + 1
    active = np.unique(events.pair[another] // events.n_items * width + day[another]) // width
    return Pairs(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        first_at=events.at[start],
        first=age[start].astype(np.float32),
        last=age[np.append(start[1:], len(age))[: len(start)] - 1].astype(np.float32),
        days=_summed(another, start).astype(np.int32),
        own=np.maximum(own, 0).astype(np.float32),
        user_days=np.bincount(active, minlength=events.n_users).astype(np.int32),
        n_items=events.n_items,
    )


def repurchases(
    events: Events, pairs: Pairs, since: int, until: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the items taken in ``[since, until)``.

    Parameters
    ----------
    events
        Events of the window.
    pairs
        Pairs as of `since`.
    since, until
        Microseconds since 1970.

    Returns
    -------
    ``(n_pairs,)`` bool: the user of a pair took its item; ``(n_users,)`` bool: the user took any
    item.
    """
    inside = (events.at >= since) & (events.at < until) & (events.weight > 0)
    taken = events.pair[inside]  # sorted
    _, again = find_sorted(taken, pairs.user.astype(np.int64) * pairs.n_items + pairs.item)
    came = np.zeros(events.n_users, bool)
    came[taken // events.n_items] = True
    return again, came


def _kept(events: Events) -> Events:
    """Leave out the events of pairs whose events were all taken back."""
    start = _starts(events.pair)
    net = _summed(events.weight, start)
    # Sums of floats that cancel leave a rest, so a net weight is compared with a small share.
    alive = net > _ROUNDING * _summed(np.abs(events.weight), start)
    return events.where(np.repeat(alive, np.diff(np.append(start, len(events.pair)))))


def _starts(pair: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first event of each pair."""
    return np.flatnonzero(np.diff(pair, prepend=-1))


def _summed(value: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the values of each pair, in float64."""
    if not len(start):  # `reduceat` needs an element
        return np.zeros(0)
    total: NDArray[np.float64] = np.add.reduceat(value, start, dtype=np.float64)
    return total
