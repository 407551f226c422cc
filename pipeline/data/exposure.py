"""Which list a person could see at an instant: the base, its chain of patches, or anyone's list.

Promises: at each instant a person is shown one list or none; the order of rows changes nothing;
whose clock ran behind does not bring an older list back, for the generation decides.

Of an instant ``t``, the live base is the publication without a base that has the highest generation
of those with ``live_from ≤ t``. A user's list is the newest generation of that base's chain (the
base, and the patches of it that were live by then) that holds one for them, else the one for
`columns.ANYONE`.
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
"""Publication and owner of a list, and the half-open interval in which it was its owner's."""

_START: Final = "start"
_NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def active_publications(publications: pl.DataFrame, span: Interval) -> list[str]:
    """Return the ids of the publications that some event of the span can have been shown."""
    until = pl.col(c.LIVE_FROM).shift(-1)
    overlaps = (pl.col(c.LIVE_FROM) < span.end) & (until.is_null() | (until > span.start))
    live = _swaps(publications).filter(overlaps)[c.PUBLICATION_ID].to_list()
    base = pl.col(c.BASE)
    chain = publications.filter(pl.col(c.PUBLICATION_ID).is_in(live) | base.is_in(live))
    return sorted(chain.filter(pl.col(c.LIVE_FROM) < span.end)[c.PUBLICATION_ID])


def lists_for(publication_ids: Collection[str], users: Collection[str]) -> pl.Expr:
    """Select the rows of `recommendations` that these users can have been shown."""
    people = sorted({*users, c.ANYONE})
    return pl.col(c.PUBLICATION_ID).is_in(sorted(publication_ids)) & pl.col(c.USER_ID).is_in(people)


def exposure_intervals(publications: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    """Return when each list was its owner's; no two of one owner overlap.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    lists
        `publication_id`, `user_id` of the lists of publications that are in play; as often as
        there are entries, or once.

    Returns
    -------
    `shown` and `owner` of the list, `since` and `until`, sorted by `since`; the list's own
    `generation` and `as_of`; `base`, and `model_version` and `recipe` of that base.
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
        pl.col(c.LIVE_FROM).alias(_START),
    ).join(bases, on=c.BASE)
    chain = chain.with_columns(pl.max_horizontal(_START, SINCE).alias(SINCE)).drop(_START)
    owned = lists.select(pl.col(c.PUBLICATION_ID).alias(SHOWN), pl.col(c.USER_ID).alias(OWNER))
    held = owned.unique().join(chain, on=SHOWN).sort(c.GENERATION, descending=True)
    # Whatever is newer ends a list, in whichever order the clocks had it.
    newer = pl.col(SINCE).cum_min().shift(1).over(c.BASE, OWNER)
    held = held.with_columns(pl.min_horizontal(UNTIL, newer).alias(UNTIL))
    held = held.filter(pl.col(SINCE) < pl.col(UNTIL))
    return held.sort(SINCE, OWNER)


def bases_alone(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the publications as if nothing had been patched."""
    return publications.filter(pl.col(c.BASE).is_null())


def shown_at(rows: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Add to each event the list that its user could see; an event without one is left out.

    Parameters
    ----------
    rows
        `user_id`, `timestamp` and whatever else; all of it is kept, in an order of its own.
    shown
        `exposure_intervals` of these users and of anyone.
    """
    by_time = rows.sort(c.TIMESTAMP)
    own = _asof(by_time.with_columns(pl.col(c.USER_ID).alias(OWNER)), shown)
    anyone = _asof(
        by_time.join(own, on=[c.USER_ID, c.TIMESTAMP], how="anti").with_columns(
            pl.lit(c.ANYONE).alias(OWNER)
        ),
        shown,
    )
    return pl.concat([own, anyone])


def _asof(rows: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Join each row to the list of its owner that had begun last, if that had not ended."""
    matched = rows.join_asof(
        shown,
        left_on=c.TIMESTAMP,
        right_on=SINCE,
        by=OWNER,
        strategy="backward",
        check_sortedness=False,  # both are sorted above; with groups the library cannot tell
    )
    return matched.filter(pl.col(c.TIMESTAMP) < pl.col(UNTIL))


def _swaps(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the bases that ever were live, in the order in which they became so."""
    bases = bases_alone(publications).sort(c.LIVE_FROM, c.GENERATION)
    newest = pl.col(c.GENERATION) == pl.col(c.GENERATION).cum_max()
    # Of two that went live at one instant, the first was never seen.
    return bases.filter(newest).unique(c.LIVE_FROM, keep="last", maintain_order=True)
