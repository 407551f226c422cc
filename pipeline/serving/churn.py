"""Churn: the share of list entries that stays from one publication to the next, and causes.

Measured for users without new events, whose lists should stay.

Guarantees: every entry that left has one cause, so the kept entries and the entries lost to each
cause add up to all entries. A cause is measured by a replay (the lists as they would be if only
that cause had acted).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c

FIRST: Final = 10
"""Number of entries that are always compared, whatever the length of the lists."""
STOCK: Final = "stock"
RECIPE: Final = "recipe"
DATA: Final = "data"
LEAST_OVERLAP: Final = 0.5
"""Least overlap with the live lists while too few earlier refreshes are known."""
EARLIER: Final = 8
"""Number of earlier refreshes that an overlap is compared with, at most."""
LEAST_EARLIER: Final = 4
"""Number of earlier refreshes from which they are compared with."""
_MARGIN: Final = 0.08
_ERRORS: Final = 4.0
_USER_SD: Final = 0.25
"""SD of the overlap from user to user."""
_MAD_TO_SD: Final = 1.4826


@dataclass(frozen=True)
class ChurnShares:
    """Comparison of the first `k` entries of some users' lists.

    Attributes
    ----------
    users
        Users compared.
    entries, kept
        Entries that they had, and how many of these are among the first `k` again.
    overlap
        Share of the entries kept; ``None`` without entries.
    lost
        Share of the entries lost to each cause; with `overlap` they add up to 1. A cause that was
        measured and took no entry is 0.
    """

    users: int
    entries: int
    kept: int
    overlap: float | None
    lost: Mapping[str, float]


def idle(live: pl.DataFrame, events: pl.DataFrame, since: datetime) -> list[str]:
    """Return the users without events since an instant who have a list of the model.

    Users who are not in the new model are included: they lose their whole list.

    Parameters
    ----------
    live
        The live lists, rows of `columns.RECOMMENDATIONS`. Users with the fallback list are left
        out: it is one list for many users and follows the events of all of them.
    events
        `user_id`, `timestamp`.
    since
        As-of of the live publication.

    Returns
    -------
    User ids, sorted.
    """
    busy = set(events.filter(pl.col(c.TIMESTAMP) >= since)[c.USER_ID])
    modelled = set(live.filter(pl.col(c.SLOT) == c.Slot.MODEL.value)[c.USER_ID])
    return sorted(modelled - busy)


def lists_of_users(lists: pl.DataFrame, users: Collection[str]) -> pl.DataFrame:
    """Select the lists of some users.

    Parameters
    ----------
    lists
        Any columns with `user_id`.
    users
        User ids, in any order.

    Returns
    -------
    The rows of `lists` that belong to `users`, in their order.
    """
    wanted = pl.DataFrame({c.USER_ID: sorted(users)}, schema={c.USER_ID: pl.String})
    return lists.join(wanted, on=c.USER_ID, how="semi")


def churn(
    before: pl.DataFrame,
    after: pl.DataFrame,
    users: Collection[str],
    *,
    k: int,
    replays: Iterable[tuple[str, pl.DataFrame]] = (),
    rest: str = DATA,
) -> ChurnShares:
    """Compare two publications for some users.

    Parameters
    ----------
    before, after
        `user_id`, `position`, `item_id`.
    k
        Number of entries of each list that are compared.
    replays
        Pairs of a cause and the lists as they would be if it alone had acted on `before`. An entry
        that is not among the first `k` of a replay was lost to that cause; the first such replay
        counts.
    rest
        Cause of all other lost entries.

    Returns
    -------
    Counts, overlap, and the shares lost by cause.
    """

    def first(lists: pl.DataFrame) -> pl.DataFrame:
        entries = lists_of_users(lists.filter(pl.col(c.POSITION) <= k), users)
        return entries.select(c.USER_ID, c.ITEM_ID)

    mine, now = first(before), first(after)
    left = mine.join(now, on=mine.columns, how="anti")
    entries, kept = mine.height, mine.height - left.height
    lost = {}
    for cause, lists in replays:
        # Entries that the replay keeps go on to the next cause, so each entry has one cause.
        stays = left.join(first(lists), on=mine.columns, how="semi")
        lost[cause], left = left.height - stays.height, stays
    lost[rest] = left.height
    return ChurnShares(
        users=len(set(users)),
        entries=entries,
        kept=kept,
        overlap=kept / entries if entries else None,
        lost={cause: n / entries for cause, n in lost.items() if entries},
    )


def least_overlap(earlier: Sequence[float], users: int) -> float:
    """Return the overlap that new lists must have with the live ones.

    Damage of the last days is in no evaluation, but changes the lists of users without new events.

    Parameters
    ----------
    earlier
        Overlaps of earlier refreshes of the same recipe.
    users
        Number of users whose lists are compared now, at least 1.

    Returns
    -------
    float
        The median of `earlier`, less the largest of 0.08, four robust SDs of `earlier`, and four
        standard errors of a mean over `users`; `LEAST_OVERLAP` with fewer than four values.
    """
    if len(earlier) < LEAST_EARLIER:
        return LEAST_OVERLAP
    usual = float(np.median(earlier))
    spread = _MAD_TO_SD * float(np.median(np.abs(np.asarray(earlier) - usual)))
    return usual - max(_MARGIN, _ERRORS * spread, _ERRORS * _USER_SD / math.sqrt(users))
