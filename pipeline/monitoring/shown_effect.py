"""Effect of showing an item: the last shown entries of a list against the first spare ones.

A run computes more entries than it shows. The spare entries behind a list are ranked by the same
model at nearly the same rank, but no user sees them, so the difference between their response rate
and that of the last shown entries is the effect of showing an item (regression discontinuity,
Thistlethwaite and Campbell 1960).
::

    shown, 20 entries                 spare
    1  2  3  ...  18 [19 20]          [21 22] 23 ... 30
                      rate    minus    rate    = effect of showing

Guarantees: both groups have the same number of entries of each user; an event responds to a spare
entry by the rules of a shown one (last touch, on the same day); with fewer than
`rates.MIN_EFFECTIVE_USERS` there is no rate.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.cluster_robust import effective_users, ratio_ci
from pipeline.monitoring import rates

EDGE: Final = 2
"""Number of entries on each side that are compared."""

EDGE_SHOWN: Final = "edge_shown"
"""True for an entry that was shown, False for a spare one."""


_COUNTED: Final = {"response_rate": rates.RESPONDED, "visitor_hit_rate": rates.PURCHASED}


def shown_effects(visits: pl.DataFrame, responses: pl.DataFrame) -> tuple[rates.ShownEffect, ...]:
    """Compare the entries at the end of lists with the spare ones behind them.

    Parameters
    ----------
    visits
        `user_id`: one row for each showing of a list with `EDGE` spare entries.
    responses
        `user_id`, `edge_shown` and the responses: one row for each of these entries with a
        response.

    Returns
    -------
    tuple
        One effect for each rate; empty if no shown list has spare entries.
    """
    if visits.is_empty():
        return ()
    entries = visits.group_by(c.USER_ID).agg((EDGE * pl.len()).cast(pl.Float64).alias("entries"))
    return tuple(_effect(rate, entries, responses, of) for rate, of in _COUNTED.items())


def _effect(
    rate: str, entries: pl.DataFrame, responses: pl.DataFrame, response: str
) -> rates.ShownEffect:
    value, shown = pl.col(response), pl.col(EDGE_SHOWN)
    sums = responses.group_by(c.USER_ID).agg(
        value.filter(shown).sum().alias("shown"), value.filter(~shown).sum().alias("spare")
    )
    users = entries.join(sums, on=c.USER_ID, how="left").fill_null(0.0)
    counts, total = users["entries"].to_numpy(), int(users["entries"].sum())
    if effective_users(counts) < rates.MIN_EFFECTIVE_USERS:
        return rates.ShownEffect(rate, users.height, total)
    added = ratio_ci((users["shown"] - users["spare"]).to_numpy(), counts, least=-1.0)
    # Sums of counts are exact, so the order of the users has no effect.
    means = (float(users[name].sum()) / total for name in ("shown", "spare"))
    return rates.ShownEffect(rate, users.height, total, *means, *vars(added).values())
