"""Effect of showing an item, in planted shops whose effect is known."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.monitoring.attribution import ShownLists, attribute_events
from pipeline.serving.publish import spare_entries
from tests.published import DAY, at, lists, publications
from tests.unit.monitoring.test_attribution import CONFIG, ONE, PRICES, SEGMENTS, SPAN, did

LENGTH, SPARE = 20, 10
USERS = [f"u{n:03}" for n in range(300)]
ITEMS = [f"i{n:02}" for n in range(LENGTH + SPARE)]
MADE = lists({("p1", user): ITEMS for user in USERS} | {("p1", c.FALLBACK_USER): ITEMS})
PUBLISHED = MADE.filter(pl.col(c.POSITION) <= LENGTH)


def effects(events, *, spare=2, span=SPAN, published=PUBLISHED, made=MADE, table=ONE):
    first = published.filter(pl.col(c.PUBLICATION_ID) == "p1")
    held = ShownLists.of([(published, spare_entries(made, first, (), spare))], events)
    result = attribute_events(events, table, held, PRICES, SEGMENTS, span=span, config=CONFIG)
    return {effect.rate: effect for effect in result.shown_effects}


def shop(effect, seed=0, kind="purchase"):
    """Every user comes for another item; a listed one is bought less the lower it stands."""
    random = np.random.default_rng(seed)
    bought = 0.08 * 0.99 ** np.arange(LENGTH + SPARE)
    bought[:LENGTH] += effect
    taken = random.random((len(USERS), LENGTH + SPARE)) < bought
    rows = [(user, "other", 1, "view") for user in USERS]
    rows += [(USERS[u], ITEMS[n], 2 + u / 100, kind) for u, n in zip(*taken.nonzero(), strict=True)]
    return did(*rows)


@pytest.mark.parametrize("planted", [0.1, 0.3])
def test_a_planted_effect_lies_within_its_interval(planted):
    for rate, effect in effects(shop(planted)).items():
        assert effect.users == 300 and effect.entries == 600, rate
        assert 0 < effect.added_lo < planted < effect.added_hi < planted + 0.1
        assert effect.added == pytest.approx(effect.shown - effect.spare)


def test_intervals_contain_0_in_a_shop_without_an_effect():
    held = 0
    for seed in range(40):
        none = effects(shop(0.0, seed))["visitor_hit_rate"]
        held += none.added_lo <= 0 <= none.added_hi
        assert none.shown > 0.02  # the hit rate of a shop in which no list has an effect
    assert held >= 36


def test_only_purchases_count_in_the_visitor_hit_rate():
    effect = effects(shop(0.1, kind="view"))
    assert effect["response_rate"].added > 0.05
    assert (effect["visitor_hit_rate"].shown, effect["visitor_hit_rate"].spare) == (0, 0)


def test_lists_without_spare_entries_have_no_effect_and_few_users_only_a_number():
    assert effects(shop(0.1), spare=1) == {}
    assert effects(shop(0.1), made=PUBLISHED) == {}
    events = shop(0.1).filter(pl.col(c.USER_ID).is_in(USERS[:40]))
    effect = effects(events)["response_rate"]
    assert (effect.users, effect.entries, effect.added) == (40, 80, None)


def test_spare_entries_change_no_other_figure():
    events = shop(0.1)
    results = []
    for spare in (0, 2):
        held = ShownLists.of([(PUBLISHED, spare_entries(MADE, PUBLISHED, (), spare))], events)
        results.append(
            attribute_events(events, ONE, held, PRICES, SEGMENTS, span=SPAN, config=CONFIG)
        )
    assert results[0] == replace(results[1], shown_effects=())


def test_a_response_on_a_later_day_than_the_showing_does_not_count():
    events = did(
        *((user, "other", 1) for user in USERS), ("u000", ITEMS[19], 2), ("u001", ITEMS[20], 3)
    )
    effect = effects(events)["response_rate"]
    assert effect.shown == effect.spare == pytest.approx(1 / 600)
    # The next day's list has neither item, so both responses are late.
    table = publications(("p1", 1, None, "7", at(-9), at(-1)), ("p2", 2, None, "8", at(0), at(20)))
    published = pl.concat([PUBLISHED, lists({("p2", c.FALLBACK_USER): "xyz"})])
    late = did(
        *((user, "other", 1) for user in USERS), ("u000", ITEMS[19], 25), ("u001", ITEMS[20], 26)
    )
    week = Interval(DAY, DAY + timedelta(days=7))
    effect = effects(late, span=week, published=published, table=table)["response_rate"]
    assert (effect.entries, effect.shown, effect.spare) == (600, 0, 0)


def test_spare_entries_follow_the_shown_ones_and_are_available():
    made = lists({("p1", "ann"): "abcdefg", ("p1", "bob"): "ab"})
    shown = lists({("p1", "ann"): "bcd", ("p1", "bob"): "ab"})  # a was not available
    rows = spare_entries(made, shown, ["e"], 2)
    assert rows.select(c.USER_ID, c.POSITION, c.ITEM_ID).rows() == [
        ("ann", 4, "f"), ("ann", 5, "g"),
    ]  # fmt: skip
    assert rows.columns == made.columns
