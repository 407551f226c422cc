"""Slices of users, by activity, recency and segment, and of target items by their age.

Guarantees: slices follow from the training window alone, so that every recipe of a nightly run is
evaluated on the same ones; a segment of fewer than `MIN_GROUP_SIZE` users is not a slice, and the
figures of so few users do not follow from those of the segments either.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.data.features import activity, item_age_days, recency_days
from pipeline.data.matrix import History

COLD: Final = "cold"
WARM: Final = "warm"
HOT: Final = "hot"
RECENT: Final = "recent"
LAPSED: Final = "lapsed"
NEW_ITEMS: Final = "new_items"
OLD_ITEMS: Final = "old_items"
SLICES: Final = (COLD, WARM, HOT, RECENT, LAPSED, NEW_ITEMS, OLD_ITEMS)
"""Slices of every evaluation; `segment_*` are added if users have segments."""

_DAYS: Final = 28.0
# Small segments have too few users to test, so only the largest ones are slices.
_MOST_SEGMENTS: Final = 20


def user_slices(
    users: History, segments: pl.DataFrame | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Return the slices of the evaluated users.

    Parameters
    ----------
    users
        The evaluated users' part of the training window.
    segments
        `user_id`, `segment`; further columns are ignored.

    Returns
    -------
    dict
        Name to ``(n_users,)`` bool. By events in the window: cold ≤ first quartile, hot > third,
        warm between. Recent: an event within 28 days of the cutoff; lapsed: none.
    """
    count = activity(users)
    low, high = np.quantile(count, [0.25, 0.75]) if len(count) else (0.0, 0.0)
    recent = recency_days(users) <= _DAYS
    groups = {
        COLD: count <= low,
        WARM: (count > low) & (count <= high),
        HOT: count > high,
        RECENT: recent,
        LAPSED: ~recent,
    }
    if segments is not None:
        groups |= _segment_slices(users, segments)
    return groups


def new_items(history: History) -> NDArray[np.bool_]:
    """Return the items whose first event is less than 28 days before the cutoff, ``(n_items,)``."""
    return item_age_days(history) < _DAYS


def slug(text: str) -> str:
    """Format a segment as a part of a metric's name: lower case, digits, ``_``."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "other"


def _segment_slices(users: History, segments: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    ids = pl.DataFrame({c.USER_ID: users.user_ids.tolist()}, schema={c.USER_ID: pl.String})
    by_user = segments.select(c.USER_ID, c.SEGMENT).unique(c.USER_ID, keep="first")
    joined = ids.join(by_user, on=c.USER_ID, how="left", maintain_order="left")[c.SEGMENT]
    slugs = np.array([slug(text) if text is not None else "" for text in joined.to_list()], np.str_)
    names, counts = np.unique(slugs[slugs != ""], return_counts=True)
    # Name and figures of a segment of a few users could reveal one of them.
    enough = counts >= MIN_GROUP_SIZE
    names, counts = names[enough], counts[enough]
    # Stable, so that of equally large segments the first by name is kept.
    order = np.argsort(-counts, kind="stable")[:_MOST_SEGMENTS]
    others = len(slugs) - int(counts[order].sum())
    # Otherwise the figures of the others follow from those of all users and of the segments.
    if 0 < others < MIN_GROUP_SIZE:
        order = order[:-1]
    largest = names[order]
    return {f"segment_{name}": slugs == name for name in sorted(largest.tolist())}
