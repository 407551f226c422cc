from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from pipeline import columns as c
from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.models.als import Als
from pipeline.models.families import recipe_from
from pipeline.models.popularity import DecayedPopularity
from pipeline.serving.foldin import end_of, histories, new_since, of_users, patch_id
from pipeline.serving.recommend import ListRules, user_lists

NIGHT = datetime(2024, 3, 1, 9, tzinfo=UTC)
BLEND = recipe_from(
    {
        "family": "blend",
        "parts": {
            "als": {"family": "als", "factors": 4, "iterations": 5, "device": "cpu"},
            "svd": {"family": "svd", "factors": 4, "oversampling": 2},
            "knn": {"family": "item_knn"},
            "own": {"family": "personal_frequency"},
        },
        "recency_boost": 0.25,
    }
)


def weighed(rows):
    """(user, item, days after the night[, weight])."""
    full = [(*row, 1.0) if len(row) == 3 else row for row in rows]
    return pl.DataFrame(
        [(user, item, NIGHT + timedelta(days=days), weight) for user, item, days, weight in full],
        schema={
            c.USER_ID: pl.String,
            c.ITEM_ID: pl.String,
            c.TIMESTAMP: c.INSTANT,
            WEIGHT: pl.Float32,
        },
        orient="row",
    )


def before_the_night():
    rng = np.random.default_rng(2)
    rows = []
    for user in range(40):
        for _ in range(9):
            item = (user % 2) * 8 + int(rng.integers(8))
            rows.append((f"u{user:02}", f"i{item:02}", -float(rng.uniform(1, 90))))
    return weighed(rows)


def lists(score, history, *, repeat=False, gone=()):
    fallback = DecayedPopularity().train(build_history(before_the_night(), NIGHT))
    return user_lists(score, fallback, history, ListRules(gone, repeat, 5, ("model", "popular")))


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(
    "recipe", [Als(factors=4, iterations=5, device="cpu"), BLEND], ids=["als", "blend"]
)
def test_users_without_new_events_would_get_the_list_they_have(recipe, repeat):
    window = build_history(before_the_night(), NIGHT)
    champion = recipe.train(window)
    live = lists(champion.score, window, repeat=repeat)
    others = weighed([("u00", "i01", 0.4), ("u03", "i11", 2.0)])
    together = pl.concat([before_the_night(), others])
    again = histories(together, window, NIGHT + timedelta(days=3))
    folded = lists(champion.fold_in, again, repeat=repeat)
    idle = ~pl.col(c.USER_ID).is_in(["u00", "u03"])
    shown = [c.USER_ID, c.POSITION, c.ITEM_ID, c.SLOT, c.REASON]
    assert live.filter(idle).height >= 38 * (5 if repeat else 1)
    assert folded.filter(idle).select(shown).rows() == live.filter(idle).select(shown).rows()
    assert folded.filter(~idle).rows() != live.filter(~idle).rows()


def test_a_list_follows_the_events_of_its_user_and_a_new_user_has_one():
    window = build_history(before_the_night(), NIGHT)
    champion = Als(factors=4, iterations=5, device="cpu").train(window)
    did = weighed([("new", f"i{item:02}", 0.1) for item in (8, 9, 10)])
    own = histories(did, window, NIGHT + timedelta(days=1))
    listed = lists(champion.fold_in, own, gone=["i11"])
    assert listed[c.USER_ID].unique().to_list() == ["new"]
    assert listed[c.SLOT].unique().to_list() == ["model"]
    items = listed.sort(c.POSITION)[c.ITEM_ID].to_list()
    assert set(items[:4]) == {"i12", "i13", "i14", "i15"}  # their taste, neither had nor gone
    mine = lists(champion.fold_in, own, repeat=True).sort(c.POSITION)[c.ITEM_ID].to_list()
    assert set(mine) <= {f"i{item:02}" for item in range(8, 16)}


def test_a_user_without_net_purchases_gets_the_fallback():
    window = build_history(before_the_night(), NIGHT)
    champion = Als(factors=4, iterations=5, device="cpu").train(window)
    did = weighed([("u00", "i00", -2.0), ("u00", "i00", 0.1, -1.0)])
    listed = lists(champion.fold_in, histories(did, window, NIGHT + timedelta(days=1)))
    assert listed[c.SLOT].unique().to_list() == ["fallback"]
    assert listed[c.REASON].unique().to_list() == ["popular"]
    assert "i00" not in listed[c.ITEM_ID]


def test_items_that_are_new_since_the_training_are_left_out():
    window = build_history(before_the_night(), NIGHT)
    did = weighed([("u00", "novel", 0.1), ("u00", "i03", 0.2), ("stranger", "novel", 0.3)])
    own = histories(did, window, NIGHT + timedelta(days=1))
    assert own.user_ids.tolist() == ["u00"]
    assert own.item_ids is window.item_ids or own.item_ids.tolist() == window.item_ids.tolist()
    assert own.item_ids[own.item].tolist() == ["i03"]
    assert histories(did.filter(pl.col(c.USER_ID) == "stranger"), window, NIGHT) is None
    assert histories(did.clear(), window, NIGHT) is None


def test_the_history_of_users_is_that_of_the_window():
    window = build_history(before_the_night(), NIGHT)
    cells = sp.csr_matrix(np.arange(1, window.n_users + 1, dtype=np.float32)[:, None])
    known = FeatureMatrix(np.array(["segment=x"]), cells)
    described = type(window)(
        **{
            **vars(window),
            "user_features": known,
            "item_features": known.rows(np.arange(window.n_items)),
        }
    )
    did = weighed([("zoe", "i03", 0.2), ("u07", "i03", 0.2), ("abe", "i03", 0.2)])
    own = histories(did, described, NIGHT + timedelta(days=1))
    assert own.user_ids.tolist() == ["abe", "u07", "zoe"]
    assert own.user_features.cells.toarray().ravel().tolist() == [0.0, 8.0, 0.0]
    assert own.item_features is described.item_features


def test_events_that_arrived_or_happened_since_are_new():
    rows = pl.DataFrame(
        [
            ("known", "a", -1.0),
            ("known, and later than was looked", "a", 0.5),
            ("late", "b", -30.0),
            ("fresh", "b", 0.5),
        ],
        schema=["what", c.BATCH_ID, "days"],
        orient="row",
    ).with_columns((NIGHT + pl.duration(seconds=pl.col("days") * 86_400)).alias(c.TIMESTAMP))
    new = rows.filter(new_since(["b", "z"], NIGHT))["what"].to_list()
    assert new == ["known, and later than was looked", "late", "fresh"]
    assert rows.filter(new_since([], NIGHT)).height == 2
    at = rows.with_columns(pl.lit(NIGHT).alias(c.TIMESTAMP))
    assert at.filter(new_since([], NIGHT)).height == 4  # half-open: the instant itself is new


def test_users_are_selected_by_their_ids():
    did = weighed([("a", "i1", 0), ("b", "i1", 0), ("c", "i1", 0)])
    assert did.filter(of_users(["c", "a"]))[c.USER_ID].to_list() == ["a", "c"]
    assert did.filter(of_users([])).is_empty()


def test_ages_count_from_the_newest_event_or_from_the_as_of():
    assert end_of(NIGHT - timedelta(days=1), NIGHT) == NIGHT
    assert end_of(NIGHT, NIGHT) == NIGHT + timedelta(microseconds=1)


def test_a_patch_is_named_by_its_input():
    one = patch_id("p-x", 3, None, NIGHT)
    assert one.startswith("p-x-f") and one == patch_id("p-x", 3, None, NIGHT)
    others = {
        patch_id("p-y", 3, None, NIGHT)[3:],
        patch_id("p-x", 4, None, NIGHT)[3:],
        patch_id("p-x", 3, 1, NIGHT)[3:],
        patch_id("p-x", 3, None, NIGHT + timedelta(microseconds=1))[3:],
    }
    assert len(others | {one[3:]}) == 5
