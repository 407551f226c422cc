"""What a user went for: which events count, whether people come back, which pairs are the truth.

Promises: a pair (user, item) counts once; a rating below its threshold is no truth of a list, but
what a user thought of an item all the same (`ratings_since`); the order of rows changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import polars as pl

from pipeline import columns as c
from pipeline.errors import ConfigError

Task = Literal["repeat", "discovery"]
"""May a list hold what the user already had? `repeat`: yes. `discovery`: no."""

_STRONGEST_FIRST: Final = [kind.value for kind in reversed(c.Kind) if kind != c.Kind.RETURN]
# Of the pairs (user, item) bought in four weeks, grocers and a gift shop show .36 to .45 that the
# user had bought before, in every season looked at; ratings show 0. In between, far from both, so
# that the kind of task does not change from one night to the next.
REPEAT_SHARE: Final = 0.15
_REPEAT_DAYS: Final = 28

_FIRST: Final = "first"
LAST: Final = "last"
_JOINED: Final = "joined"


def target_kinds(
    rows: pl.DataFrame, named: tuple[str, ...] | None, rating_threshold: float
) -> tuple[str, ...]:
    """Return the kinds that count: those named, else the strongest kind that the rows hold."""
    if named is not None:
        return named
    counted = rows.filter(is_target(_STRONGEST_FIRST, rating_threshold))
    present = set(counted[c.KIND].cast(pl.String).unique())
    for kind in _STRONGEST_FIRST:
        if kind in present:
            return (kind,)
    raise ConfigError(
        "split.no_target_kind",
        f"the events hold none of the kinds {', '.join(_STRONGEST_FIRST)}; name split.target_kinds",
    )


def is_target(kinds: Sequence[str], rating_threshold: float) -> pl.Expr:
    """Return the condition that an event counts as truth."""
    kind = pl.col(c.KIND).cast(pl.String)
    liked = pl.col(c.VALUE).fill_null(1.0) >= rating_threshold
    return kind.is_in(list(kinds)) & ((kind != c.Kind.RATING.value) | liked)


def repeat_share(rows: pl.DataFrame, wanted: pl.Expr, as_of: datetime) -> float | None:
    """Share of the pairs of the last four weeks that a user with a past had bought before.

    Only target events count: somebody who looks at a thing and then buys it has not come back.
    """
    since = as_of - timedelta(days=_REPEAT_DAYS)
    pairs = target_pairs(rows.filter(wanted), pl.lit(True), since)
    recent = pairs.filter(pl.col(_JOINED) < since)
    if recent.is_empty():
        return None
    return recent.filter(pl.col(_FIRST) < since).height / recent.height


def target_pairs(rows: pl.DataFrame, wanted: pl.Expr, earliest: datetime) -> pl.DataFrame:
    """Target pairs since `earliest`: first event of any kind, last target event, user's first."""
    recent = (
        rows.filter(wanted & (pl.col(c.TIMESTAMP) >= earliest))
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.TIMESTAMP).max().alias(LAST))
    )
    had = (
        rows.join(recent, on=[c.USER_ID, c.ITEM_ID], how="semi")
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.TIMESTAMP).min().alias(_FIRST))
    )
    joined = rows.group_by(c.USER_ID).agg(pl.col(c.TIMESTAMP).min().alias(_JOINED))
    return recent.join(had, on=[c.USER_ID, c.ITEM_ID]).join(joined, on=c.USER_ID)


def targets_of(pairs: pl.DataFrame, cutoff: datetime, policy: Task) -> pl.DataFrame:
    """Keep the pairs after `cutoff` of users known before it; discovery: not had before it."""
    inside = (pl.col(LAST) >= cutoff) & (pl.col(_JOINED) < cutoff)
    if policy == "discovery":
        inside = inside & (pl.col(_FIRST) >= cutoff)
    return pairs.filter(inside).select(c.USER_ID, c.ITEM_ID).sort(c.USER_ID, c.ITEM_ID)


def ratings_since(rows: pl.DataFrame, cutoff: datetime) -> pl.DataFrame | None:
    """Return the newest rating of each pair since `cutoff`; ``None`` where nobody ever rated.

    Returns
    -------
    `user_id`, `item_id`, `value`, sorted by the two ids.
    """
    rated = rows.filter((pl.col(c.KIND) == c.Kind.RATING.value) & pl.col(c.VALUE).is_not_null())
    if rated.is_empty():
        return None
    return (
        rated.filter(pl.col(c.TIMESTAMP) >= cutoff)
        .sort(c.TIMESTAMP, c.VALUE)
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.VALUE).last())
        .sort(c.USER_ID, c.ITEM_ID)
    )
