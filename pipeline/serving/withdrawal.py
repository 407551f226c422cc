"""Lists without the items that are no longer available, and the number of lists that get too short.

Guarantees: entries move up in their order; a list is short only by its unavailable items, never
because the catalogue is small or its user had most of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import polars as pl

from pipeline import columns as c
from pipeline.errors import GateError
from pipeline.number_text import share
from pipeline.serving.publish import trim

_POSSIBLE = "possible"
_SHOWN = "shown"


def withdrawn_lists(
    made: pl.DataFrame, fallback: pl.DataFrame, unavailable: Collection[str], length: int
) -> pl.DataFrame:
    """Trim lists with their spare entries; a list without an entry left becomes the fallback list.

    Parameters
    ----------
    made
        Lists with their spare entries, rows of `columns.RECOMMENDATIONS` of one publication.
    fallback
        The fallback list with its spare entries, in the same columns.
    unavailable
        Item ids to remove.
    length
        Entries of a list, at most.

    Returns
    -------
    Rows as `trim` returns them.
    """
    kept = trim(made, unavailable, length)
    empty = made.select(c.USER_ID).unique().join(kept, on=c.USER_ID, how="anti")
    instead = trim(fallback, unavailable, length).drop(c.USER_ID).join(empty, how="cross")
    return pl.concat([kept, instead.select(kept.columns)]).sort(c.USER_ID, c.POSITION)


def refuse_short(
    lists: pl.DataFrame, possible: pl.DataFrame, length: int, most: float, users: int
) -> None:
    """Raise if too many users would get fewer than half of the entries that they could have.

    Parameters
    ----------
    lists
        `user_id` of each entry that would be shown.
    possible
        `user_id`, `possible`: entries that the user could have if all items were available.
    length
        Entries of a list, at most.
    most
        Share of the users who may have such a list.
    users
        Number of users whose lists would be live.

    Raises
    ------
    GateError
        `lists.too_short`.
    """
    shown = lists.filter(pl.col(c.USER_ID).is_not_null()).group_by(c.USER_ID).len(_SHOWN)
    both = possible.join(shown, on=c.USER_ID, how="left", maintain_order="left")
    wanted = pl.col(_POSSIBLE).clip(upper_bound=length)
    short = both.filter(pl.col(_SHOWN).fill_null(0) * 2 < wanted).height
    if short > most * users:
        raise GateError(
            "lists.too_short",
            f"{short:,} of {users:,} users ({share(short / users)}) would get fewer than half of "
            f"the {length} entries of a list, because items are unavailable; nothing was "
            "published. Correct `available` in the catalogue, or raise recommend.max_short_share",
        )


def with_items(items: Collection[str]) -> pl.Expr:
    """Select the entries of some items."""
    return pl.col(c.ITEM_ID).is_in(sorted(items))


def withdrawal_id(base: str, behind: str, unavailable: Collection[str]) -> str:
    """Return the id of a patch that removes items from live lists.

    Parameters
    ----------
    base
        Publication that the patch belongs to.
    behind
        Newest publication of its chain.
    unavailable
        Item ids that no list may hold.

    Returns
    -------
    ``<base>-w<8 hex digits of sha256>``.
    """
    text = "\t".join([behind, *sorted(unavailable)])
    return f"{base}-w{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def without_withdrawals(rows: pl.DataFrame) -> pl.DataFrame:
    """Select the publications whose lists a model made: no patch that only removed items."""
    return rows.filter(~pl.col(c.PUBLICATION_ID).str.contains("-w[0-9a-f]{8}$"))
