"""The rows of a publication, and how a reader finds them.

Promises: the live publication is the base with the highest generation; a publication moves the
pointer only if its as-of is later than that of the live base; the sum of its lists stands in its
row, so a reader can tell a whole publication from a damaged one.

A *patch* is a publication with a base, and lists for a few people alone. A person's list is the
newest in the live base's chain (the base, then its patches) that is theirs; a new base ends the
chain. A patch goes live only right behind what it was made against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import polars as pl
from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.errors import ConcurrencyError


class PublishConfig(Frozen):
    """How lists go before people."""

    live_from: Literal["clock", "as_of"] = Field(
        default="clock",
        description="When a publication counts as shown: from the swap on, by the clock, or from "
        "the night's as-of, where history is replayed.",
    )
    spare_items: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="Entries kept behind a list, to fill the place of what sells out before it "
        "goes live.",
    )


_RAW: Final = "raw"

PublicationRow: TypeAlias = Mapping[str, Any]
"""A row of `columns.PUBLICATIONS` as the lake returns it."""


def trim(lists: pl.DataFrame, unavailable: Collection[str], length: int) -> pl.DataFrame:
    """Take out what is unavailable, close the gaps, cut to `length`."""
    position = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(c.USER_ID)
    return (
        lists.filter(~pl.col(c.ITEM_ID).is_in(sorted(unavailable)))
        .sort(c.USER_ID, c.POSITION)
        .with_columns(position.alias(c.POSITION))
        .filter(pl.col(c.POSITION) <= length)
    )


def unavailable(items: pl.DataFrame) -> list[str]:
    """Return the ids of the items that must not be shown, sorted."""
    return items.filter(~pl.col(c.AVAILABLE).fill_null(True))[c.ITEM_ID].sort().to_list()


def publication_rows(lists: pl.DataFrame, publication_id: str) -> pl.DataFrame:
    """Return lists as rows of `columns.RECOMMENDATIONS`."""
    return lists.with_columns(pl.lit(publication_id).alias(c.PUBLICATION_ID)).select(
        pl.col(name).cast(dtype) for name, dtype in c.RECOMMENDATIONS.items()
    )


def lists_sum(lists: pl.DataFrame) -> str:
    """Return the sha256 of who is shown what, in the order of users and positions."""
    text = lists.sort(c.USER_ID, c.POSITION).select(
        pl.concat_str(c.USER_ID, c.POSITION, c.ITEM_ID, separator="\t")
    )
    return hashlib.sha256("\n".join(text.to_series()).encode()).hexdigest()


def bases(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of base publications, oldest generation first."""
    return publications.filter(pl.col(c.BASE).is_null()).sort(c.GENERATION)


def live(publications: pl.DataFrame) -> dict[str, Any] | None:
    """Return the row of the live base publication, or ``None`` before the first."""
    rows = bases(publications)
    return rows.row(-1, named=True) if rows.height else None


def next_row(
    publications: pl.DataFrame, facts: Mapping[str, Any], *, as_of: datetime, live_from: datetime
) -> pl.DataFrame | None:
    """Return the row whose commit is the swap, or ``None`` if it was committed before.

    Raises `ConcurrencyError` when a publication with the same or a later as-of went live first.
    """
    if facts[c.PUBLICATION_ID] in publications[c.PUBLICATION_ID]:
        return None
    now_live = live(publications)
    if now_live is not None and now_live[c.AS_OF] >= as_of:
        raise ConcurrencyError(
            "publish.superseded",
            f"publication {now_live[c.PUBLICATION_ID]} went live with as-of "
            f"{now_live[c.AS_OF]:%Y-%m-%dT%H:%MZ}, which is not before {as_of:%Y-%m-%dT%H:%MZ}",
        )
    newest = publications[c.GENERATION].max()
    row = {
        **facts,
        c.GENERATION: (newest if isinstance(newest, int) else 0) + 1,
        c.BASE: None,
        c.AS_OF: as_of,
        c.LIVE_FROM: live_from,
    }
    return pl.DataFrame([row], schema=c.PUBLICATIONS)


def chain(publications: pl.DataFrame, base: str) -> pl.DataFrame:
    """Return the rows of a base and of its patches, oldest first."""
    return publications.filter(of_publication(base) | (pl.col(c.BASE) == base)).sort(c.GENERATION)


@dataclass(frozen=True)
class Patch:
    """Lists that can go live behind the newest publication of a chain.

    Attributes
    ----------
    at
        Exclusive end of the events that the lists know.
    lists
        Rows of `columns.RECOMMENDATIONS` without the publication, as `trim` returns them.
    users
        Users with a list in it.
    outside
        Users whose new events are all with items that the model does not know; they keep their
        lists.
    files
        Keys of the files whose events are new in it.
    """

    publication_id: str
    at: datetime
    catalogue_version: int | None
    lists: pl.DataFrame
    users: int
    outside: int
    files: tuple[str, ...]

    def row(self, behind: PublicationRow, *, live_from: datetime) -> pl.DataFrame:
        """Return its row of `publications`, behind the newest one of the chain."""
        row = {
            **behind,
            c.PUBLICATION_ID: self.publication_id,
            c.GENERATION: behind[c.GENERATION] + 1,
            c.BASE: behind[c.BASE] or behind[c.PUBLICATION_ID],
            c.AS_OF: self.at,
            c.LIVE_FROM: live_from,
            c.CATALOGUE_VERSION: self.catalogue_version,
            c.SUMS: lists_sum(self.lists),
        }
        return pl.DataFrame([row], schema=c.PUBLICATIONS)


def check_patch(publications: pl.DataFrame, patch: Mapping[str, Any]) -> None:
    """Raise `ConcurrencyError` unless the patch would go live right behind what it is for."""
    name, base = patch[c.PUBLICATION_ID], patch[c.BASE]
    now_live = live(publications)
    if now_live is None or now_live[c.PUBLICATION_ID] != base:
        instead = "nothing is" if now_live is None else f"{now_live[c.PUBLICATION_ID]} is"
        raise ConcurrencyError(
            "publish.base_replaced",
            f"patch {name} is for publication {base}, which is no longer live: {instead}",
        )
    last = chain(publications, base).row(-1, named=True)
    if last[c.GENERATION] != patch[c.GENERATION] - 1:
        raise ConcurrencyError(
            "publish.overtaken",
            f"patch {name} would be generation {patch[c.GENERATION]} of the lists, but "
            f"{last[c.PUBLICATION_ID]} went live first",
        )


def of_chain(rows: pl.DataFrame) -> pl.Expr:
    """Select the lists of some publications, such as those of a chain."""
    return pl.col(c.PUBLICATION_ID).is_in(rows[c.PUBLICATION_ID].to_list())


def newest(lists: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return, of each person, the list of the newest of some publications that holds one."""
    dated = lists.join(rows.select(c.PUBLICATION_ID, c.GENERATION), on=c.PUBLICATION_ID)
    last = pl.col(c.GENERATION) == pl.col(c.GENERATION).max().over(c.USER_ID)
    return dated.filter(last).drop(c.GENERATION)


def unpatched(lists: pl.DataFrame, base: str) -> pl.DataFrame:
    """Return a base's lists of those people who have no list in its patches."""
    mine = of_publication(base)
    return lists.filter(mine).join(lists.filter(~mine), on=c.USER_ID, how="anti")


def of_publication(publication_id: str) -> pl.Expr:
    """Select the lists of one publication."""
    return pl.col(c.PUBLICATION_ID) == publication_id


def first_entries(publication_id: str, length: int) -> pl.Expr:
    """Select the first entries of the lists of one publication."""
    return of_publication(publication_id) & (pl.col(c.POSITION) <= length)


def of_users(lists: pl.DataFrame, wanted: Mapping[str, str | None]) -> pl.DataFrame:
    """Return the lists of people by their raw ids.

    Parameters
    ----------
    wanted
        Raw id -> pseudonym, or ``None`` for somebody who is not known.

    Returns
    -------
    The rows of `lists` with raw ids, people in the order given; whoever has no list of their own
    gets the one for anyone.
    """
    have = set(lists[c.USER_ID].unique())
    owners = [name if name in have else c.ANYONE for name in wanted.values()]
    schema = {_RAW: pl.String, c.USER_ID: pl.String}
    users = pl.DataFrame({_RAW: list(wanted), c.USER_ID: owners}, schema=schema)
    # The order of the join is part of the result: users as wanted, then positions.
    rows = users.join(lists.sort(c.POSITION), on=c.USER_ID, maintain_order="left_right")
    return rows.with_columns(pl.col(_RAW).alias(c.USER_ID)).drop(_RAW)


def with_raw_ids(lists: pl.DataFrame, raw: Mapping[str, str]) -> pl.DataFrame:
    """Return all lists with raw ids; the list for anyone keeps its `columns.ANYONE`."""
    return lists.with_columns(pl.col(c.USER_ID).replace(dict(raw))).sort(c.USER_ID, c.POSITION)


def plain_rows(lists: pl.DataFrame) -> Sequence[dict[str, Any]]:
    """Return rows as plain JSON, scores rounded to what a float32 carries."""
    return lists.with_columns(pl.col(c.SCORE).cast(pl.Float64).round_sig_figs(7)).to_dicts()
