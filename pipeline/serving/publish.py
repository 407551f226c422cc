"""Rows of publications, and the selection of the lists that are live.

Guarantees:

* The live publication is the base with the highest generation.
* A base goes live only if its as-of is later than that of the live base.
* The row of a publication holds the checksum of its lists, so a reader can detect damaged ones.
* A patch goes live only directly behind the publication that it was made against.

A *patch* is a publication with a base, and lists for a few users. The list of a user is the newest
one in the chain of the live base (the base, then its patches); a new base ends the chain.
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
    """Settings of a publication."""

    live_from: Literal["clock", "as_of"] = Field(
        default="clock",
        description="Instant from which a publication counts as shown: `clock` is the time of the "
        "publication, `as_of` the as-of of its run (for replays of the past).",
    )
    spare_items: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="Entries stored behind each list. They replace items that become unavailable "
        "before the list goes live or while it is live.",
    )


_RAW: Final = "raw"
_LAST: Final = "last"
_LENGTH: Final = "length"

PublicationRow: TypeAlias = Mapping[str, Any]
"""A row of `columns.PUBLICATIONS` as the lake returns it."""


def trim(lists: pl.DataFrame, unavailable: Collection[str], length: int) -> pl.DataFrame:
    """Remove unavailable items from lists, close the gaps and cut the lists.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS`, with or without the publication.
    unavailable
        Item ids to remove.
    length
        Entries of a list, at most.

    Returns
    -------
    The remaining rows sorted by user and position; positions start at 1 and have no gaps.
    """
    position = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(c.USER_ID)
    return (
        lists.filter(~pl.col(c.ITEM_ID).is_in(sorted(unavailable)))
        .sort(c.USER_ID, c.POSITION)
        .with_columns(position.alias(c.POSITION))
        .filter(pl.col(c.POSITION) <= length)
    )


def spare_entries(
    made: pl.DataFrame, shown: pl.DataFrame, unavailable: Collection[str], most: int
) -> pl.DataFrame:
    """Return the first entries that a run computed behind the lists that it published.

    Parameters
    ----------
    made, shown
        Rows of `columns.RECOMMENDATIONS` of the run and of its publication.
    unavailable
        Item ids to leave out.
    most
        Entries behind each list, at most.

    Returns
    -------
    Rows of `made` sorted by user and position, which continues that of the shown list.
    """
    keys = [c.USER_ID, c.ITEM_ID]
    # Entries before the last shown one were unavailable when the list went live.
    last = (
        made.join(shown, on=keys, how="semi")
        .group_by(c.USER_ID)
        .agg(pl.col(c.POSITION).max().alias(_LAST))
    )
    length = shown.group_by(c.USER_ID).agg(pl.len().cast(pl.Int32).alias(_LENGTH))
    behind = made.join(last, on=c.USER_ID).filter(pl.col(c.POSITION) > pl.col(_LAST))
    rows = trim(behind, unavailable, most).join(length, on=c.USER_ID, maintain_order="left")
    return rows.with_columns(pl.col(c.POSITION) + pl.col(_LENGTH)).drop(_LAST, _LENGTH)


def unavailable(items: pl.DataFrame) -> list[str]:
    """Return the ids of the items that must not be shown, sorted.

    A missing value of `available` counts as available.
    """
    return items.filter(~pl.col(c.AVAILABLE).fill_null(True))[c.ITEM_ID].sort().to_list()


def publication_rows(lists: pl.DataFrame, publication_id: str) -> pl.DataFrame:
    """Add the publication to lists.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS` without the publication.
    publication_id
        Publication that they belong to.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS`, columns in the order and of the types of the table.
    """
    return lists.with_columns(pl.lit(publication_id).alias(c.PUBLICATION_ID)).select(
        pl.col(name).cast(dtype) for name, dtype in c.RECOMMENDATIONS.items()
    )


def lists_sum(lists: pl.DataFrame) -> str:
    """Return the sha256 of users, positions and items, independent of the order of the rows."""
    # Scores stay out of it: the checksum covers the content that a user sees.
    text = lists.sort(c.USER_ID, c.POSITION).select(
        pl.concat_str(c.USER_ID, c.POSITION, c.ITEM_ID, separator="\t")
    )
    return hashlib.sha256("\n".join(text.to_series()).encode()).hexdigest()


def first_altered(lists: pl.DataFrame, rows: pl.DataFrame) -> str | None:
    """Return the first publication whose lists differ from the checksum of its row.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS`, complete for each of the publications.
    rows
        Rows of `columns.PUBLICATIONS`.

    Returns
    -------
    Its id; ``None`` if all lists are as published.
    """
    parts = lists.partition_by(c.PUBLICATION_ID, as_dict=True)
    for row in rows.sort(c.GENERATION).iter_rows(named=True):
        name = row[c.PUBLICATION_ID]
        if lists_sum(parts.get((name,), lists.clear())) != row[c.SUMS]:
            return str(name)
    return None


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
    """Return the row whose commit makes a base publication live.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    facts
        The columns of the row that do not follow from `publications` or the other arguments.
    as_of
        As-of of the run, UTC.
    live_from
        Instant from which the publication counts as shown, UTC.

    Returns
    -------
    One row of `columns.PUBLICATIONS`; ``None`` if an earlier attempt committed it.

    Raises
    ------
    ConcurrencyError
        `publish.superseded`: a publication with the same or a later as-of is live.
    """
    if facts[c.PUBLICATION_ID] in publications[c.PUBLICATION_ID]:
        return None
    now_live = live(publications)
    if now_live is not None and now_live[c.AS_OF] >= as_of:
        raise ConcurrencyError(
            "publish.superseded",
            f"publication {now_live[c.PUBLICATION_ID]} with as-of "
            f"{now_live[c.AS_OF]:%Y-%m-%dT%H:%MZ} is live; a run as of {as_of:%Y-%m-%dT%H:%MZ} "
            "does not replace it. Start a run with a later as-of",
        )
    # Patches have generations, too, so the newest row counts and not the newest base.
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
    """Select a base and its patches.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    base
        Publication id of the base.

    Returns
    -------
    Their rows, oldest generation first.
    """
    return publications.filter(of_publication(base) | (pl.col(c.BASE) == base)).sort(c.GENERATION)


@dataclass(frozen=True)
class Patch:
    """Lists that can go live behind the newest publication of a chain.

    Attributes
    ----------
    at
        Exclusive end of the events that the lists contain, UTC.
    lists
        Rows of `columns.RECOMMENDATIONS` without the publication, as `trim` returns them.
    users
        Users with a list in it.
    outside
        Users whose new events are all on items unknown to the model; they keep their lists.
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
        """Return the row of the patch.

        Parameters
        ----------
        behind
            Newest row of the chain.
        live_from
            Instant from which the patch counts as shown, UTC.

        Returns
        -------
        One row of `columns.PUBLICATIONS`.
        """
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
    """Check that a patch would go live directly behind the publication that it was made against.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`, read under the lock ``publish``.
    patch
        The row of the patch, see `Patch.row`.

    Raises
    ------
    ConcurrencyError
        `publish.base_replaced`: the base of the patch is not live any more;
        `publish.overtaken`: another patch of it went live first.
    """
    name, base = patch[c.PUBLICATION_ID], patch[c.BASE]
    now_live = live(publications)
    if now_live is None or now_live[c.PUBLICATION_ID] != base:
        instead = "none" if now_live is None else now_live[c.PUBLICATION_ID]
        raise ConcurrencyError(
            "publish.base_replaced",
            f"patch {name} belongs to publication {base}, but the live publication is {instead}; "
            "run `nightjar fold-in` again",
        )
    # Generations of the live chain are consecutive: a gap is a patch that went live first.
    last = chain(publications, base).row(-1, named=True)
    if last[c.GENERATION] != patch[c.GENERATION] - 1:
        raise ConcurrencyError(
            "publish.overtaken",
            f"patch {name} would be generation {patch[c.GENERATION]}, but "
            f"{last[c.PUBLICATION_ID]} went live first; run `nightjar fold-in` again",
        )


def of_chain(rows: pl.DataFrame) -> pl.Expr:
    """Select the lists of some publications, such as those of a chain."""
    return pl.col(c.PUBLICATION_ID).is_in(rows[c.PUBLICATION_ID].to_list())


def of_these_users(users: Collection[str]) -> pl.Expr:
    """Select the lists of some users, by pseudonym."""
    return pl.col(c.USER_ID).is_in(list(users))


def newest(lists: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Select the live list of each user.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS`.
    rows
        Rows of the publications to select from, such as those of a `chain`.

    Returns
    -------
    Per user the rows of the newest publication that has a list for them.
    """
    dated = lists.join(rows.select(c.PUBLICATION_ID, c.GENERATION), on=c.PUBLICATION_ID)
    last = pl.col(c.GENERATION) == pl.col(c.GENERATION).max().over(c.USER_ID)
    return dated.filter(last).drop(c.GENERATION)


def unpatched(lists: pl.DataFrame, base: str) -> pl.DataFrame:
    """Select the lists of a base for users without a list in its patches.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS` of a base and its patches.
    base
        Publication id of the base.

    Returns
    -------
    The rows of the base for these users.
    """
    mine = of_publication(base)
    return lists.filter(mine).join(lists.filter(~mine), on=c.USER_ID, how="anti")


def of_publication(publication_id: str) -> pl.Expr:
    """Select the lists of one publication."""
    return pl.col(c.PUBLICATION_ID) == publication_id


def first_entries(publication_id: str, length: int) -> pl.Expr:
    """Select the first entries of the lists of one publication.

    Parameters
    ----------
    publication_id
        Publication of the lists.
    length
        Number of entries of each list.

    Returns
    -------
    Condition on the columns `publication_id` and `position`.
    """
    return of_publication(publication_id) & (pl.col(c.POSITION) <= length)


def of_users(lists: pl.DataFrame, wanted: Mapping[str, str | None]) -> pl.DataFrame:
    """Return the lists of users by their raw ids.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS` under pseudonyms.
    wanted
        Raw id -> pseudonym, or ``None`` for an unknown user.

    Returns
    -------
    The rows of `lists` with raw ids, users in the given order; users without a list of their own
    get the fallback list.
    """
    have = set(lists[c.USER_ID].unique())
    owners = [name if name in have else c.FALLBACK_USER for name in wanted.values()]
    schema = {_RAW: pl.String, c.USER_ID: pl.String}
    users = pl.DataFrame({_RAW: list(wanted), c.USER_ID: owners}, schema=schema)
    # The order of the join is part of the result: users as wanted, then positions.
    rows = users.join(lists.sort(c.POSITION), on=c.USER_ID, maintain_order="left_right")
    return rows.with_columns(pl.col(_RAW).alias(c.USER_ID)).drop(_RAW)


def with_raw_ids(lists: pl.DataFrame, raw: Mapping[str, str]) -> pl.DataFrame:
    """Replace pseudonyms by raw ids.

    Parameters
    ----------
    lists
        Rows of `columns.RECOMMENDATIONS` under pseudonyms.
    raw
        Pseudonym -> raw id.

    Returns
    -------
    The rows sorted by user and position; the fallback list keeps the id `columns.FALLBACK_USER`.
    """
    return lists.with_columns(pl.col(c.USER_ID).replace(dict(raw))).sort(c.USER_ID, c.POSITION)


def plain_rows(lists: pl.DataFrame) -> Sequence[dict[str, Any]]:
    """Return rows as plain JSON values."""
    # Scores are float32: more than 7 digits of the float64 in JSON would be noise.
    return lists.with_columns(pl.col(c.SCORE).cast(pl.Float64).round_sig_figs(7)).to_dicts()
