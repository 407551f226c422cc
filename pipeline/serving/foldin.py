"""What people did since their lists were made -> their full histories, as the champion reads them.

Promises: who counts as touched follows from what the lists knew, row by row, whatever arrived late;
a history is built as the champion's own window was (its weights, its catalogue, its features), so
somebody who did nothing would get the list they have; equal data name a patch alike, whenever it is
made. An item that is new since the training is no column of the champion's, and its events are left
out until the next night.

Ages count back from the newest event that is used, or from the champion's as-of where that is
later: not from the instant of the pass, which says how far was looked and nothing of anybody.
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
    """What some lists know of what people did: the files up to a number, before an instant.

    Attributes
    ----------
    seq
        Number of the last file of which they know an event, see `stores.batches`.
    until
        Exclusive, UTC.
    """

    seq: int
    until: Instant


def new_since(arrived: Collection[str], until: datetime) -> pl.Expr:
    """Select the events that some lists do not know.

    Parameters
    ----------
    arrived
        Batches that came after what they have `seen`.
    until
        How far they looked.
    """
    return (pl.col(c.TIMESTAMP) >= until) | pl.col(c.BATCH_ID).is_in(sorted(arrived))


def of_people(users: Collection[str]) -> pl.Expr:
    """Select the events of some people."""
    return pl.col(c.USER_ID).is_in(sorted(users))


def end_of(newest: datetime, as_of: datetime) -> datetime:
    """Return where ages are counted from: right behind the newest event, or the as-of."""
    return max(newest + _MOMENT, as_of)


def histories(weighed: pl.DataFrame, window: History, end: datetime) -> History | None:
    """Build the full histories of some people over the catalogue of a champion's window.

    Parameters
    ----------
    weighed
        Everything they did, as `data.features.weigh` returns it.
    window
        What the champion was trained on.
    end
        Exclusive end, see `end_of`.

    Returns
    -------
    A row a person who did something with an item of the catalogue, with what the window knew of
    items and people; ``None`` without anybody.
    """
    known = pl.DataFrame({c.ITEM_ID: window.item_ids.tolist()}, schema={c.ITEM_ID: pl.String})
    rows = weighed.filter(pl.col(c.TIMESTAMP) < end).join(known, on=c.ITEM_ID, how="semi")
    if rows.is_empty():
        return None
    own = build_history(rows, end).reindex_items(window.item_ids)
    of_users = window.user_features
    if of_users is not None:
        place = np.minimum(np.searchsorted(window.user_ids, own.user_ids), window.n_users - 1)
        there = window.user_ids[place] == own.user_ids
        of_users = of_users.rows(np.where(there, place, -1))
    return replace(own, item_features=window.item_features, user_features=of_users)


def patch_id(base: str, seq: int, catalogue: int | None, newest: datetime) -> str:
    """Name the patch of a base by what it saw: files, a version of the items, the newest event."""
    seen: Iterable[object] = (base, seq, catalogue, format_instant(newest))
    digest = hashlib.sha256("\t".join(map(str, seen)).encode()).hexdigest()
    return f"{base}-f{digest[:8]}"
