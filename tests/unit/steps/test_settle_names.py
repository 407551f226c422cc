from datetime import timedelta

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.steps.config import Config
from pipeline.steps.settle import earlier
from tests.worlds import START, purchases


def test_the_windows_that_choose_know_nobody_by_name():
    rows = purchases(days=60)
    instant = pl.col(c.TIMESTAMP).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    events = rows.with_columns(
        instant, pl.lit("purchase").alias(c.KIND), pl.lit(1.0).alias(c.VALUE)
    )
    dice = np.random.default_rng(1)
    names = {u: f"{n:04}" for u, n in zip(
        events[c.USER_ID].unique().sort(), dice.permutation(9999), strict=False
    )}  # fmt: skip
    other = events.with_columns(pl.col(c.USER_ID).replace(names))[dice.permutation(events.height)]
    until = START + timedelta(days=60)
    config = Config(split={"min_users": 50})
    ours = list(earlier(events, until, config, "discovery"))
    theirs = list(earlier(other, until, config, "discovery"))
    assert len(ours) == len(theirs) > 1
    for a, b in zip(ours, theirs, strict=True):
        mine, yours = a.history.arrays(), b.history.arrays()
        assert mine.keys() == yours.keys()
        assert all(np.array_equal(mine[name], yours[name]) for name in mine)
