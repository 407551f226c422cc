"""User ids derived from events, for the selection of hyperparameters.

Pseudonyms are random in each workspace, and floats are summed in their order, so two workspaces
with the same data have sums that differ in the last digits. Such a digit can decide between two
hyperparameters with almost equal scores, and the workspaces would select different ones.

Guarantees: equal events give equal ids, for any pseudonyms and any order of rows. Only users with
identical events are ordered by their pseudonyms.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c

# Columns of the lake cannot contain the sign #, so a column of users never has one of these names.
_NAME, _EVENTS = "#name", "#events"


def canonicalise_user_ids(
    events: pl.DataFrame, users: pl.DataFrame | None = None
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Replace user ids by ranks that depend only on the users' events.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `timestamp` and further columns.
    users
        `user_id` and further columns; users without events are left out.

    Returns
    -------
    Both frames with ``0000000``, ``0000001``, ... as `user_id`, in the order of a hash over all
    columns of all events of a user; in the events they are categories. Users with identical events
    are interchangeable.
    """
    # Sorted names: the order of columns must not change the hash.
    columns = sorted(set(events.columns) - {c.USER_ID})
    # Categories as text: the number of a category would depend on the other ones.
    text = (c.ITEM_ID, c.KIND)
    row = pl.struct(pl.col(x).cast(pl.String) if x in text else x for x in columns).hash()
    ranked = (
        events.group_by(c.USER_ID)
        .agg(row.sort().alias(_EVENTS))
        .with_columns(pl.col(_EVENTS).hash())
        .sort(_EVENTS, c.USER_ID)  # the pseudonym only orders users with identical events
        .with_row_index(_NAME)
        .select(c.USER_ID, pl.col(_NAME).cast(pl.String).str.zfill(7))
    )
    ranked = ranked.with_columns(pl.col(_NAME).cast(pl.Enum(ranked[_NAME])))
    # Only the column of users is new: the events share the others with the result.
    names = events.select(c.USER_ID).join(ranked, on=c.USER_ID, how="left", maintain_order="left")
    events = events.with_columns(names[_NAME].alias(c.USER_ID))
    if users is None:
        return events, None
    # Users of a table have text as ids where those of the events are categories.
    joined = users.join(ranked.cast(pl.String), on=c.USER_ID, maintain_order="left")
    return events, joined.with_columns(pl.col(_NAME).alias(c.USER_ID)).select(users.columns)
