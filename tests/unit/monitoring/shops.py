"""A shop for tests of drift: sixty users, forty items in four aisles, day after day the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.monitoring.drift import drift, windows_at
from pipeline.monitoring.signals import Known
from pipeline.monitoring.verdicts import DriftConfig

END = datetime(2026, 6, 1, 3, tzinfo=UTC)
CONFIG = DriftConfig()
WEIGHTS = 1.0 / np.arange(1, 41)
ITEMS = pl.DataFrame(
    {
        c.ITEM_ID: [f"i{n:02}" for n in range(40)],
        c.PRICE: [1.0 + n % 9 for n in range(40)],
        c.CATEGORIES: [
            [f"aisle {n % 4}"] if n % 5 else [f"aisle {n % 4}", "new"] for n in range(40)
        ],
    }
)


def shop(seed=0, days=70, change=None, since=0, n_users=60):
    """Events of the `days` before `END`; `change(row, rng)` alters those of the last `since`."""
    rng = np.random.default_rng(seed)
    law = WEIGHTS / WEIGHTS.sum()
    rows = []
    for day in range(days):
        start = END - timedelta(days=days - day)
        for user in np.flatnonzero(rng.random(n_users) < 0.6):
            for item in rng.choice(40, 4, p=law):
                kind = "purchase" if rng.random() < 0.3 else "view"
                at = start + timedelta(seconds=int(rng.integers(86_400)))
                row = [f"u{user:03}", f"i{item:02}", kind, float(rng.integers(1, 6)), at]
                if change is not None and days - day <= since:
                    row = change(row, rng)
                rows.append(row)
    schema = {
        c.USER_ID: pl.String,
        c.ITEM_ID: pl.String,
        c.KIND: pl.String,
        c.VALUE: pl.Float64,
        c.TIMESTAMP: c.INSTANT,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def judged(events, *, items=ITEMS, qualities=(), restarts=None, end=END, config=CONFIG):
    """Judge all signals of events, of which those before the windows are the known ones."""
    start = windows_at(end, config).span.start
    old = events.filter(pl.col(c.TIMESTAMP) < start)
    known = Known(old[c.USER_ID].unique(), old[c.ITEM_ID].unique())
    return drift(events, items, known, qualities, restarts or {}, end=end, config=config)


def named(report):
    return {signal.name: signal for signal in report.signals}


def drifting(report):
    return {signal.name for signal in report.signals if signal.status == "drift"}
