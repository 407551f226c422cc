from datetime import UTC, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.models.als import Als
from pipeline.models.families import default_recipes
from pipeline.models.ridge import Ridge
from pipeline.serving.churn import churn
from pipeline.serving.recommend import ListRules, fallback_list, model_lists, recommend
from tests.windows import grouped, strangers, with_groups

END = datetime(2017, 12, 1, tzinfo=UTC)


def history():
    """Users of two tastes, one user who returned everything, ten items."""
    rows = [(f"u{n}", f"i{(n % 2) * 5 + k}", 1.0) for n in range(8) for k in range(4 - n % 3)]
    rows += [("taker", "i0", 1.0), ("taker", "i0", -1.0)]
    frame = pl.DataFrame(rows, schema=[c.USER_ID, c.ITEM_ID, WEIGHT], orient="row")
    at = pl.lit(datetime(2017, 11, 1, tzinfo=UTC)).cast(c.INSTANT).alias(c.TIMESTAMP)
    return build_history(frame.with_columns(at), END)


@pytest.fixture(scope="module")
def made():
    window = history()
    recipes = default_recipes()
    als = recipes["als"].model_copy(update={"factors": 4})
    return window, als.train(window), recipes["decayed_popularity"].train(window)


def build(made, *, repeat=False, others=("stranger",), gone=(), length=5):
    window, champion, fallback = made
    rules = ListRules(gone, repeat, length, ("als", "decayed_popularity"))
    return recommend(champion, fallback, window, others, rules)


def test_each_user_has_one_list_without_gaps(made):
    rows = build(made)
    window = made[0]
    assert set(rows[c.USER_ID]) == {*window.user_ids.tolist(), "stranger", c.FALLBACK_USER}
    for (user,), part in rows.group_by(c.USER_ID):
        assert part[c.POSITION].to_list() == list(range(1, part.height + 1)), user
        assert part[c.ITEM_ID].n_unique() == part.height


def test_discovery_shows_nothing_that_was_seen(made):
    window = made[0]
    rows = build(made, length=10)
    seen = {
        (window.user_ids[u], window.item_ids[i])
        for u, i in zip(*window.seen.nonzero(), strict=True)
    }
    shown = set(rows.select(c.USER_ID, c.ITEM_ID).rows())
    assert seen
    assert not shown & seen
    assert set(build(made, repeat=True, length=10).select(c.USER_ID, c.ITEM_ID).rows()) & seen


def test_removed_items_never_appear_and_lists_are_not_padded(made):
    window = made[0]
    gone = window.item_ids[2:].tolist()
    rows = build(made, repeat=True, gone=gone, length=10)
    assert set(rows[c.ITEM_ID]) == set(window.item_ids[:2].tolist())
    assert rows.group_by(c.USER_ID).len()["len"].max() == 2


def test_users_without_taste_get_the_fallback_and_it_is_marked(made):
    rows = build(made)
    slots = dict(rows.select(c.USER_ID, c.SLOT).unique().rows())
    assert slots["taker"] == slots["stranger"] == slots[c.FALLBACK_USER] == "fallback"
    assert slots["u0"] == "model"
    taker = rows.filter(pl.col(c.USER_ID) == "taker")
    assert "i0" not in taker[c.ITEM_ID].to_list()
    assert taker[c.REASON].unique().to_list() == ["decayed_popularity"]


def test_described_users_get_a_list_by_their_features():
    window = with_groups(grouped(), cold_items=False)
    champion = Ridge(factors_of=Als(factors=4, regularization=0.1, device="cpu")).train(window)
    fallback = default_recipes()["decayed_popularity"].train(window)
    others, rules = ["new0", "new1", "stranger"], ListRules(("i00",), False, 5, ("ridge", "pop"))
    described = strangers(window, [[0], [2]])
    rows = recommend(champion, fallback, window, others, rules, described)
    for user, group in (("new0", "i0"), ("new1", "i2")):
        own = rows.filter(pl.col(c.USER_ID) == user)
        assert own.height == 5 and set(own[c.ITEM_ID].str.head(2)) == {group}
        assert "i00" not in own[c.ITEM_ID].to_list()
        assert (set(own[c.REASON]), set(own[c.SLOT])) == ({"ridge"}, {"fallback"})
    assert rows.filter(pl.col(c.USER_ID) == "stranger")[c.REASON].unique().to_list() == ["pop"]
    assert rows.select(c.USER_ID, c.POSITION).is_unique().all()


def test_users_without_events_get_the_fallback(made):
    rows = build(made)
    one, other = (
        rows.filter(pl.col(c.USER_ID) == user)[c.ITEM_ID].to_list()
        for user in ("stranger", c.FALLBACK_USER)
    )
    window, _, fallback = made
    assert one == other == [item for item, _ in fallback_list(fallback, window, 5)]


def test_lists_of_a_model_leave_out_unavailable_items_as_the_live_ones_do(made):
    window, champion, _ = made
    gone = window.item_ids[::2].tolist()
    mine = model_lists(champion.score, window, gone, repeat=True, length=3)
    assert mine.height > 0
    assert not set(mine[c.ITEM_ID]) & set(gone)
    served = build(made, repeat=True, gone=gone, length=3)
    modelled = served.filter(pl.col(c.SLOT) == "model")
    users = modelled[c.USER_ID].unique().to_list()
    assert churn(mine, modelled, users, k=3).overlap == 1.0
