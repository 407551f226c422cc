"""Features of a pair of a user and an own item, as of one instant.

Guarantees: a row of features comes from the user's own pairs and the table of items alone, so it
does not depend on the other users. No feature names a user or an item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.models.repeat_purchase.pairs import HALF_LIVES, Pairs

PAIR_FEATURES = (
    *(f"own_{days:.0f}" for days in HALF_LIVES),  # weights of own events, decayed
    "days",  # on which the user had it
    "share_of_days",  # of all days on which the user had any item
    "since_first",
    "since_last",
    "gap",  # mean days from one day with it to the next
    "overdue",  # since_last in such gaps
    "overdue_for_item",  # since_last in gaps of the item
    "user_days",
    "user_since_last",
    "user_items",
    "user_repeats",  # share of the user's items that they had on several days
    "user_back",  # share of the user's older items that they had again in the last block
)
ITEM_FEATURES = (
    "item_7",  # number of users, each decayed by the age of their last event of it
    "item_30",
    "item_users",
    "item_trend",  # item_30 ÷ item_users
    "item_trend_7",  # item_7 ÷ item_30
    "item_repeats",  # share of its users who had it on several days
    "item_gap",  # mean days from one day with it to the next, over all its users
    "item_back",  # share of its older users who had it again in the last block
)
FEATURES = (*PAIR_FEATURES, *ITEM_FEATURES)
_GAP = ITEM_FEATURES.index("item_gap")
_DOUBT = 20.0
"""Users, or items, that are added to the denominator of a share, which damps it in small groups."""


def item_table(pairs: Pairs, block_days: float) -> NDArray[np.float32]:
    """Return the features of all items.

    Parameters
    ----------
    pairs
        All pairs of the window.
    block_days
        Days of a block.

    Returns
    -------
    ``(n_items, len(ITEM_FEATURES))`` float32; −1 for an undefined feature.
    """

    def total(value: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(pairs.item, weights=value, minlength=pairs.n_items)

    several = pairs.days > 1
    users = total(np.ones(len(pairs.item)))
    late, last_month = (total(np.exp2(-pairs.last / days)) for days in (7.0, 30.0))
    columns = (
        late,
        last_month,
        users,
        _ratio(last_month, users),
        _ratio(late, last_month),
        _ratio(total(several), users),
        _ratio(total(np.where(several, pairs.first - pairs.last, 0)), total(pairs.days - 1)),
        _came_back(pairs, pairs.item, pairs.n_items, block_days),
    )
    features: NDArray[np.float32] = np.column_stack(columns).astype(np.float32)
    return np.where(np.isnan(features), np.float32(-1), features)


def table(
    pairs: Pairs, items: NDArray[np.float32], block_days: float, keep: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the features of some pairs.

    Parameters
    ----------
    pairs
        All pairs of the users of interest.
    items
        ``(n_items, len(ITEM_FEATURES))`` float32, as `item_table` returns it.
    block_days
        Days of a block.
    keep
        ``(n,)`` bool: the pairs of interest.

    Returns
    -------
    ``(n_kept, len(FEATURES))`` float32; NaN for an undefined feature.
    """

    def of_user(value: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(pairs.user, weights=value, minlength=pairs.n_users)

    newest = np.full(pairs.n_users, np.inf, np.float32)
    np.minimum.at(newest, pairs.user, pairs.last)
    owned = of_user(np.ones(len(pairs.user)))
    repeats = _ratio(of_user(pairs.days > 1), owned)
    back = _came_back(pairs, pairs.user, pairs.n_users, block_days)
    user, days, last, first = (
        part[keep] for part in (pairs.user, pairs.days, pairs.last, pairs.first)
    )
    gap = _ratio(np.where(days > 1, first - last, 0), days - 1)
    of_item = items[pairs.item[keep]]
    columns = (
        *(own[keep] for own in pairs.own),
        days,
        _ratio(days, pairs.user_days[user]),
        first,
        last,
        gap,
        _ratio(last, gap),
        _ratio(last, of_item[:, _GAP]),
        pairs.user_days[user],
        newest[user],
        owned[user],
        repeats[user],
        back[user],
    )
    # Filling columns in place needs half the memory of stacking float64 columns.
    values = np.empty((len(user), len(FEATURES)), np.float32)
    for place, column in enumerate(columns):
        values[:, place] = column
    values[:, len(columns) :] = of_item
    return values


def _came_back(
    pairs: Pairs, group: NDArray[np.int32], n: int, block_days: float
) -> NDArray[np.float64]:
    """Return, by group, the share of pairs older than a block that were taken again within it."""
    older = pairs.first > block_days
    again = older & (pairs.last <= block_days)
    held = np.bincount(group, weights=older, minlength=n)
    return np.bincount(group, weights=again, minlength=n) / (held + _DOUBT)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is not above 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
