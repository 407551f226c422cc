"""Full histories of users with events that their lists do not contain, as the champion reads them.

Guarantees:

* The users to refresh follow from the rows that their lists contain, however late events arrive.
* A history is built like the champion's own window (its weights, catalogue and features), so a
  user without new events would get the same list again.
* Equal data give a patch the same id, whenever it is made.

Items that are new since the training have no column in the champion's model; their events are left
out until the next nightly run.

Ages count back from the newest event that is used, or from the champion's as-of if that is later.
They do not count from the instant of the pass: two passes over equal data give equal lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Instant, format_instant
from pipeline.data.matrix import History, build_history

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Seen:
    """Events that some lists contain: those of the files up to a number, before an instant.

    Attributes
    ----------
    seq
        Number of the last file with an event in the lists, see `stores.batches`.
    until
        Exclusive end of the events, UTC.
    """

    seq: int
    until: Instant


def new_since(arrived: Collection[str], until: datetime) -> pl.Expr:
    """Select the events that some lists do not contain.

    Parameters
    ----------
    arrived
        Batches that arrived after the last one in the lists (`Seen.seq`).
    until
        Exclusive end of the events in the lists, UTC (`Seen.until`).

    Returns
    -------
    Condition on the columns `timestamp` and `batch_id` of events.
    """
    return (pl.col(c.TIMESTAMP) >= until) | pl.col(c.BATCH_ID).is_in(sorted(arrived))


def of_users(users: Collection[str]) -> pl.Expr:
    """Select the events of some users."""
    return pl.col(c.USER_ID).is_in(sorted(users))


def end_of(newest: datetime, as_of: datetime) -> datetime:
    """Return the instant from which ages are counted.

    Parameters
    ----------
    newest
        Timestamp of the newest event that is used, UTC.
    as_of
        As-of of the champion's run, UTC.

    Returns
    -------
    One microsecond after `newest`, or `as_of` if that is later.
    """
    return max(newest + _MOMENT, as_of)


def histories(weighed: pl.DataFrame, window: History, end: datetime) -> History | None:
    """Build the full histories of some users over the catalogue of a champion's window.

    Parameters
    ----------
    weighed
        All their events, as `data.features.weigh` returns them.
    window
        Training window of the champion.
    end
        Exclusive end, see `end_of`.

    Returns
    -------
    One row per user with an event on an item of the catalogue, with the item and user features of
    the window; ``None`` without such a user.
    """
    known = pl.DataFrame({c.ITEM_ID: window.item_ids.tolist()}, schema={c.ITEM_ID: pl.String})
    rows = weighed.filter(pl.col(c.TIMESTAMP) < end).join(known, on=c.ITEM_ID, how="semi")
    if rows.is_empty():
        return None
    own = build_history(rows, end).reindex_items(window.item_ids)
    of_users = window.user_features
    if of_users is not None:
        # `searchsorted` returns the end for ids behind the last one; the clipped place then fails
        # the comparison, and -1 selects a row without features.
        place = np.minimum(np.searchsorted(window.user_ids, own.user_ids), window.n_users - 1)
        there = window.user_ids[place] == own.user_ids
        of_users = of_users.rows(np.where(there, place, -1))
    return replace(own, item_features=window.item_features, user_features=of_users)


def patch_id(base: str, seq: int, catalogue: int | None, newest: datetime) -> str:
    """Return the id of a patch, which follows from the data that it was made from.

    Parameters
    ----------
    base
        Publication that the patch belongs to.
    seq
        Number of the last file in it.
    catalogue
        Version of the items whose availability it obeys.
    newest
        Timestamp of the newest event in it, UTC.

    Returns
    -------
    ``<base>-f<8 hex digits of sha256>``.
    """
    seen: Iterable[object] = (base, seq, catalogue, format_instant(newest))
    digest = hashlib.sha256("\t".join(map(str, seen)).encode()).hexdigest()
    return f"{base}-f{digest[:8]}"
