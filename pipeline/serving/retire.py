"""Selection of the publications whose lists are removed.

Guarantees: a base and its patches stay or go together. The last two bases stay whatever their age:
one is live, the other is the target of a rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.serving.publish import bases

_LAST: Final = 2
_UNTIL: Final = "until"


def last_bases(publications: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the live base and of the one before it."""
    return bases(publications).tail(_LAST)


def retired(
    publications: pl.DataFrame, listed: Mapping[str, datetime], before: datetime
) -> list[str]:
    """Return the publications whose lists can be removed.

    Parameters
    ----------
    publications
        Rows of `columns.PUBLICATIONS`.
    listed
        Publications that have lists -> the instant at which these were written, UTC. A publication
        without a row was left behind by a process that was killed.
    before
        Lists are removed if they were written, and replaced by a newer base, before this instant.

    Returns
    -------
    Publication ids, sorted.
    """
    # A base is live until the next one is; the newest has no end and is never old.
    until = pl.col(c.LIVE_FROM).shift(-1).alias(_UNTIL)
    old = bases(publications).with_columns(until).head(-_LAST).filter(pl.col(_UNTIL) < before)
    chain = pl.col(c.BASE).fill_null(pl.col(c.PUBLICATION_ID))
    gone = set(publications.filter(chain.is_in(old[c.PUBLICATION_ID].to_list()))[c.PUBLICATION_ID])
    never = set(listed) - set(publications[c.PUBLICATION_ID])
    return sorted(never | {name for name in gone & set(listed) if listed[name] < before})
