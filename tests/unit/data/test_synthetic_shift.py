from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.synthetic_shift import exchanged, plant_shift

START = datetime(2024, 1, 1, tzinfo=UTC)
SINCE = START + timedelta(days=10)


@pytest.fixture(scope="module")
def events():
    """4,000 events of 20 days on 9 items, the first of them the best seller."""
    rng = np.random.default_rng(5)
    weight = 1 / np.arange(1, 10)
    at = np.sort(rng.integers(0, 20 * 86_400, 4_000))
    return pl.DataFrame(
        {
            c.EVENT_ID: [f"e{n}" for n in range(4_000)],
            c.ITEM_ID: [f"i{n}" for n in rng.choice(9, 4_000, p=weight / weight.sum())],
            c.TIMESTAMP: [START + timedelta(seconds=int(seconds)) for seconds in at],
        }
    ).with_columns(pl.col(c.TIMESTAMP).cast(c.INSTANT))


def test_best_sellers_change_places_with_slow_items(events):
    pairs = exchanged(events, SINCE)
    assert len(pairs) == 8  # of nine items the last one stays
    assert all(pairs[other] == item for item, other in pairs.items())
    assert pairs["i0"] == "i4"
    assert pairs == exchanged(events.sample(fraction=1.0, shuffle=True, seed=1), SINCE)


def test_half_of_the_later_events_move_and_no_earlier_one(events):
    planted = plant_shift(events, exchanged(events, SINCE), SINCE)
    before = pl.col(c.TIMESTAMP) < SINCE
    assert planted.filter(before).equals(events.filter(before))
    changed = (planted[c.ITEM_ID] != events[c.ITEM_ID]) & (events[c.TIMESTAMP] >= SINCE)
    paired = events.filter((~before) & pl.col(c.ITEM_ID).is_in(list(exchanged(events, SINCE))))
    assert 0.45 < changed.sum() / paired.height < 0.55
    assert planted.drop(c.ITEM_ID).equals(events.drop(c.ITEM_ID))


def test_a_day_alone_is_planted_as_it_is_among_the_others(events):
    pairs = exchanged(events, SINCE)
    day = pl.col(c.TIMESTAMP).dt.day() == 15
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=2).filter(day)
    alone = plant_shift(shuffled, pairs, SINCE).sort(c.EVENT_ID)
    assert alone.equals(plant_shift(events, pairs, SINCE).filter(day).sort(c.EVENT_ID))


def test_no_user_had_anything_before(events):
    assert exchanged(events, START) == {}
    assert plant_shift(events, {}, START).equals(events)
