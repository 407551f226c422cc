"""Patches that remove unavailable items from the live lists of all users.

Guarantees: the lists to change follow from the lake alone, so the next pass completes one that was
killed; a list changes only by its unavailable items, and spare entries move up in their order.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from pipeline import columns as c
from pipeline.serving.publish import (
    Patch,
    newest,
    of_chain,
    of_these_users,
    publication_rows,
    unavailable,
)
from pipeline.serving.withdrawal import (
    refuse_short,
    with_items,
    withdrawal_id,
    withdrawn_lists,
    without_withdrawals,
)
from pipeline.steps.feedback.patch import STEP, events_in, keep_seen
from pipeline.workspace.night import Night


def make_withdrawal(
    night: Night, rows: pl.DataFrame, at: datetime, *, catalogue: int | None
) -> Patch | None:
    """Make new lists for the users whose live list holds an item that is unavailable.

    Parameters
    ----------
    night
        Run that made the base of the chain.
    rows
        The chain, oldest generation first.
    at
        Instant of the pass, UTC.
    catalogue
        Version of the items whose availability the lists obey.

    Returns
    -------
    The patch; ``None`` if no live list holds such an item.

    Raises
    ------
    GateError
        `lists.too_short`: too many lists would lose most of their entries.
    """
    gone = unavailable(night.ws.read_pinned({"items": catalogue}, "items"))
    users = _users(night, rows, with_items(gone))
    if not users:
        return None
    config, base, behind = night.config.recommend, rows.row(0, named=True), rows.row(-1, named=True)
    own, fallback = (_made(night, rows, of) for of in (users, [c.FALLBACK_USER]))
    lists = withdrawn_lists(own, fallback, gone, config.length)
    refuse_short(
        lists,
        own.group_by(c.USER_ID).len("possible"),
        config.length,
        config.max_short_share,
        night.run.ref("recommend").rows,
    )
    base_id = base[c.PUBLICATION_ID]
    patch = withdrawal_id(base_id, behind[c.PUBLICATION_ID], gone)
    # The lists contain the events of those before.
    keep_seen(night, patch, events_in(night, behind), len(users))
    return Patch(patch, at, catalogue, lists.drop(c.PUBLICATION_ID), len(users), 0, ())


def _users(night: Night, rows: pl.DataFrame, holds: pl.Expr) -> list[str]:
    """Return the users whose live list has such an entry, sorted."""
    lake, chained = night.ws.lake, of_chain(rows)
    columns = [c.PUBLICATION_ID, c.USER_ID, c.ITEM_ID]
    # Most passes end here: a newer list of the same user may already lack the item.
    first = lake.read("recommendations", partitions=chained, where=holds, columns=columns)
    some = first[c.USER_ID].unique().to_list()
    if not some:
        return []
    of_them = of_these_users(some)
    live = newest(
        lake.read("recommendations", partitions=chained, where=of_them, columns=columns), rows
    )
    return live.filter(holds)[c.USER_ID].unique().sort().to_list()


def _made(night: Night, rows: pl.DataFrame, users: list[str]) -> pl.DataFrame:
    """Return the newest lists that the model made for some users, with their spare entries."""
    modelled = without_withdrawals(rows)
    parts = []
    for row in modelled.iter_rows(named=True):
        name = row[c.PUBLICATION_ID]
        step = "recommend" if row[c.BASE] is None else f"{STEP}/{name}"
        lists = night.run.frame(step, "lists").filter(of_these_users(users))
        parts.append(publication_rows(lists, name))
    return newest(pl.concat(parts), modelled)
