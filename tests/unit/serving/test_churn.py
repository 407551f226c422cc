"""Churn by hand: kept and removed entries, and the causes."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.serving.churn import DATA, RECIPE, STOCK, churn, idle
from pipeline.serving.publish import trim

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def lists(shown):
    rows = [
        (user, place, item)
        for user, items in shown.items()
        for place, item in enumerate(items, start=1)
    ]
    return pl.DataFrame(
        rows,
        schema={c.USER_ID: pl.String, c.POSITION: pl.Int32, c.ITEM_ID: pl.String},
        orient="row",
    )


def test_equal_lists_lose_nothing_in_whatever_order():
    loss = churn(lists({"ann": "abcd"}), lists({"ann": "dcba"}), ["ann"], k=4)
    assert (loss.overlap, loss.lost, loss.entries) == (1.0, {DATA: 0}, 4)


def test_only_the_first_k_of_the_users_asked_for_count():
    before, after = lists({"ann": "abcd", "bob": "abcd"}), lists({"ann": "bacd", "bob": "wxyz"})
    assert churn(before, after, ["ann"], k=2).overlap == 1.0
    assert churn(before, after, ["ann", "bob"], k=4).overlap == 0.5
    assert churn(before, lists({"ann": "xabc"}), ["ann"], k=3).overlap == pytest.approx(2 / 3)


def test_sold_out_items_count_as_stock_and_the_rest_as_data():
    longer = lists({"ann": "abcdef"})
    # a is gone, c and d make room for what is new.
    after = lists({"ann": "bexy"})
    stock = trim(longer, ["a"], 4)
    loss = churn(lists({"ann": "abcd"}), after, ["ann"], k=4, replays=[(STOCK, stock)])
    assert loss.lost == {STOCK: 0.25, DATA: 0.5}


def test_an_item_back_in_stock_pushes_the_last_entry_out():
    # z was sold out when the list went live and stands in the stored one: that is stock, too.
    longer, live = lists({"ann": "zabcd"}), lists({"ann": "abcd"})
    after = lists({"ann": "zabc"})
    loss = churn(live, after, ["ann"], k=4, replays=[(STOCK, trim(longer, [], 4))])
    assert loss.lost == {STOCK: 0.25, DATA: 0}


def test_an_entry_has_one_cause_the_first_that_claims_it():
    before, after = lists({"ann": "abcd"}), lists({"ann": "wxyz"})
    replays = [(STOCK, lists({"ann": "bcd"})), ("rule", lists({"ann": "ab"}))]
    loss = churn(before, after, ["ann"], k=4, replays=replays, rest=RECIPE)
    assert loss.lost == {STOCK: 0.25, "rule": 0.5, RECIPE: 0.25}


def test_shares_add_up_to_the_lost_entries():
    rng = np.random.default_rng(4)
    items = [f"i{n:02}" for n in range(30)]
    users = [f"u{n}" for n in range(40)]

    def drawn(longest):
        return {user: rng.permutation(items)[: rng.integers(0, longest)].tolist() for user in users}

    for k in (4, 7, 10, 50):
        before = drawn(20)
        replays = [(STOCK, lists(drawn(20))), ("rule", lists(drawn(20)))]
        loss = churn(lists(before), lists(drawn(20)), users, k=k, replays=replays)
        assert loss.entries == sum(min(k, len(one)) for one in before.values())
        counts = {cause: round(share * loss.entries) for cause, share in loss.lost.items()}
        assert loss.lost == {cause: n / loss.entries for cause, n in counts.items()}
        assert loss.kept + sum(counts.values()) == loss.entries
        assert set(loss.lost) == {STOCK, "rule", DATA} and min(loss.lost.values()) > 0


def test_no_users_to_compare():
    loss = churn(lists({}), lists({}), [], k=10)
    assert (loss.overlap, loss.lost, loss.users) == (None, {}, 0)
    gone = churn(lists({"ann": "ab"}), lists({}), ["ann"], k=10)
    assert (gone.overlap, gone.lost) == (0.0, {DATA: 1})


def test_idle_users_have_a_model_list_and_no_events_since():
    live = pl.DataFrame(
        {
            c.USER_ID: ["ann", "bob", "cat", "dan", c.FALLBACK_USER],
            c.SLOT: ["model", "model", "fallback", "model", "fallback"],
        }
    )
    events = pl.DataFrame(
        {c.USER_ID: ["ann", "bob"], c.TIMESTAMP: [NOW.replace(year=2025), NOW]},
        schema={c.USER_ID: pl.String, c.TIMESTAMP: c.INSTANT},
    )
    assert idle(live, events, NOW) == ["ann", "dan"]
    assert idle(live, events.clear(), NOW) == ["ann", "bob", "dan"]
