from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline import columns as c
from pipeline.data.features import (
    FeaturesConfig,
    activity,
    cap_events,
    item_age_days,
    recency_days,
    volume,
    weigh,
)
from pipeline.data.matrix import RATING, WEIGHT, build_history
from tests.raising import raises

START = datetime(2024, 1, 1, tzinfo=UTC)


def events(*rows: tuple[str, str, str, float | None, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            c.USER_ID: [r[0] for r in rows],
            c.ITEM_ID: [r[1] for r in rows],
            c.KIND: [r[2] for r in rows],
            c.VALUE: [r[3] for r in rows],
            c.TIMESTAMP: [START + timedelta(days=r[4]) for r in rows],
        },
        schema={
            c.USER_ID: pl.String,
            c.ITEM_ID: pl.String,
            c.KIND: pl.String,
            c.VALUE: pl.Float64,
            c.TIMESTAMP: c.INSTANT,
        },
    )


def test_a_return_cancels_exactly_the_weight_of_its_purchase() -> None:
    log = events(("u", "a", "purchase", 3.0, 0), ("u", "a", "return", 3.0, 1))
    for config in (FeaturesConfig(), FeaturesConfig(value="log", weights={"purchase": 5.0})):
        weights = weigh(log, config)[WEIGHT]
        assert weights[0] > 0
        assert weights.sum() == 0


def test_kinds_left_out_keep_their_default() -> None:
    config = FeaturesConfig(weights={"purchase": 7.0, "wishlist": 1.5})
    log = events(
        ("u", "a", "purchase", 1.0, 0), ("u", "a", "wishlist", 1.0, 0), ("u", "a", "view", 1.0, 0)
    )
    assert weigh(log, config)[WEIGHT].to_list() == [7.0, 1.5, 1.0]
    assert config.weights["return"] == -7.0
    assert FeaturesConfig.model_validate(config.model_dump()) == config


def test_log_looks_at_quantities_but_never_at_ratings() -> None:
    log = events(
        ("u", "a", "purchase", 1.0, 0),
        ("u", "a", "purchase", 7.0, 0),
        ("u", "a", "purchase", None, 0),
        ("u", "a", "rating", 5.0, 0),
    )
    assert weigh(log, FeaturesConfig(value="log"))[WEIGHT].to_list() == [3.0, 9.0, 3.0, 1.0]
    assert weigh(log, FeaturesConfig())[WEIGHT].to_list() == [3.0, 3.0, 3.0, 1.0]


def test_a_low_rating_weighs_nothing_and_still_counts_as_seen() -> None:
    log = events(("u", "a", "rating", 3.5, 0), ("u", "b", "rating", 4.0, 0))
    history = build_history(weigh(log, FeaturesConfig()), START + timedelta(days=1))
    assert history.seen.toarray().tolist() == [[1.0, 1.0]]
    assert history.confidence(None).toarray().tolist() == [[0.0, 1.0]]


def test_ratings_of_an_item_are_kept_beside_its_weight() -> None:
    log = events(
        ("u", "b", "rating", 2.5, 2),
        ("u", "a", "purchase", 9.0, 0),
        ("u", "a", "rating", None, 1),
        ("u", "b", "rating", 5.0, 3),
    )
    assert weigh(log, FeaturesConfig())[RATING].to_list() == [2.5, None, None, 5.0]
    for rows in (log, log.reverse()):
        history = build_history(weigh(rows, FeaturesConfig()), START + timedelta(days=4))
        assert history.item.tolist() == [0, 0, 1, 1]
        assert history.rating is not None and history.rating.dtype == np.float32
        np.testing.assert_array_equal(history.rating, [np.nan, np.nan, 2.5, 5.0])
        again = type(history).from_arrays(history.arrays())
        np.testing.assert_array_equal(again.rating, history.rating)
    bought = build_history(weigh(log[1:2], FeaturesConfig()), START + timedelta(days=4))
    assert bought.rating is None


def test_ratings_at_one_instant_stand_in_one_order() -> None:
    log = events(("u", "a", "rating", 5.0, 1), ("u", "a", "rating", 4.0, 1))
    for rows in (log, log.reverse()):
        history = build_history(weigh(rows, FeaturesConfig()), START + timedelta(days=4))
        assert history.rating is not None and history.rating.tolist() == [4.0, 5.0]


def test_events_have_the_order_of_a_plain_sort_for_any_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    size = 2_000
    weighted = pl.DataFrame(
        {
            c.USER_ID: rng.integers(8, 12, size).astype(str),
            c.ITEM_ID: rng.integers(8, 14, size).astype(str),
            c.TIMESTAMP: [START + timedelta(days=int(day)) for day in rng.integers(-3, 3, size)],
            WEIGHT: rng.integers(-2, 3, size).astype(np.float32),
            RATING: rng.choice([None, 1.0, 2.0], size).astype(np.float32),
        }
    ).with_columns(pl.col(RATING).fill_nan(None))
    expected = weighted.with_columns(pl.col(RATING).fill_null(np.nan)).sort(
        c.USER_ID, c.TIMESTAMP, c.ITEM_ID, WEIGHT, RATING
    )
    categories = weighted.with_columns(
        pl.col(x).cast(pl.Enum(sorted(map(str, range(30))))) for x in (c.USER_ID, c.ITEM_ID)
    )
    for rows in (weighted, weighted.reverse(), categories):
        history = build_history(rows, START + timedelta(days=9))
        assert history.user_ids[history.user].tolist() == expected[c.USER_ID].to_list()
        assert history.item_ids[history.item].tolist() == expected[c.ITEM_ID].to_list()
        assert history.timestamp_us.tolist() == expected[c.TIMESTAMP].dt.epoch("us").to_list()
        assert history.weight.tolist() == expected[WEIGHT].to_list()
        np.testing.assert_array_equal(history.rating, expected[RATING].to_numpy())


def test_purchases_alone_are_plain_decayed_counts_up_to_one_factor() -> None:
    log = events(("u", "a", "purchase", 2.0, 0), ("u", "b", "purchase", 9.0, 1))
    end = START + timedelta(days=2)
    cells = build_history(weigh(log, FeaturesConfig()), end).confidence(1.0).toarray()
    assert np.allclose(cells / 3.0, [[0.25, 0.5]])


def test_a_kind_without_a_weight_is_named_and_no_id_is() -> None:
    log = events(("anna@example.com", "a", "gaze", 1.0, 0), ("u", "a", "view", 1.0, 0))
    with raises("features.unknown_kind") as raised:
        weigh(log, FeaturesConfig())
    assert "anna" not in raised.value.sentence


@pytest.mark.parametrize(
    "bad", [{"view": float("nan")}, {"view": float("inf")}, {"return": 1.0}, {"view": "much"}]
)
def test_weights_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="weights"):
        FeaturesConfig(weights=bad)


def test_no_event_gives_no_weight_and_no_error() -> None:
    assert weigh(events(), FeaturesConfig()).is_empty()


def test_what_is_known_of_users_and_items_ends_with_the_window() -> None:
    log = events(
        ("u", "a", "purchase", 1.0, 0),
        ("u", "b", "purchase", 1.0, 4),
        ("v", "b", "purchase", 1.0, 1),
        ("v", "a", "purchase", 1.0, 20),
    )
    history = build_history(weigh(log, FeaturesConfig()), START + timedelta(days=10))
    assert activity(history).tolist() == [2, 1]
    assert recency_days(history).tolist() == [6.0, 9.0]
    assert item_age_days(history).tolist() == [10.0, 9.0]
    no_users = history.take(np.array([], np.int64))
    assert recency_days(no_users).tolist() == []
    assert item_age_days(no_users).tolist() == [-np.inf, -np.inf]


def test_a_matrix_leaves_the_events_as_they_were() -> None:
    log = events(
        ("u", "b", "purchase", 1.0, 0),
        ("u", "a", "purchase", 1.0, 1),
        ("u", "b", "purchase", 1.0, 2),
    )
    history = build_history(weigh(log, FeaturesConfig()), START + timedelta(days=3))
    writable = history.take(np.array([0]))
    before = {name: array.copy() for name, array in writable.arrays().items()}
    assert writable.seen.nnz == writable.confidence(None).nnz == 2
    for name, array in writable.arrays().items():
        assert array.tolist() == before[name].tolist(), name


def test_of_a_flood_the_first_events_of_each_day_count():
    flood = [("bot", f"i{n:03}", "view", None, 1 + n / 1000) for n in range(100)]
    others = [("ann", "i001", "view", None, 1.0 + n) for n in range(9)]
    again = [("bot", "late", "view", None, 2.5)]
    rows = events(*flood, *others, *again)
    kept = cap_events(rows, FeaturesConfig(max_events_per_user_day=7))
    items = kept.filter(pl.col(c.USER_ID) == "bot").sort(c.TIMESTAMP)[c.ITEM_ID].to_list()
    assert items == [*(f"i{n:03}" for n in range(7)), "late"]
    assert kept.filter(pl.col(c.USER_ID) == "ann").height == 9
    assert kept.schema == rows.schema
    shuffled = cap_events(
        rows.sample(fraction=1.0, shuffle=True, seed=3), FeaturesConfig(max_events_per_user_day=7)
    )
    assert shuffled.sort(c.USER_ID, c.TIMESTAMP).equals(kept.sort(c.USER_ID, c.TIMESTAMP))
    assert cap_events(rows, FeaturesConfig(max_events_per_user_day=101)).equals(rows)
    assert cap_events(rows, FeaturesConfig(max_events_per_user_day=100)).height == rows.height
    assert cap_events(rows.clear(), FeaturesConfig()).is_empty()


def test_in_a_small_shop_one_person_is_a_tenth_of_a_usual_days_volume():
    usual = [
        (f"u{n % 40}", f"i{n:03}", "view", None, day + n / 1000)
        for day in range(1, 10)
        for n in range(100)
    ]
    flood = [("bot", f"i{n:03}", "view", None, 9 + n / 1000) for n in range(900)]
    rows = events(*usual, *flood)
    counted = volume(rows, FeaturesConfig())
    assert counted.filter(pl.col(c.USER_ID) == "bot").height == 10
    assert counted.filter(pl.col(c.USER_ID) != "bot").height == len(usual)
    assert volume(rows, FeaturesConfig(max_events_per_user_day=2)).filter(user_id="bot").height == 2
    assert volume(rows.clear(), FeaturesConfig()).is_empty()


def test_of_one_instant_the_first_by_name_count():
    rows = events(*[("bot", item, "view", None, 1.0) for item in "dbca"])
    for turned in (rows, rows.reverse()):
        assert cap_events(turned, FeaturesConfig(max_events_per_user_day=2))[
            c.ITEM_ID
        ].to_list() == ["a", "b"]
