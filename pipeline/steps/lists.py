"""What is live and what was decided, for people: raw ids in, raw ids out.

Promises: a reader sees one whole publication and the patches of it; an unknown id gets the list
that anyone gets, and its `slot` says so; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.errors import ConfigError
from pipeline.serving.publish import chain, live, newest, of_chain, of_users, with_raw_ids
from pipeline.workspace.ledger import Entry, entries_of
from pipeline.workspace.workspace import Workspace


def live_publication(ws: Workspace) -> dict[str, Any]:
    """Return the live base's row; raises `ConfigError` before the first."""
    row = live(ws.lake.read("publications"))
    if row is None:
        raise ConfigError(
            "lists.nothing_live", "nothing is published yet; run `nightjar nightly --as-of T` first"
        )
    return row


def live_lists(ws: Workspace) -> pl.DataFrame:
    """Return everybody's list, under pseudonyms: the newest that the live chain holds for each."""
    base = live_publication(ws)[c.PUBLICATION_ID]
    rows = chain(ws.lake.read("publications"), base)
    return newest(ws.lake.read("recommendations", where=of_chain(rows)), rows)


def lists(ws: Workspace, users: Sequence[str] | None) -> pl.DataFrame:
    """Return the live lists of some people, or of everybody for ``None``.

    Rows of `columns.RECOMMENDATIONS` with raw user ids.
    """
    rows = live_lists(ws)
    if users is None:
        people = [user for user in rows[c.USER_ID].unique() if user != c.ANYONE]
        return with_raw_ids(rows, ws.vault.reveal(people))
    pseudonyms = ws.vault.lookup(users)
    return of_users(rows, {user: pseudonyms.get(user) for user in users})


def titles(ws: Workspace) -> dict[str, str]:
    """Return the titles of the catalogue's items that have one."""
    items = ws.lake.read("items", columns=[c.ITEM_ID, c.TITLE]).drop_nulls()
    return dict(items.iter_rows())


def history(ws: Workspace) -> tuple[Entry, ...]:
    """Return the entries of the ledger, oldest first, the chain of checksums checked."""
    return entries_of(ws.ledger)
