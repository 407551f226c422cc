from datetime import timedelta

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.data.split import PinnedTask
from pipeline.evaluation.earlier_windows import earlier_windows
from pipeline.workspace.config import Config
from tests import worlds
from tests.worlds import START

DISCOVERY = PinnedTask("discovery")


def test_the_windows_that_choose_do_not_depend_on_user_ids():
    events = worlds.events(days=60)
    rng = np.random.default_rng(1)
    names = {u: f"{n:04}" for u, n in zip(
        events[c.USER_ID].unique().sort(), rng.permutation(9999), strict=False
    )}  # fmt: skip
    other = events.with_columns(pl.col(c.USER_ID).replace(names))[rng.permutation(events.height)]
    until = START + timedelta(days=60)
    config = Config(split={"min_users": 50})
    named = list(earlier_windows(events, until, config.windows, DISCOVERY))
    renamed = list(earlier_windows(other, until, config.windows, DISCOVERY))
    assert len(named) == len(renamed) > 1
    for a, b in zip(named, renamed, strict=True):
        same(a.history, b.history)
    assert named[0].previous_day.history.end == named[0].history.end - timedelta(days=1)
    same(named[0].previous_day.judged, renamed[0].previous_day.judged)
    assert [window.previous_day for window in named[1:]] == [None] * (len(named) - 1)
    blind = next(earlier_windows(events, until, config.windows, DISCOVERY, with_stability=False))
    assert blind.previous_day is None
    same(blind.history, named[0].history)


def same(mine, yours):
    mine, yours = mine.arrays(), yours.arrays()
    assert mine.keys() == yours.keys()
    assert all(np.array_equal(mine[name], yours[name]) for name in mine)


def test_a_window_of_less_than_a_day_has_no_previous_day():
    until = START + timedelta(days=60)
    events = worlds.events(days=60).filter(
        pl.col(c.TIMESTAMP) >= until - timedelta(days=7, hours=23)
    )
    first, *_ = earlier_windows(events, until, Config(split={"min_users": 20}).windows, DISCOVERY)
    assert first.previous_day is None
