"""Small windows of random events for the tests of models."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import scipy.sparse as sp

from pipeline import columns as c
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import RATING, WEIGHT, History, build_history
from pipeline.models.contract import Scores
from pipeline.models.topk import pair_scores

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
            RATING: rng.integers(1, 6, events).astype(np.float32),
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )
    return build_history(frame, end)


def window(rows, end=END) -> History:
    """From (user, item, days before `END`, weight[, rating]).

    An event that weighs something is rated 4 unless it has a rating of its own.
    """

    def event(user, item, days, weight, rating=None):
        rating = 4.0 if rating is None and weight > 0 else rating
        return user, item, END - timedelta(days=days), weight, rating

    return build_history(
        pl.DataFrame(
            [event(*row) for row in rows],
            schema={
                c.USER_ID: pl.String(),
                c.ITEM_ID: pl.String(),
                c.TIMESTAMP: c.INSTANT,
                WEIGHT: pl.Float32(),
                RATING: pl.Float32(),
            },
            orient="row",
        ),
        end,
    )


def pairs(rows) -> History:
    """From (user, item[, weight]), all a day before `END`."""
    return window((user, item, 1, *(weight or [1.0])) for user, item, *weight in rows)


def shuffled(history: History, seed=1) -> tuple[History, np.ndarray]:
    """The same users in another order under other names, and their rows in `history`."""
    order = np.random.default_rng(seed).permutation(history.n_users)
    names = np.array([f"p{n:05}" for n in range(len(order))])
    return replace(history.take(order), user_ids=names), order


def dense(scores: Scores) -> np.ndarray:
    """All scores, users × items."""
    n_users, n_items = scores.shape
    user, item = np.divmod(np.arange(n_users * n_items), n_items)
    return pair_scores(scores, user, item).reshape(n_users, n_items)


GROUPS, SIZE = 3, 10


def described(rows, width: int = GROUPS) -> FeatureMatrix:
    """From one list of feature numbers for each row."""
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.array([column for row in rows for column in row], np.int32)
    cells = sp.csr_matrix((np.ones(len(indices), np.float32), indices, indptr), (len(rows), width))
    return FeatureMatrix(np.array([f"f={n}" for n in range(width)]), cells)


def grouped(dislikes: bool = False) -> History:
    """Three groups of ten users and ten items; a user has most items of the own group.

    With `dislikes`, a user gave back some items of the other groups.
    """
    rng = np.random.default_rng(0)
    rows = []
    for group in range(GROUPS):
        for n in range(SIZE):
            for other in range(GROUPS):
                for m in range(SIZE):
                    if group == other and rng.random() < 0.8:
                        rows.append((f"u{group}{n}", f"i{other}{m}", 1.0))
                    elif dislikes and group != other and rng.random() < 0.3:
                        rows.append((f"u{group}{n}", f"i{other}{m}", 0.0))
    return pairs(rows)


def with_groups(history: History, cold_items: bool = True, users: bool = True) -> History:
    """The groups of items and users as features, and a new item of each group.

    The new items sort before, among and after the others.
    """
    return replace(
        history,
        item_features=described([[int(item[1])] for item in history.item_ids.tolist()]),
        user_features=described([[int(user[1])] for user in history.user_ids.tolist()])
        if users
        else None,
        cold_items=ColdItems(np.array(["a0", "i1new", "z2"]), described([[0], [1], [2]]))
        if cold_items
        else None,
    )


def strangers(history: History, tastes) -> History:
    """Users without an event, described by their tastes."""
    return History(
        user_ids=np.array([f"new{n}" for n in range(len(tastes))]),
        item_ids=history.item_ids,
        indptr=np.zeros(len(tastes) + 1, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=history.end,
        user_features=described(tastes),
    )
