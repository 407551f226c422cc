"""A million events of one user after a day without users: stored, with little weight."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.features import FeaturesConfig
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly.nightly import nightly
from tests.worlds import CONFIG, NIGHTS, catalogue, land, purchases

MILLION = 1_000_000
MOST = FeaturesConfig().max_events_per_user_day
NIGHT = NIGHTS[0]


def flood():
    """A million views of one user within the hour before the night, most of one item."""
    number = pl.int_range(MILLION, eager=True)
    at = (NIGHT - timedelta(hours=1)).replace(tzinfo=None)
    instant = pl.lit(at) + pl.duration(microseconds=number * 3000)
    item = pl.when(number % 1000 == 0).then(number // 1000 % 160).otherwise(159)
    return pl.select(
        event_id=pl.format("flood{}", number),
        user_id=pl.lit("flooder"),
        item_id=pl.format("i{}", item),
        value=pl.lit("1"),
        timestamp=instant.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"),
    )


@pytest.mark.slow
def test_a_flood_and_a_day_without_events_stop_no_night(workspace, tmp_path):
    ws = workspace(tmp_path / "home", CONFIG)
    catalogue(ws.home)
    closed = (NIGHT - timedelta(days=5)).strftime("%Y-%m-%d")
    events = purchases().filter(~pl.col("timestamp").str.starts_with(closed))
    land(ws.home, pl.concat([events, flood()]), NIGHT)
    taken = feedback(ws, NIGHT)
    assert not taken.failed
    known = events.filter(pl.col("timestamp") < NIGHT.strftime("%Y-%m-%dT%H:%M:%SZ")).height
    assert taken.events == MILLION + known
    stored = ws.lake.read("events", columns=[c.USER_ID, c.EVENT_DAY])
    assert closed not in stored[c.EVENT_DAY].cast(pl.String).to_list()
    [pseudonym] = ws.vault.pseudonyms(["flooder"]).values()
    assert stored.filter(pl.col(c.USER_ID) == pseudonym).height == MILLION

    night = nightly(ws, NIGHT)
    assert (night.status, night.decision) == ("done", "first")
    full = ws.runs.open(night.run_id).arrays("features", "full")
    counts = dict(zip(full["user_ids"].tolist(), np.diff(full["indptr"]).tolist(), strict=True))
    assert counts[pseudonym] == MOST
    assert sum(counts.values()) == MOST + known
    shown = lists(ws, None)
    others = shown.filter(pl.col(c.USER_ID) != "flooder")
    users = others[c.USER_ID].n_unique()
    flooded = others.filter(pl.col(c.ITEM_ID) == "i159").height
    assert users > 300
    assert flooded < 0.2 * users
