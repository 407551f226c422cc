"""Quiet nights, measured: how much of what idle people see stays from one publication to the next.

Promises: every entry that went has one cause, so what was kept and what was lost to each cause add
up to what was there, entry by entry; a cause is told by a replay (the lists as they would be had
that alone happened), never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c

FIRST: Final = 10
"""Entries of a list that are always compared, whatever its length."""
STOCK: Final = "stock"
RECIPE: Final = "recipe"
DATA: Final = "data"


@dataclass(frozen=True)
class ChurnShares:
    """What became of the first `k` entries of some users' lists.

    Attributes
    ----------
    users
        Users compared.
    entries, kept
        How many entries they had, and how many of these stand among the first `k` again.
    overlap
        Share of the entries kept; ``None`` without entries.
    lost
        Shares of the others by cause; with `overlap` they add up to 1. A cause that can be
        measured and took nothing is 0.
    """

    users: int
    entries: int
    kept: int
    overlap: float | None
    lost: Mapping[str, float]


def idle(
    live: pl.DataFrame, events: pl.DataFrame, since: datetime, known: Collection[str]
) -> list[str]:
    """Return who did nothing since an instant and has a list of the model, sorted.

    Parameters
    ----------
    live
        The live lists, rows of `columns.RECOMMENDATIONS`. The fallback is one list for many, which
        follows what everybody does; whoever is shown it is left out.
    events
        `user_id`, `timestamp`.
    since
        As-of of the live publication.
    known
        Users that a new model has lists for.
    """
    busy = set(events.filter(pl.col(c.TIMESTAMP) >= since)[c.USER_ID])
    modelled = set(live.filter(pl.col(c.SLOT) == c.Slot.MODEL.value)[c.USER_ID])
    return sorted((modelled - busy) & set(known))


def of_people(lists: pl.DataFrame, users: Collection[str]) -> pl.DataFrame:
    """Return the rows of `lists` that belong to `users`."""
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
    replays
        Cause and the lists as they would be had it alone happened to `before`. An entry that a
        replay has not among its first `k` either was lost to that cause; the first one that says so
        counts.
    rest
        What everything else is put down to.
    """

    def first(lists: pl.DataFrame) -> pl.DataFrame:
        entries = of_people(lists.filter(pl.col(c.POSITION) <= k), users)
        return entries.select(c.USER_ID, c.ITEM_ID)

    mine, now = first(before), first(after)
    left = mine.join(now, on=mine.columns, how="anti")
    entries, kept = mine.height, mine.height - left.height
    lost = {}
    for cause, lists in replays:
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
