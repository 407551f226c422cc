"""Target events, the share of repeated targets, and the ground truth of a holdout.

Guarantees: a pair (user, item) counts once; a rating below the threshold is not a target, but it is
kept for the error of predicted ratings (`ratings_since`); the order of rows is irrelevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import polars as pl

from pipeline import columns as c
from pipeline.errors import ConfigError

Task = Literal["repeat", "discovery"]
"""`repeat`: lists may include items that the user had; `discovery`: they exclude them."""

_ORDER: Final = ("purchase", "rating", "add_to_cart", "click", "view")
"""Of kinds with equal weights the first one is the strongest; kinds of a shop's own come last."""
# In grocery and gift-shop data, .36 to .45 of the pairs (user, item) bought within four weeks were
# bought by that user before, in every season examined; in rating data it is 0. The threshold is far
# from both, so that the inferred task does not change between runs.
REPEAT_SHARE: Final = 0.15
_REPEAT_DAYS: Final = 28

_FIRST: Final = "first"
LAST: Final = "last"
_JOINED: Final = "joined"


def strongest_first(weights: Mapping[str, float]) -> tuple[str, ...]:
    """Sort kinds of events by their configured weight, the largest first.

    A night's selection of weights must not change the order: it would choose the task by its data.
    """

    def place(kind: str) -> tuple[float, int, str]:
        return -weights[kind], _ORDER.index(kind) if kind in _ORDER else len(_ORDER), kind

    return tuple(sorted((kind for kind in weights if kind != c.Kind.RETURN), key=place))


def present_kinds(
    rows: pl.DataFrame, kinds: Sequence[str], rating_threshold: float
) -> tuple[str, ...]:
    """Return the kinds that have a target event, in the given order.

    Parameters
    ----------
    rows
        Columns `kind` and `value`.
    kinds
        Kinds to look for.
    rating_threshold
        A kind whose only events are ratings below it does not count.

    Raises
    ------
    ConfigError
        `split.no_target_kind`: no event of any of the kinds.
    """
    counted = rows.filter(is_target(kinds, rating_threshold))[c.KIND].cast(pl.String).unique()
    present = tuple(kind for kind in kinds if kind in set(counted))
    if present:
        return present
    there = ", ".join(rows[c.KIND].cast(pl.String).unique().sort())
    raise ConfigError(
        "split.no_target_kind",
        f"no event counts as a target; the kinds in the data are {there}; give one of them a "
        "weight under features.weights, or set split.target_kinds to some of them",
    )


def is_target(kinds: Sequence[str], rating_threshold: float) -> pl.Expr:
    """Return the condition that an event is a target.

    Parameters
    ----------
    kinds
        Kinds that count.
    rating_threshold
        Ratings below it do not; a rating without a value counts as 1.
    """
    kind = pl.col(c.KIND).cast(pl.String)
    liked = pl.col(c.VALUE).fill_null(1.0) >= rating_threshold
    return kind.is_in(list(kinds)) & ((kind != c.Kind.RATING.value) | liked)


def repeat_share(rows: pl.DataFrame, wanted: pl.Expr, until: datetime) -> float | None:
    """Compute the share of recent target pairs that the user had before.

    Only target events count: viewing an item and then buying it is not a repetition.

    Parameters
    ----------
    rows
        Columns `user_id`, `item_id`, `timestamp` and those of `wanted`.
    wanted
        Condition of a target event, from `is_target`.
    until
        Exclusive end of the 28 days that are examined; later rows are ignored.

    Returns
    -------
    Share in [0, 1] among users with a target event before these days; ``None`` without pairs.
    """
    since = until - timedelta(days=_REPEAT_DAYS)
    past = rows.filter(wanted & (pl.col(c.TIMESTAMP) < until))
    pairs = target_pairs(past, pl.lit(True), since)
    recent = pairs.filter(pl.col(_JOINED) < since)
    if recent.is_empty():
        return None
    return recent.filter(pl.col(_FIRST) < since).height / recent.height


def target_pairs(rows: pl.DataFrame, wanted: pl.Expr, earliest: datetime) -> pl.DataFrame:
    """Collect the target pairs since an instant.

    Parameters
    ----------
    rows
        Events with `user_id`, `item_id`, `timestamp` and the columns of `wanted`. The caller
        chooses whether events other than target events count as earlier events.
    wanted
        Condition of a target event, from `is_target`.
    earliest
        Start of the period.

    Returns
    -------
    `user_id`, `item_id`, `last` (newest target event of the pair), `first` (first event of the
    pair in `rows`), `joined` (first event of the user in `rows`); instants in UTC.
    """
    recent = (
        rows.filter(wanted & (pl.col(c.TIMESTAMP) >= earliest))
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.TIMESTAMP).max().alias(LAST))
    )
    # Not only target events count: a pair that was viewed before the cutoff is not new.
    had = (
        rows.join(recent, on=[c.USER_ID, c.ITEM_ID], how="semi")
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.TIMESTAMP).min().alias(_FIRST))
    )
    joined = rows.group_by(c.USER_ID).agg(pl.col(c.TIMESTAMP).min().alias(_JOINED))
    return recent.join(had, on=[c.USER_ID, c.ITEM_ID]).join(joined, on=c.USER_ID)


def targets_of(
    pairs: pl.DataFrame, cutoff: datetime, task: Task, *, known: bool = True
) -> pl.DataFrame:
    """Select the ground truth of a holdout.

    Parameters
    ----------
    pairs
        Result of `target_pairs`.
    cutoff
        Start of the holdout.
    task
        `discovery` leaves out pairs with an event before the cutoff.
    known
        Select only users with an event before the cutoff.

    Returns
    -------
    `user_id`, `item_id`, sorted.
    """
    inside = pl.col(LAST) >= cutoff
    if known:
        inside = inside & (pl.col(_JOINED) < cutoff)
    if task == "discovery":
        inside = inside & (pl.col(_FIRST) >= cutoff)
    ids = pl.col(c.USER_ID, c.ITEM_ID).cast(pl.String)
    return pairs.filter(inside).select(ids).sort(c.USER_ID, c.ITEM_ID)


def ratings_since(rows: pl.DataFrame, cutoff: datetime) -> pl.DataFrame | None:
    """Return the newest rating of each pair since an instant.

    Parameters
    ----------
    rows
        Columns `user_id`, `item_id`, `kind`, `value`, `timestamp`.
    cutoff
        Start of the holdout.

    Returns
    -------
    `user_id`, `item_id`, `value`, sorted by the two ids; ``None`` if `rows` have no rating at all.
    """
    rated = rows.filter((pl.col(c.KIND) == c.Kind.RATING.value) & pl.col(c.VALUE).is_not_null())
    if rated.is_empty():
        return None
    return (
        rated.filter(pl.col(c.TIMESTAMP) >= cutoff)
        .sort(c.TIMESTAMP, c.VALUE)  # of two ratings at one instant the higher one is last
        .group_by(c.USER_ID, c.ITEM_ID)
        .agg(pl.col(c.VALUE).last())
        .with_columns(pl.col(c.USER_ID, c.ITEM_ID).cast(pl.String))
        .sort(c.USER_ID, c.ITEM_ID)
    )
