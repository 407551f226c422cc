from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.models.blend import Blend
from pipeline.models.contract import Scores
from pipeline.models.families import load, recipe_from
from pipeline.models.popularity import item_popularity
from pipeline.models.topk import pair_scores, top_k

END = datetime(2026, 3, 1, tzinfo=UTC)
ALS = {"family": "als", "factors": 4, "regularization": 0.1, "device": "cpu"}
OWN = {"family": "personal_frequency"}
POP = {"family": "decayed_popularity", "half_life_days": 50.0}


def blend(**fields) -> Blend:
    recipe = recipe_from({"family": "blend", **fields})
    assert isinstance(recipe, Blend)
    return recipe


def random_window(seed=0) -> History:
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{rng.integers(40):02}", f"i{rng.geometric(0.1) % 30:02}", float(rng.uniform(1, 200)))
        for _ in range(900)
    ]
    return build_history(
        pl.DataFrame(
            [(u, i, END - timedelta(days=days), 1.0) for u, i, days in rows],
            schema={
                c.USER_ID: pl.String(),
                c.ITEM_ID: pl.String(),
                c.TIMESTAMP: c.INSTANT,
                WEIGHT: pl.Float32(),
            },
            orient="row",
        ),
        END,
    )


def dense(scores: Scores) -> np.ndarray:
    n_users, n_items = scores.shape
    user, item = np.divmod(np.arange(n_users * n_items), n_items)
    return pair_scores(scores, user, item).reshape(n_users, n_items)


def test_the_sum_is_the_one_of_the_docstring():
    history = random_window()
    recipe = blend(
        parts={"als": ALS, "own": OWN, "pop": POP},
        weights={"als": 0.5, "own": 2.0},
        recency_boost=0.5,
        popularity_penalty=0.2,
        recency_half_life_days=9.0,
    )
    ever = item_popularity(history, None)
    late = item_popularity(history, 9.0)
    share = (late + 20 * late.sum() / ever.sum()) / (ever + 20)
    trend = np.maximum(share, 1e-4) ** 0.5 / (ever + 20) ** 0.2
    expected = np.zeros((history.n_users, history.n_items))
    for name, weight in (("als", 0.5), ("own", 2.0), ("pop", 1.0)):
        part = dense(recipe.parts[name].train(history).score(history)).astype(np.float64)
        if name != "own":
            part = part * trend
        expected += weight * part / part.max(axis=1, keepdims=True)
    scores = dense(recipe.train(history).score(history))
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=2e-5)


def test_one_recent_user_is_not_a_trend():
    """An item whose only user came today gets no higher trend than an item of many users."""
    rows = [("one", "rare", 0.0)]
    rows += [(f"u{n:02}", "crowd", 0.0 if n < 30 else 60.0) for n in range(40)]
    rows += [(f"v{n:02}", "old", 60.0) for n in range(40)]
    end = datetime(2026, 3, 1, tzinfo=UTC)
    events = pl.DataFrame(
        {
            c.USER_ID: [user for user, _, _ in rows],
            c.ITEM_ID: [item for _, item, _ in rows],
            c.TIMESTAMP: [end - timedelta(days=days, hours=1) for _, _, days in rows],
            WEIGHT: np.ones(len(rows), np.float32),
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )
    scorer = blend(parts={"pop": POP}, recency_boost=0.5).train(build_history(events, end))
    trends = dict(zip(scorer.item_ids.tolist(), scorer.trend.tolist(), strict=True))
    assert trends["old"] < trends["rare"] < trends["crowd"]


def test_a_weight_of_zero_is_not_trained():
    history = random_window()
    scorer = blend(parts={"als": ALS, "own": OWN}, weights={"als": 0.0}).train(history)
    assert list(scorer.parts) == ["own"]
    alone = recipe_from(OWN).train(history)
    lists = top_k(scorer.score(history), 10)
    assert lists.item.tolist() == top_k(alone.score(history), 10).item.tolist()


def test_a_user_without_events_gets_no_list():
    history = random_window()
    scorer = blend(parts={"als": ALS, "own": OWN, "pop": POP}).train(history)
    empty = History(
        user_ids=np.array(["x"]),
        item_ids=history.item_ids,
        indptr=np.zeros(2, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=END,
    )
    assert top_k(scorer.fold_in(empty), 5).counts.tolist() == [0]


def test_blends_of_blends_go_to_disk_and_back():
    history = random_window()
    inner = {"family": "blend", "parts": {"pop": POP, "own": OWN}}
    recipe = blend(parts={"als": ALS, "both": inner}, recency_boost=0.25)
    scorer = recipe.train(history)
    arrays = scorer.arrays()
    assert not any(array.dtype == object for array in arrays.values())
    assert sum(array is history.item_ids for array in arrays.values()) == 1
    again = load("blend", arrays)
    assert np.array_equal(dense(again.score(history)), dense(scorer.score(history)))
    assert again.capabilities == scorer.capabilities == recipe.capabilities


def test_it_has_the_capabilities_that_all_parts_share():
    assert blend(parts={"own": OWN}).capabilities.repeats_only
    assert not blend(parts={"own": OWN, "als": ALS}).capabilities.repeats_only
    assert blend(parts={"als": ALS}).capabilities.fold_in


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"parts": {}}, "parts"),
        ({"parts": {"als": ALS}, "weights": {"alz": 1}}, "unknown part 'alz'"),
        ({"parts": {"als": ALS}, "weights": {"als": 0}}, "every part has weight 0"),
        ({"parts": {"als": ALS}, "weights": {"als": float("nan")}}, "weights"),
        ({"parts": {"a/b": ALS}}, "'a/b'"),
        ({"parts": {"als": {"family": "alz"}}}, "alz"),
        ({"parts": {"als": {**ALS, "alpha": 0}}}, "alpha"),
        ({"parts": {"als": ALS}, "tune": ["parts"]}, "'parts' cannot be selected"),
    ],
)
def test_invalid_blends_are_refused(fields, part):
    with pytest.raises(ValidationError) as caught:
        Blend.model_validate(fields)
    assert part in str(caught.value)
