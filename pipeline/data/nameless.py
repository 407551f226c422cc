"""People named by what they did, where settings are chosen.

Pseudonyms are drawn anew in every workspace, and with their order the order in which float sums
are taken. That moves last digits only; but a choice between settings that are nearly level falls
one way or the other by a last digit, and then two workspaces with the same data go different ways.

Promises: equal events give equal names, whatever the users were called and however the rows stood.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c

_NAME = "name"


def nameless(
    events: pl.DataFrame, users: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Put names by rank in the place of user ids.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `timestamp` and further columns.
    users
        `user_id` and further columns; who did nothing is left out.

    Returns
    -------
    Both with ``0000000``, ``0000001``, ... as `user_id`: by first and last event, their number,
    their times and items. Two people who are alike in all that are alike in the lists as well.
    """
    at, item = pl.col(c.TIMESTAMP).dt.epoch("us"), pl.col(c.ITEM_ID)
    ranked = (
        events.group_by(c.USER_ID)
        .agg(
            at.min().alias("begin"),
            at.max().alias("end"),
            pl.len().alias("events"),
            (at - at.min()).sum().alias("times"),
            item.sort_by(at, item).first().alias("begun_with"),
            item.sort_by(at, item).last().alias("ended_with"),
            item.min().alias("least"),
            item.n_unique().alias("items"),
        )
        .sort(pl.exclude(c.USER_ID))
        .with_row_index(_NAME)
        .select(c.USER_ID, pl.col(_NAME).cast(pl.String).str.zfill(7))
    )

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(ranked, on=c.USER_ID, how="inner", maintain_order="left")
        named = joined.with_columns(pl.col(_NAME).alias(c.USER_ID)).drop(_NAME)
        return named.select(frame.columns)

    return renamed(events), None if users is None else renamed(users)
