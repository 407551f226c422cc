"""Synthetic change of demand in the history, for tests of drift detection.

Guarantees: events before its date do not change; users, times, kinds and the number of events stay
the same; equal events give equal results in any order of rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c

SHARE: Final = 0.5
"""Share of the events from the date on that change; the others stay as they are."""
_GRAINS: Final = 1_000_000


def exchanged(events: pl.DataFrame, since: datetime) -> dict[str, str]:
    """Pair popular items with unpopular ones.

    The ``n`` items with events before the date are ranked by their number of events; item ``i`` is
    paired with item ``i + n // 2``. If n is odd, the last item has no partner.

    Parameters
    ----------
    events
        Columns `item_id` and `timestamp`.
    since
        Date of the change, in UTC.

    Returns
    -------
    dict
        Item id → id of the partner, in both directions.
    """
    before = events.filter(pl.col(c.TIMESTAMP) < since)
    ranked = before.group_by(c.ITEM_ID).len().sort("len", c.ITEM_ID, descending=[True, False])
    ids = ranked[c.ITEM_ID].to_list()
    half = len(ids) // 2
    pairs = dict(zip(ids[:half], ids[half : 2 * half], strict=True))
    return pairs | {slow: best for best, slow in pairs.items()}


def plant_shift(events: pl.DataFrame, pairs: dict[str, str], since: datetime) -> pl.DataFrame:
    """Replace the item by its partner in half of the events from the date on.

    Parameters
    ----------
    events
        Rows of `columns.EVENTS`.
    pairs
        Result of `exchanged`.
    since
        Date of the change, in UTC.

    Returns
    -------
    The same rows in the same order.
    """
    # A hash of the id, not of the position: the same events change in any order of rows.
    moved = pl.col(c.EVENT_ID).hash() % _GRAINS < int(SHARE * _GRAINS)
    other = pl.col(c.ITEM_ID).replace(pairs)
    return events.with_columns(
        pl.when(moved & (pl.col(c.TIMESTAMP) >= since))
        .then(other)
        .otherwise(pl.col(c.ITEM_ID))
        .alias(c.ITEM_ID)
    )
