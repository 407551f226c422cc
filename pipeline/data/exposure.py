"""Lists that users could see at an instant: those of a base, of its patches, or the fallback list.

The live base at instant ``t`` is the publication without a base that has the highest generation
among those with ``live_from ≤ t``. A user's list is the one of the highest generation in that
base's chain (the base and its patches live by ``t``), else the one for `columns.FALLBACK_USER`.

Guarantees: a user has at most one list at each instant; the order of rows is irrelevant; a
publisher with a slow clock cannot bring an older list back, since the generation decides.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval

SHOWN: Final = "shown"
OWNER: Final = "owner"
SINCE: Final = "since"
UNTIL: Final = "until"
"""Publication and owner of a list, and the half-open interval in which it was live."""

_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def active_publications(publications: pl.DataFrame, span: Interval) -> list[str]:
    """Return the ids of all publications that were live at some instant of an interval.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    span
        Interval in UTC.

    Returns
    -------
    Sorted ids of bases and their patches.
    """
    until = pl.col(c.LIVE_FROM).shift(-1)
    overlaps = (pl.col(c.LIVE_FROM) < span.end) & (until.is_null() | (until > span.start))
    live = _swaps(publications).filter(overlaps)[c.PUBLICATION_ID].to_list()
    base = pl.col(c.BASE)
    chain = publications.filter(pl.col(c.PUBLICATION_ID).is_in(live) | base.is_in(live))
    return sorted(chain.filter(pl.col(c.LIVE_FROM) < span.end)[c.PUBLICATION_ID])


def of_publications(publication_ids: Collection[str]) -> pl.Expr:
    """Return the condition for rows of `recommendations` of some publications."""
    return pl.col(c.PUBLICATION_ID).is_in(sorted(publication_ids))


def lists_for(publication_ids: Collection[str], users: Collection[str]) -> pl.Expr:
    """Return the condition for rows of `recommendations` that some users could see.

    Parameters
    ----------
    publication_ids
        Publications to include.
    users
        Users to include; the fallback list is always included.
    """
    owners = sorted({*users, c.FALLBACK_USER})
    return of_publications(publication_ids) & pl.col(c.USER_ID).is_in(owners)


def exposure_intervals(publications: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    """Compute the interval in which each list was live; those of one owner do not overlap.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    lists
        `publication_id`, `user_id` of the lists; repeated rows are allowed.

    Returns
    -------
    `shown` (publication), `owner`, `since` and `until` (UTC), sorted by `since` and `owner`;
    `generation` and `as_of` of the list; `base` with its `model_version` and `recipe`.
    """
    until = pl.col(c.LIVE_FROM).shift(-1).fill_null(_NEVER).alias(UNTIL)
    bases = _swaps(publications).select(
        pl.col(c.PUBLICATION_ID).alias(c.BASE),
        pl.col(c.LIVE_FROM).alias(SINCE),
        until,
        c.MODEL_VERSION,
        c.RECIPE,
    )
    chain = publications.select(
        pl.col(c.PUBLICATION_ID).alias(SHOWN),
        pl.col(c.BASE).fill_null(pl.col(c.PUBLICATION_ID)),
        c.GENERATION,
        c.AS_OF,
        c.LIVE_FROM,
    ).join(bases, on=c.BASE)
    since = pl.max_horizontal(c.LIVE_FROM, SINCE).alias(SINCE)
    chain = chain.with_columns(since).drop(c.LIVE_FROM)
    owned = lists.select(pl.col(c.PUBLICATION_ID).alias(SHOWN), pl.col(c.USER_ID).alias(OWNER))
    held = owned.unique().join(chain, on=SHOWN).sort(c.GENERATION, descending=True)
    # Any newer generation ends a list, even if its clock was behind: hence the running minimum.
    newer = pl.col(SINCE).cum_min().shift(1).over(c.BASE, OWNER)
    held = held.with_columns(pl.min_horizontal(UNTIL, newer).alias(UNTIL))
    held = held.filter(pl.col(SINCE) < pl.col(UNTIL))
    return held.sort(SINCE, OWNER)


def bases_alone(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the publications without patches."""
    return publications.filter(pl.col(c.BASE).is_null())


def shown_at(rows: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Join each event to the list that its user could see; events without a list are left out.

    Parameters
    ----------
    rows
        `user_id`, `timestamp` and further columns, which are kept.
    shown
        `exposure_intervals` of these users and of `columns.FALLBACK_USER`.

    Returns
    -------
    Columns of both frames, in no particular order of rows.
    """
    by_time = rows.sort(c.TIMESTAMP)
    own = _asof(by_time.with_columns(pl.col(c.USER_ID).alias(OWNER)), shown)
    # The fallback list counts only where the user has no list of their own at that instant.
    anyone = _asof(
        by_time.join(own, on=[c.USER_ID, c.TIMESTAMP], how="anti").with_columns(
            pl.lit(c.FALLBACK_USER).alias(OWNER)
        ),
        shown,
    )
    return pl.concat([own, anyone])


def _asof(rows: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Join each row to its owner's newest list, if that list is still live."""
    matched = rows.join_asof(
        shown,
        left_on=c.TIMESTAMP,
        right_on=SINCE,
        by=OWNER,
        strategy="backward",
        check_sortedness=False,  # both are sorted above; with groups polars cannot check it
    )
    return matched.filter(pl.col(c.TIMESTAMP) < pl.col(UNTIL))


def _swaps(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the bases that were ever live, in the order of going live."""
    bases = bases_alone(publications).sort(c.LIVE_FROM, c.GENERATION)
    newest = pl.col(c.GENERATION) == pl.col(c.GENERATION).cum_max()
    # Of two bases that went live at the same instant, the first was never visible.
    return bases.filter(newest).unique(c.LIVE_FROM, keep="last", maintain_order=True)
