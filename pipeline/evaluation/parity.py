"""Fold-in against training again: what lists of the one kind and the other were worth afterwards.

Promises: both are judged by the same events of the same people, as live lists are.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.targets import Task
from pipeline.evaluation.prequential import ALL, PrequentialRow, prequential

_NAME = "lists"


def list_quality(
    lists: pl.DataFrame,
    events: pl.DataFrame,
    past: pl.DataFrame,
    *,
    span: Interval,
    k: int,
    policy: Task,
) -> PrequentialRow | None:
    """Score lists as if they had been live for a whole span; ``None`` where nobody came back.

    Parameters
    ----------
    lists
        `user_id`, `position`, `item_id`, made by what was known at the start of the span.
    events, past
        As in `prequential`; whoever has no list counts for nothing.
    """
    rows = lists.with_columns(
        pl.lit(_NAME).alias(c.PUBLICATION_ID), pl.lit(c.Slot.MODEL.value).alias(c.SLOT)
    )
    row = dict.fromkeys(c.PUBLICATIONS) | {
        c.PUBLICATION_ID: _NAME,
        c.GENERATION: 1,
        c.MODEL_VERSION: "",
        c.RECIPE: "",
        c.AS_OF: span.start,
        c.LIVE_FROM: span.start,
    }
    scores = prequential(
        events,
        past,
        pl.DataFrame([row], schema=c.PUBLICATIONS),
        rows,
        span=span,
        k=k,
        policy=policy,
    )
    return next((one for one in scores.rows if one.slice == ALL), None)
