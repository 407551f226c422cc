"""People named by what they did, where settings are chosen.

Pseudonyms are drawn anew in every workspace, and with their order the order in which float sums
are taken. That moves last digits only; but a choice between settings that are nearly level falls
one way or the other by a last digit, and then two workspaces with the same data go different ways.

Promises: equal events give equal names, whatever the users were called and however the rows stood;
whoever differs in one event has a name of his own.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c

_NAME, _EVENTS = "name", "events"


def canonicalise_user_ids(
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
    Both with ``0000000``, ``0000001``, ... as `user_id`: by a hash of all their events, whatever
    columns these have. Who is alike in all of them is alike in the lists as well.
    """
    row = pl.struct(sorted(set(events.columns) - {c.USER_ID})).hash()
    ranked = (
        events.group_by(c.USER_ID)
        .agg(row.sort().alias(_EVENTS))
        .with_columns(pl.col(_EVENTS).hash())
        .sort(_EVENTS, c.USER_ID)
        .with_row_index(_NAME)
        .select(c.USER_ID, pl.col(_NAME).cast(pl.String).str.zfill(7))
    )

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(ranked, on=c.USER_ID, how="inner", maintain_order="left")
        return joined.with_columns(pl.col(_NAME).alias(c.USER_ID)).select(frame.columns)

    return renamed(events), None if users is None else renamed(users)
