"""Live lists and ledger entries for users of the command line: raw ids in, raw ids out.

Guarantees: a reader gets one whole publication and its patches. A user without a list of their own
gets the fallback list, and its `slot` records that; an unknown id is an error. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.ids import one_form
from pipeline.errors import ConfigError
from pipeline.serving.publish import chain, live, newest, of_users, with_raw_ids
from pipeline.workspace.agreement import compare_ledger
from pipeline.workspace.ledger import Entry, entries_of
from pipeline.workspace.publications import read_lists
from pipeline.workspace.workspace import Workspace

_NAMED: Final = 5
"""Largest number of unknown ids in an error."""


def live_publication(ws: Workspace) -> dict[str, Any]:
    """Return the row of the live base; raises ``lists.nothing_live`` before the first one.

    Raises the errors of `compare_ledger` if publications are lost.
    """
    row = live(ws.lake.read("publications"))
    if row is None:
        compare_ledger(ws.lake, ws.damaged_ledger)  # publications may be lost
        raise ConfigError(
            "lists.nothing_live", "nothing is published yet; run `nightjar nightly --as-of T` first"
        )
    return row


def live_lists(ws: Workspace) -> pl.DataFrame:
    """Return the live lists of all users under pseudonyms."""
    base = live_publication(ws)[c.PUBLICATION_ID]
    rows = chain(ws.lake.read("publications"), base)
    return newest(read_lists(ws, rows), rows)


def lists(ws: Workspace, users: Sequence[str] | None) -> pl.DataFrame:
    """Return live lists by raw user ids.

    Parameters
    ----------
    ws
        Workspace.
    users
        Raw ids, or ``*`` for the fallback list; ``None`` for all users.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS` with raw user ids.

    Raises
    ------
    ConfigError
        `lists.nothing_live`: nothing is published yet. `lists.unknown_user`: an id is unknown.
    StorageError
        `lists.altered`, `vault.behind`, `vault.pseudonym_missing`
    """
    rows = live_lists(ws)
    if users is None:
        # The id of the fallback list is not a pseudonym: the vault has no raw id for it.
        pseudonyms = [user for user in rows[c.USER_ID].unique() if user != c.FALLBACK_USER]
        return with_raw_ids(rows, ws.vault.reveal(pseudonyms))
    users = [one_form(user) for user in users]
    assigned = {c.FALLBACK_USER: c.FALLBACK_USER, **ws.vault.lookup(users)}
    if unknown := [user for user in users if user not in assigned]:
        raise ConfigError(
            "lists.unknown_user",
            f"unknown user {', '.join(unknown[:_NAMED])}"
            f"{f' and {len(unknown) - _NAMED} more' if len(unknown) > _NAMED else ''}: no event or "
            "row of users has this id; check it. `nightjar lists '*'` shows the fallback list of "
            "such users",
        )
    return of_users(rows, {user: assigned[user] for user in users})


def translate(ws: Workspace, ids: Sequence[str]) -> dict[str, str]:
    """Translate raw ids of users into pseudonyms, and pseudonyms into raw ids.

    Parameters
    ----------
    ws
        Workspace.
    ids
        Raw ids or pseudonyms; an id that is both counts as a raw id.

    Returns
    -------
    The other id of each user, by the given one.

    Raises
    ------
    ConfigError
        `user.unknown`: an id is neither.
    StorageError
        `vault.entry_altered`
    """
    forms = {user: one_form(user) for user in ids}
    raw = list(forms.values())
    other = ws.vault.lookup_pseudonyms(raw) | ws.vault.lookup(raw)
    for place, user in enumerate(ids, start=1):
        if forms[user] not in other:
            # The message may be logged, and the id may be a raw one.
            raise ConfigError(
                "user.unknown",
                f"id {place} of {len(ids)} is neither the id of a user nor a pseudonym in "
                f"{ws.home}; correct it, or ingest the user's events first",
            )
    return {user: other[form] for user, form in forms.items()}


def titles(ws: Workspace) -> dict[str, str]:
    """Return the titles of the items that have one, by item id."""
    items = ws.lake.read("items", columns=[c.ITEM_ID, c.TITLE]).drop_nulls()
    return dict(items.iter_rows())


def history(ws: Workspace) -> tuple[Entry, ...]:
    """Return the entries of the ledger, oldest first, after checking its chain of checksums."""
    return entries_of(ws.ledger)
