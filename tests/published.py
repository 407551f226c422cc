"""Publications, lists and events written by hand, of one day in May."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from pipeline import columns as c

DAY = datetime(2026, 5, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def log(*rows):
    """(user, item, instant) each."""
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: c.INSTANT}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def publications(*rows):
    """(id, generation, base, version, as-of, live from) each."""
    names = (c.PUBLICATION_ID, c.GENERATION, c.BASE, c.MODEL_VERSION, c.AS_OF, c.LIVE_FROM)
    empty = dict.fromkeys(c.PUBLICATIONS)
    made = [{**empty, **dict(zip(names, row, strict=True))} for row in rows]
    return pl.DataFrame(made, schema=c.PUBLICATIONS)


def lists(shown):
    """{(publication, user): items}; `fallback` where the user is any user, or named with a `~`."""
    rows = [
        {
            c.PUBLICATION_ID: publication,
            c.USER_ID: user.removeprefix("~"),
            c.POSITION: place,
            c.ITEM_ID: item,
            c.SCORE: 1.0,
            c.SLOT: "fallback" if user[0] in "*~" else "model",
            c.PROPENSITY: 1.0,
            c.REASON: "",
        }
        for (publication, user), items in shown.items()
        for place, item in enumerate(items, start=1)
    ]
    return pl.DataFrame(rows, schema=c.RECOMMENDATIONS)
