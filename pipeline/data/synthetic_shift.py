"""A change of taste that is put into history, to see who notices.

Promises: nothing before its date changes; people, times, kinds and the number of events stay; equal
events give equal ones, whatever the order of rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c

SHARE: Final = 0.5
"""Of the events from the date on: the others stay what they were, as old habits do."""
_GRAINS: Final = 1_000_000


def exchanged(events: pl.DataFrame, since: datetime) -> dict[str, str]:
    """Pair the items: best sellers with slow ones.

    Of the ``n`` items that people had before the date, ranked by how many events each has, the
    ``i``-th changes places with the ``i + n // 2``-th; of an odd number the last one stays.

    Parameters
    ----------
    events
        `item_id` and `timestamp` of history.
    since
        The date, UTC.

    Returns
    -------
    dict
        Item id to item id, both ways.
    """
    before = events.filter(pl.col(c.TIMESTAMP) < since)
    ranked = before.group_by(c.ITEM_ID).len().sort("len", c.ITEM_ID, descending=[True, False])
    ids = ranked[c.ITEM_ID].to_list()
    half = len(ids) // 2
    pairs = dict(zip(ids[:half], ids[half : 2 * half], strict=True))
    return pairs | {slow: best for best, slow in pairs.items()}


def plant_shift(events: pl.DataFrame, pairs: dict[str, str], since: datetime) -> pl.DataFrame:
    """Let half of what happens from the date on be about the other item of each pair.

    Parameters
    ----------
    events
        Rows of `columns.EVENTS`; `event_id` decides which half a row is of.
    pairs
        What `exchanged` found.
    """
    moved = pl.col(c.EVENT_ID).hash() % _GRAINS < int(SHARE * _GRAINS)
    other = pl.col(c.ITEM_ID).replace(pairs)
    return events.with_columns(
        pl.when(moved & (pl.col(c.TIMESTAMP) >= since))
        .then(other)
        .otherwise(pl.col(c.ITEM_ID))
        .alias(c.ITEM_ID)
    )
