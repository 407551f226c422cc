"""Live lists against later events, on shops small enough to count by hand."""

import json
import math
from datetime import timedelta

import numpy as np
import pytest

from pipeline import columns as c
from pipeline.base import Interval, plain
from pipeline.data.exposure import active_publications, lists_for
from pipeline.evaluation.prequential import PrequentialFigures, prequential
from tests.published import DAY, at, lists, log, publications

SPAN = Interval(DAY, DAY + timedelta(days=1))
K = 3


ONE = publications(("p1", 1, None, "7", at(-9), at(0)))
SHOWN = lists({("p1", "ann"): "abc", ("p1", "bob"): "bcd", ("p1", c.FALLBACK_USER): "xyz"})


def run(events, table=ONE, shown=SHOWN, past=None, task="repeat", span=SPAN):
    past = log() if past is None else past
    return prequential(events, past, table, shown, span=span, k=K, task=task)


def the(result, version="7", name="all"):
    rows = {(row.model_version, row.slice): row for row in result.rows}
    return rows[version, name]


def gain(*places):
    return sum(1 / math.log2(place + 1) for place in places)


def test_hits_and_ndcg_by_hand():
    result = run(log(("ann", "b", at(1)), ("ann", "q", at(2)), ("bob", "b", at(3))))
    row = the(result)
    assert (row.users, row.user_days, row.events) == (2, 2, 3)
    assert row.hit_rate.mean == pytest.approx(2 / 3)
    ann = gain(2) / gain(1, 2)
    assert row.ndcg.mean == pytest.approx((ann + 1) / 2)
    assert row.base_only_ndcg == row.ndcg and row.base_only_hit_rate == row.hit_rate
    # Two users: the error of a mean of two values, and t with one degree of freedom.
    assert row.ndcg.se == pytest.approx((1 - ann) / 2)
    assert row.ndcg.lo == 0.0 and row.ndcg.hi == 1.0


def test_an_event_of_the_same_item_twice_is_two_events_of_one_truth():
    row = the(run(log(("ann", "a", at(1)), ("ann", "a", at(2)))))
    assert (row.events, row.hit_rate.mean, row.ndcg.mean) == (2, 1.0, 1.0)
    assert row.ndcg.se is None and row.ndcg.lo is None


def test_an_item_after_place_k_is_not_a_hit():
    long = lists({("p1", "ann"): "abcde", ("p1", c.FALLBACK_USER): "x"})
    assert the(run(log(("ann", "d", at(1))), shown=long)).hit_rate.mean == 0.0
    assert the(run(log(("ann", "c", at(1))), shown=long)).ndcg.mean == pytest.approx(0.5)


def test_a_list_counts_from_the_instant_it_is_live():
    table = publications(("p1", 1, None, "7", at(-9), at(6)))
    instant = timedelta(microseconds=1)
    result = run(log(("ann", "a", at(6)), ("bob", "b", at(6) - instant)), table)
    assert (result.events, result.unlisted, the(result).users) == (2, 1, 1)


def test_two_publications_in_one_span_are_two_rows():
    table = publications(("p1", 1, None, "7", at(-9), at(0)), ("p2", 2, None, "8", at(12), at(12)))
    shown = lists(
        {
            ("p1", "ann"): "abc",
            ("p2", "ann"): "cba",
            ("p1", c.FALLBACK_USER): "x",
            ("p2", c.FALLBACK_USER): "x",
        }
    )
    events = log(("ann", "a", at(11)), ("ann", "a", at(12)), ("ann", "a", at(13)))
    result = run(events, table, shown)
    assert the(result, "7").ndcg.mean == pytest.approx(1.0)
    assert the(result, "8").ndcg.mean == pytest.approx(0.5)
    assert (the(result, "7").events, the(result, "8").events) == (1, 2)
    assert [row.model_version for row in result.rows if row.slice == "all"] == ["7", "8"]


def test_the_generation_decides_where_clocks_disagree():
    # The second went live while the clock was an hour behind: it is still the later one.
    table = publications(("p1", 1, None, "7", at(-9), at(4)), ("p2", 2, None, "8", at(-1), at(3)))
    shown = lists({("p1", "ann"): "a", ("p2", "ann"): "b", ("p1", "*"): "x", ("p2", "*"): "x"})
    result = run(log(("ann", "b", at(5))), table, shown)
    assert result.rows[0].model_version == "8"
    assert active_publications(table, SPAN) == ["p2"]


def test_a_user_with_a_patch_is_judged_by_it_and_the_base_stands_beside():
    table = publications(
        ("p1", 1, None, "7", at(-9), at(0)),
        ("p1a", 2, "p1", "7", at(5), at(6)),
        ("p1b", 3, "p1", "7", at(7), at(8)),
        ("p2", 4, None, "8", at(20), at(20)),
    )
    shown = lists(
        {
            ("p1", "ann"): "abc",
            ("p1", "bob"): "bcd",
            ("p1", c.FALLBACK_USER): "xyz",
            ("p1a", "ann"): "qrs",
            ("p1b", "new"): "uvw",
            ("p2", "ann"): "abc",
            ("p2", c.FALLBACK_USER): "xyz",
        }
    )
    events = log(
        ("ann", "q", at(5.9)),  # the patch is not live yet
        ("ann", "q", at(7)),
        ("ann", "q", at(9)),  # the newest patch holds nothing of hers: the one before does
        ("new", "u", at(9)),
        (
            "new",
            "x",
            at(9),
        ),  # no list in the base: the fallback
        ("bob", "b", at(9)),
        ("ann", "a", at(21)),  # the nightly ended the chain
    )
    result = run(events, table, shown)
    row = the(result, "7")
    assert row.hit_rate.mean == pytest.approx(4 / 6)
    assert row.base_only_hit_rate.mean == pytest.approx(2 / 6)
    assert row.user_days == 4  # ann's day has two lists
    half = gain(1) / gain(1, 2)
    assert row.ndcg.mean == pytest.approx((2 + half) / 4)
    assert row.base_only_ndcg.mean == pytest.approx((1 + half) / 4)
    assert the(result, "8").hit_rate.mean == 1.0
    assert active_publications(table, SPAN) == ["p1", "p1a", "p1b", "p2"]


def test_users_without_a_list_are_shown_the_one_for_anyone():
    shown = lists({("p1", "ann"): "abc", ("p1", "~cat"): "xyz", ("p1", c.FALLBACK_USER): "xyz"})
    past = log(("ann", "z", at(-5)))
    events = log(("ann", "a", at(1)), ("cat", "q", at(1)), ("eve", "y", at(1)))
    result = run(events, shown=shown, past=past)
    assert the(result, name="model").hit_rate.mean == 1.0
    fallback = the(result, name="fallback")
    assert (fallback.users, fallback.hit_rate.mean) == (2, 0.5)
    assert the(result, name="new").users == 2
    assert the(result, name="cold").users == 1


def test_groups_are_quartiles_of_earlier_events():
    names = [f"u{n}" for n in range(1, 9)]
    had = [(name, "a", at(-n)) for count, name in enumerate(names, 1) for n in range(1, count + 1)]
    past = log(*had, *((name, "a", at(1)) for name in names))
    result = run(log(*((name, "x", at(1)) for name in names)), past=past)
    sizes = {row.slice: row.users for row in result.rows}
    assert sizes == {"all": 8, "fallback": 8, "cold": 2, "warm": 4, "hot": 2}


def test_discovery_asks_for_nothing_that_the_list_could_not_hold():
    past = log(
        ("ann", "a", at(-10)),  # before the list's as-of
        ("ann", "b", at(-8)),  # after it: the list could hold it
        *[("ann", item, at(1)) for item in "abc"],
    )
    events = log(*[("ann", item, at(1)) for item in "abc"])
    result = run(events, past=past, task="discovery")
    assert (result.events, result.repeated, the(result).events) == (3, 1, 2)
    assert run(events, past=past).repeated == 0


def test_no_publication_and_no_event():
    none = run(log(("ann", "a", at(1))), publications(), lists({}))
    assert (none.events, none.unlisted, none.rows) == (1, 1, ())
    quiet = run(log())
    assert (quiet.events, quiet.unlisted, quiet.rows) == (0, 0, ())
    outside = run(log(("ann", "a", at(-1)), ("ann", "a", at(24))))
    assert outside.events == 0
    assert active_publications(publications(), SPAN) == []


def test_only_lists_that_can_have_been_shown_are_read():
    table = publications(
        ("old", 1, None, "6", at(-30), at(-30)),
        ("oldpatch", 2, "old", "6", at(-28), at(-28)),
        ("p1", 3, None, "7", at(-9), at(-9)),
        ("p2", 4, None, "8", at(24), at(24)),
    )
    assert active_publications(table, SPAN) == ["p1"]
    rows = lists({("p1", "ann"): "a", ("p1", "bob"): "b", ("p1", "*"): "c", ("p2", "*"): "d"})
    read = rows.filter(lists_for(["p1"], ["ann"]))
    assert read[c.ITEM_ID].to_list() == ["a", "c"]


def test_neither_pseudonyms_nor_the_order_of_rows_change_a_digit():
    rng = np.random.default_rng(1)
    users = [f"u{n:03}" for n in range(60)]
    other = dict(zip(users, rng.permutation([f"q{n:03}" for n in range(60)]), strict=True))
    rows = [
        (users[rng.integers(60)], "abcdefgh"[rng.integers(8)], at(float(rng.uniform(0, 24))))
        for _ in range(400)
    ]
    shown = {("p1", u): rng.permutation(list("abcdefgh"))[:K].tolist() for u in users}

    def scored(names, events):
        renamed = lists({("p1", names[u]): items for (_, u), items in shown.items()})
        events = [(names[u], item, when) for u, item, when in events]
        return plain(run(log(*events), shown=renamed, past=log(*events)))

    same = {name: name for name in users}
    assert scored(same, rows) == scored(other, [rows[n] for n in rng.permutation(400)])


def test_it_is_plain_json():
    scores = run(log(("ann", "b", at(1))))
    row = plain(PrequentialFigures.of(scores.rows[0]))
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert plain(scores.span) == ["2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z"]
    assert row["ndcg_lo"] is None
    assert row.items() >= plain(PrequentialFigures.of(scores.rows[0]).summary).items()


def test_of_fewer_than_ten_users_only_their_number_is_reported():
    events = [(f"u{n}", "x", at(n)) for n in range(9)]
    few = [plain(PrequentialFigures.of(row)) for row in run(log(*events)).rows]
    assert {row["slice"] for row in few} == {"all", "fallback", "new"}
    for row in few:
        assert (row["users"], row["user_days"], row["events"]) == (9, 9, 9)
        figures = {
            v for n, v in row.items() if n.removeprefix("base_only_")[:4] in ("hit_", "ndcg")
        }
        assert figures == {None}
    rows = run(log(*events, ("u9", "q", at(9)))).rows
    enough = plain(PrequentialFigures.of(rows[0]))
    assert (enough["users"], enough["hit_rate"]) == (10, 0.9)
    assert enough["ndcg_lo"] < enough["ndcg"] < enough["ndcg_hi"]
