from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.canonical_users import canonicalise_user_ids
from pipeline.data.features import FeaturesConfig, weigh
from pipeline.data.matrix import build_history
from pipeline.data.windows import with_compact_ids
from tests.worlds import purchases


@pytest.fixture(scope="module")
def events():
    rows = purchases(users=60, items=40, days=30)
    return rows.select(
        c.USER_ID,
        c.ITEM_ID,
        pl.col(c.TIMESTAMP).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"),
    )


def test_names_depend_on_the_events_of_users_alone(events):
    rng = np.random.default_rng(3)
    others = {user: f"p{n:06}" for user, n in zip(
        events[c.USER_ID].unique().sort(), rng.permutation(10_000), strict=False
    )}  # fmt: skip
    users = pl.DataFrame({c.USER_ID: [*others, "idle"], c.SEGMENT: [*others, "none"]})
    called = pl.col(c.USER_ID).replace(others)
    shuffled = events.with_columns(called)[rng.permutation(events.height)]
    ids, shuffled_ids = (
        canonicalise_user_ids(events, users),
        canonicalise_user_ids(shuffled, users.with_columns(called)),
    )
    order = [c.USER_ID, c.TIMESTAMP, c.ITEM_ID]
    assert ids[0].sort(order).equals(shuffled_ids[0].sort(order))
    assert ids[1] is not None
    assert ids[1].sort(c.USER_ID).equals(shuffled_ids[1].sort(c.USER_ID))
    # One id per user: none is lost and none is added.
    assert ids[0][c.USER_ID].n_unique() == events[c.USER_ID].n_unique() == ids[1].height
    assert ids[0].select(c.ITEM_ID, c.TIMESTAMP).equals(events.select(c.ITEM_ID, c.TIMESTAMP))
    assert ids[0][c.USER_ID].min() == "0000000"


def test_one_event_in_the_middle_distinguishes_two_users():
    days = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)] * 40
    rows = pl.DataFrame(
        {
            c.USER_ID: [f"u{n // 3:02}" for n in range(120)],
            c.ITEM_ID: ["first", "same", "last"] * 40,
            c.VALUE: [float(n // 3) if n % 3 == 1 else 1.0 for n in range(120)],
            c.TIMESTAMP: days,
        }
    )
    rng = np.random.default_rng(4)
    others = {f"u{n:02}": f"p{m:02}" for n, m in enumerate(rng.permutation(40))}
    order = [c.USER_ID, c.TIMESTAMP]
    ids, _ = canonicalise_user_ids(rows)
    for _ in range(3):
        called = rows.with_columns(pl.col(c.USER_ID).replace(others))
        shuffled_ids, _ = canonicalise_user_ids(called[rng.permutation(120)])
        assert ids.sort(order).equals(shuffled_ids.sort(order))


def test_without_a_table_of_users_there_is_none(events):
    named, users = canonicalise_user_ids(events)
    assert users is None
    assert named.columns == events.columns


def test_a_column_of_users_may_be_called_name(events):
    ids = events[c.USER_ID].unique().sort()
    users = pl.DataFrame({c.USER_ID: ids, "name": ["ann"] * len(ids)})
    _, renamed = canonicalise_user_ids(events, users)
    assert renamed is not None
    assert renamed.columns == [c.USER_ID, "name"]
    assert renamed[c.USER_ID].n_unique() == len(ids)


def test_ids_as_categories_change_neither_names_nor_windows():
    events = pl.DataFrame(
        {
            c.USER_ID: ["u2", "u1", "u2", "u3"],
            c.ITEM_ID: ["b", "a", "c", "b"],
            c.KIND: ["view", "purchase", "view", "view"],
            c.VALUE: [1.0, 2.0, 1.0, 1.0],
            c.TIMESTAMP: pl.Series([3, 1, 2, 4], dtype=c.INSTANT),
        }
    )
    users = pl.DataFrame({c.USER_ID: ["u9", "u1", "u2", "u3"], c.SEGMENT: ["x", "y", "z", "z"]})
    text = canonicalise_user_ids(events, users)
    compact = canonicalise_user_ids(with_compact_ids(events), users)
    assert text[0].equals(compact[0].cast({c.ITEM_ID: pl.String, c.KIND: pl.String}))
    assert all(isinstance(dtype, pl.Enum) for dtype in compact[0].select(c.USER_ID, c.KIND).dtypes)
    assert text[1].equals(compact[1])
    end = datetime(2024, 1, 1, tzinfo=UTC)
    # Weights exist for kinds without an event, too.
    first, second = (
        build_history(weigh(rows, FeaturesConfig()), end).arrays()
        for rows in (events, with_compact_ids(events))
    )
    assert all(np.array_equal(first[name], second[name]) for name in first.keys() | second.keys())
