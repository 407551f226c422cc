"""Small windows of random events for the tests of models."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history

END = datetime(2026, 3, 1, tzinfo=UTC)


def random_history(
    seed=0, n_users=300, n_items=80, events=6000, scale=1.0, end=END, tail=0.05
) -> History:
    """A few items are had by many (the fewer, the higher `tail`); one event in five takes back."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            c.USER_ID: [f"u{n:03}" for n in rng.integers(0, n_users, events)],
            c.ITEM_ID: [f"i{n:03}" for n in rng.geometric(tail, events) % n_items],
            c.TIMESTAMP: [END - timedelta(days=float(d)) for d in rng.uniform(0.1, 300, events)],
            WEIGHT: (rng.choice([1.0, 1.0, 2.0, 3.0, -1.0], events) * scale).astype(np.float32),
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )
    return build_history(frame, end)


def pairs(rows, end=END) -> History:
    """From (user, item[, weight]), all a day before the end."""
    day = end - timedelta(days=1)
    return build_history(
        pl.DataFrame(
            [(user, item, day, *(weight or [1.0])) for user, item, *weight in rows],
            schema={
                c.USER_ID: pl.String(),
                c.ITEM_ID: pl.String(),
                c.TIMESTAMP: c.INSTANT,
                WEIGHT: pl.Float32(),
            },
            orient="row",
        ),
        end,
    )


def shuffled(history: History, seed=1) -> tuple[History, np.ndarray]:
    """The same people in another order under other names, and their rows in `history`."""
    order = np.random.default_rng(seed).permutation(history.n_users)
    names = np.array([f"p{n:05}" for n in range(len(order))])
    return replace(history.take(order), user_ids=names), order
