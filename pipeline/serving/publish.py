"""The rows of a publication, and how a reader finds them.

Promises: the live publication is the base with the highest generation; a publication moves the
pointer only if its as-of is later than that of the live base; the sum of its lists stands in its
row, so a reader can tell a whole publication from a damaged one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.errors import ConcurrencyError


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


def live(publications: pl.DataFrame) -> dict[str, Any] | None:
    """Return the row of the live base publication, or ``None`` before the first."""
    bases = publications.filter(pl.col(c.BASE).is_null()).sort(c.GENERATION)
    return bases.row(-1, named=True) if bases.height else None


def next_row(
    publications: pl.DataFrame, facts: Mapping[str, Any], *, as_of: datetime, live_from: datetime
) -> pl.DataFrame | None:
    """Return the row whose commit is the swap, or ``None`` if it was committed before.

    Raises `ConcurrencyError` when a publication with the same or a later as-of went live first.
    """
    mine = publications.filter(pl.col(c.PUBLICATION_ID) == facts[c.PUBLICATION_ID])
    if mine.height:
        return None
    now_live = live(publications)
    if now_live is not None and now_live[c.AS_OF] >= as_of:
        raise ConcurrencyError(
            f"publication {now_live[c.PUBLICATION_ID]} went live with as-of "
            f"{now_live[c.AS_OF]:%Y-%m-%dT%H:%MZ}, which is not before {as_of:%Y-%m-%dT%H:%MZ}"
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


def of_publication(publication_id: str) -> pl.Expr:
    """Select the lists of one publication."""
    return pl.col(c.PUBLICATION_ID) == publication_id


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
    asked = pl.DataFrame(
        {
            "raw": list(wanted),
            c.USER_ID: [p if p in have else c.ANYONE for p in wanted.values()],
            "order": range(len(wanted)),
        },
        schema={"raw": pl.String, c.USER_ID: pl.String, "order": pl.Int64},
    )
    return (
        asked.join(lists, on=c.USER_ID)
        .sort("order", c.POSITION)
        .with_columns(pl.col("raw").alias(c.USER_ID))
        .drop("raw", "order")
    )


def with_raw_ids(lists: pl.DataFrame, raw: Mapping[str, str]) -> pl.DataFrame:
    """Return all lists with raw ids; the list for anyone keeps its `columns.ANYONE`."""
    return lists.with_columns(pl.col(c.USER_ID).replace(dict(raw))).sort(c.USER_ID, c.POSITION)


def plain_rows(lists: pl.DataFrame) -> Sequence[dict[str, Any]]:
    """Return rows as plain JSON, scores rounded to what a float32 carries."""
    return lists.with_columns(pl.col(c.SCORE).cast(pl.Float64).round_sig_figs(7)).to_dicts()
