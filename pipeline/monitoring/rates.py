"""Response rates of groups: counts, and intervals clustered by user.

Guarantees: a group of fewer than `MIN_GROUP_SIZE` users has no figure but their number; an interval
treats the exposures of one user as dependent; with fewer than `MIN_EFFECTIVE_USERS` there is no
rate, only counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.cluster_robust import (
    MIN_GROUP_SIZE,
    Mean,
    effective_users,
    proportion_ci,
    ratio_ci,
)

EXPOSED: Final = "exposures"
RESPONDED: Final = "responses"
CLICKED: Final = "clicks"
PURCHASED: Final = "purchases"
RATED: Final = "ratings"
RETURNED: Final = "returned"
REVENUE: Final = "revenue"
UNPRICED: Final = "unpriced"
MIN_EFFECTIVE_USERS: Final = 50
"""Minimum effective number of users of a rate; below it there are only counts."""
_COUNTED: Final = (RESPONDED, CLICKED, PURCHASED, RATED, RETURNED, REVENUE, UNPRICED)

ALL_USERS: Final = "all"
VERSION: Final = "version"
PUBLICATION: Final = "publication"
RATES: Final = ("response_rate", "ctr", "visitor_hit_rate", "revenue_per_exposure", "return_rate")


@dataclass(frozen=True)
class AttributionRow:
    """One group, such as ``version`` (`by`) 7 (`name`); a small one has only `users`.

    A rate has its mean under its name, and its standard error and 95 % interval under ``_se``,
    ``_lo`` and ``_hi``. With fewer than `MIN_EFFECTIVE_USERS` all four are None.

    Attributes
    ----------
    users
        Number of users.
    exposures
        Entries of lists shown to a user, once for each 24 hours of the span.
    responses, clicks, purchases, ratings
        Exposures with any response, and by kind; an exposure may have several kinds of responses.
    returned
        Of `purchases`, those with a return of the item in the rest of the span.
    revenue
        Sum of quantity · price of purchases with a known price; `unpriced` counts the others.
    response_rate, ctr, visitor_hit_rate, revenue_per_exposure
        `responses`, `clicks`, `purchases`, `revenue` ÷ `exposures`. A visitor may have bought an
        item without seeing the list, so `visitor_hit_rate` is not the effect of the list.
    return_rate
        `returned` ÷ `purchases`, None without purchases.
    """

    by: str
    name: str
    users: int
    exposures: int | None = None
    responses: int | None = None
    clicks: int | None = None
    purchases: int | None = None
    ratings: int | None = None
    returned: int | None = None
    revenue: float | None = None
    unpriced: int | None = None
    response_rate: float | None = None
    response_rate_se: float | None = None
    response_rate_lo: float | None = None
    response_rate_hi: float | None = None
    ctr: float | None = None
    ctr_se: float | None = None
    ctr_lo: float | None = None
    ctr_hi: float | None = None
    visitor_hit_rate: float | None = None
    visitor_hit_rate_se: float | None = None
    visitor_hit_rate_lo: float | None = None
    visitor_hit_rate_hi: float | None = None
    revenue_per_exposure: float | None = None
    revenue_per_exposure_se: float | None = None
    revenue_per_exposure_lo: float | None = None
    revenue_per_exposure_hi: float | None = None
    return_rate: float | None = None
    return_rate_se: float | None = None
    return_rate_lo: float | None = None
    return_rate_hi: float | None = None


@dataclass(frozen=True)
class Claims:
    """Comparison of the lists that events claim with those they were attributed to.

    Attributes
    ----------
    agree
        The claimed publication, and the position if there is one, are the attributed ones.
    contradict
        The event was attributed to another publication or position.
    unmatched
        The event was not attributed: no list shown to the user in time contains the item.
    """

    agree: int
    contradict: int
    unmatched: int


@dataclass(frozen=True)
class ShownEffect:
    """Rates of the last shown and of the first spare entries; None below the minimum group size.

    Attributes
    ----------
    rate
        ``response_rate`` or ``visitor_hit_rate``.
    users, entries
        Number of users, and of shown entries; there are as many spare ones.
    shown, spare
        Share of the shown and of the spare entries with such a response.
    added
        `shown` − `spare`, with its standard error and 95 % interval.
    """

    rate: str
    users: int
    entries: int
    shown: float | None = None
    spare: float | None = None
    added: float | None = None
    added_se: float | None = None
    added_lo: float | None = None
    added_hi: float | None = None


@dataclass(frozen=True)
class Attribution:
    """Responses within one span.

    Attributes
    ----------
    users
        Number of users with events in it.
    events
        Their events without returns; `joined` of these were attributed to a list, `late` of these
        to one that was last shown on an earlier day: they are in no row.
    unshown
        Events of users without a list at that time: before the first publication.
    shown_effects
        Effect of showing an item, by rate; empty if no list has spare entries.
    rows
        ``all`` first; then by publication, version, recipe, segment, slot and position.
    """

    span: Interval
    window_days: int
    users: int
    events: int
    joined: int
    late: int
    unshown: int
    claims: Claims
    shown_effects: tuple[ShownEffect, ...]
    rows: tuple[AttributionRow, ...]


def rows_of(
    by: str, names: Iterable[str], exposed: pl.DataFrame, responses: pl.DataFrame
) -> Iterator[AttributionRow]:
    """Yield a row for each group with exposures.

    Parameters
    ----------
    by
        Column of both frames with the group's name.
    names
        Groups, in the order of the rows.
    exposed
        `by`, `user_id`, `exposures`: one row per group and user.
    responses
        `by`, `user_id` and the responses: one row per exposure with a response.

    Yields
    ------
    AttributionRow
        In the order of `names`.
    """
    keys = [by, c.USER_ID]
    sums = responses.group_by(keys, maintain_order=True).agg(pl.col(_COUNTED).sum())
    # A full join: users without a response count in a rate, too.
    both = exposed.with_columns(pl.col(EXPOSED).cast(pl.Float64))
    both = both.join(sums, on=keys, how="full", coalesce=True)
    both = both.with_columns(pl.col(EXPOSED, *_COUNTED).fill_null(0.0))
    there = both.filter((pl.col(EXPOSED) > 0) | (pl.col(RESPONDED) > 0))
    parts = there.partition_by(by, as_dict=True)
    for name in names:
        if (part := parts.get((name,))) is not None:
            yield AttributionRow(by, name, part.height, **_figures(part))


def _figures(users: pl.DataFrame) -> dict[str, Any]:
    """Return the figures of a row; none for a small group."""
    shown = users[EXPOSED].to_numpy()
    # Figures of a few users could reveal one of them.
    if users.height < MIN_GROUP_SIZE or not shown.any():
        return {}
    counted = {name: users[name].to_numpy() for name in _COUNTED}
    # Exact sums do not depend on the order of users, and so not on pseudonyms.
    totals = {name: math.fsum(values.tolist()) for name, values in counted.items()}
    purchases = counted[PURCHASED]
    rates = {
        "response_rate": _share(counted[RESPONDED], shown),
        "ctr": _share(counted[CLICKED], shown),
        "visitor_hit_rate": _share(purchases, shown),
        # Revenue has no upper limit, unlike a share.
        "revenue_per_exposure": ratio_ci(counted[REVENUE], shown, most=np.inf)
        if _has_rate(shown)
        else None,
        "return_rate": _share(counted[RETURNED], purchases),
    }
    counts = {name: round(value) for name, value in totals.items() if name != REVENUE}
    row: dict[str, Any] = counts | {
        EXPOSED: round(math.fsum(shown.tolist())),
        REVENUE: totals[REVENUE],
    }
    for name, rate in rates.items():
        for part, value in (vars(rate) if rate else {}).items():
            row[name if part == "mean" else f"{name}_{part}"] = value
    return row


def _share(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Mean | None:
    return proportion_ci(sums, counts) if _has_rate(counts) else None


def _has_rate(counts: NDArray[np.float64]) -> bool:
    # If a few users have most of the observations, a rate and its error depend on these few.
    return effective_users(counts) >= MIN_EFFECTIVE_USERS
