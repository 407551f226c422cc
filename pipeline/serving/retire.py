"""Which lists are kept: those that are live, those before them, those that were lately shown.

Promises: a base and its patches stay or go together; the last two bases stay whatever their age,
for the one is shown and the other is what a rollback goes back to.
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
    """Return the publications whose lists may go, sorted.

    Parameters
    ----------
    listed
        Publications that have lists, and when those were written; one that was never published was
        left by a process that died.
    before
        Lists go that were written, and whose place others took, before this instant.
    """
    until = pl.col(c.LIVE_FROM).shift(-1).alias(_UNTIL)
    old = bases(publications).with_columns(until).head(-_LAST).filter(pl.col(_UNTIL) < before)
    chain = pl.col(c.BASE).fill_null(pl.col(c.PUBLICATION_ID))
    gone = set(publications.filter(chain.is_in(old[c.PUBLICATION_ID].to_list()))[c.PUBLICATION_ID])
    never = set(listed) - set(publications[c.PUBLICATION_ID])
    return sorted(never | {name for name in gone & set(listed) if listed[name] < before})
