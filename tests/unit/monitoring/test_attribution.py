"""Responses to lists, on small days counted by hand; fast joins against a plain reference."""

import json
import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.base import plain as plain_json
from pipeline.monitoring.attribution import (
    AttributionConfig,
    ShownLists,
    answered_pairs,
    attribute_events,
)
from pipeline.monitoring.rates import RATES, Attribution
from tests.published import DAY, at, lists, publications

SPAN = Interval(DAY, DAY + timedelta(days=1))
CONFIG = AttributionConfig(window_days=2)
ONE = publications(("p1", 1, None, "7", at(-9), at(-1))).with_columns(recipe=pl.lit("als"))
USERS = [f"u{n:02}" for n in range(12)]
SHOWN = {("p1", user): "abc" for user in USERS} | {("p1", c.FALLBACK_USER): "xyz"}
PRICES = pl.DataFrame({c.ITEM_ID: ["a", "b", "x"], c.PRICE: [2.1, 0.7, None]})
SEGMENTS = pl.DataFrame(
    {c.USER_ID: USERS, c.SEGMENT: ["new"] * 11 + [None]},
    schema_overrides={c.SEGMENT: pl.String},
)


def did(*rows):
    """(user, item, hours, kind, value, claimed publication and position); the last may lack."""
    defaults = (None, None, None, "click", 1.0, None, None)
    full = [(*row, *defaults[len(row) :]) for row in rows]
    schema = {
        c.USER_ID: pl.String,
        c.ITEM_ID: pl.String,
        "hours": pl.Float64,
        c.KIND: pl.String,
        c.VALUE: pl.Float64,
        c.PUBLICATION_ID: pl.String,
        c.POSITION: pl.Int32,
    }
    frame = pl.DataFrame(full, schema=schema, orient="row")
    instants = [at(hours) for hours in frame["hours"]]
    return frame.drop("hours").with_columns(pl.Series(c.TIMESTAMP, instants, dtype=c.INSTANT))


def run(events, table=ONE, shown=SHOWN, span=SPAN, config=CONFIG, segments=SEGMENTS) -> Attribution:
    rows = lists(shown)
    parts = [part for _, part in rows.group_by(c.PUBLICATION_ID)]
    held = ShownLists.of([(part, part.clear()) for part in parts], events)
    return attribute_events(events, table, held, PRICES, segments, span=span, config=config)


def the(attribution, by="all", name="all"):
    rows = {(row.by, row.name): row for row in attribution.rows}
    return rows[by, name]


def all_users(*rows):
    """Twelve active users without a response, and the named rows."""
    return did(*((user, "q", 1) for user in USERS), *rows)


def with_many_users(*rows, span=SPAN):
    """`all_users` with 60 active users instead of twelve: enough for rates."""
    users = [f"u{n:02}" for n in range(60)]
    shown = {("p1", user): "abc" for user in users} | {("p1", c.FALLBACK_USER): "xyz"}
    return run(did(*((user, "q", 1) for user in users), *rows), ONE, shown, span=span)


def test_rates_by_hand():
    result = with_many_users(
        ("u00", "a", 2),  # a click
        ("u00", "a", 3),  # the same exposure again
        ("u00", "b", 3, "view"),
        ("u01", "a", 4, "purchase", 3.0),
        ("u02", "c", 4, "purchase", 1.0),  # without a price
        ("u03", "b", 5, "rating", 1.0),  # a response, whatever it claims
        ("u04", "z", 5, "purchase", 1.0),  # in no list of this user
        ("u01", "a", 6, "return", 3.0),
        ("u05", "a", 6, "return", 1.0),  # of something bought elsewhere
    )
    row = figures = the(result)
    assert (result.users, result.events, result.joined, result.unshown) == (60, 67, 6, 0)
    assert (row.users, figures.exposures) == (60, 180)
    assert (figures.responses, figures.clicks, figures.purchases, figures.ratings) == (5, 2, 2, 1)
    assert (figures.returned, figures.unpriced) == (1, 1)
    assert figures.revenue == pytest.approx(6.3)
    assert figures.response_rate == pytest.approx(5 / 180)
    assert figures.ctr == pytest.approx(2 / 180)
    assert figures.visitor_hit_rate == pytest.approx(2 / 180)
    assert figures.revenue_per_exposure == pytest.approx(6.3 / 180)
    # Two purchases are too few for their rate.
    assert figures.return_rate is None
    # Clustered: both clicks are of one user.
    residuals = [2 - 3 * 2 / 180, *[-3 * 2 / 180] * 59]
    se = math.sqrt(60 / 59 * sum(r * r for r in residuals)) / 180
    assert figures.ctr_se == pytest.approx(se)


def test_the_kinds_of_visitor_hits_are_a_setting():
    config = AttributionConfig(visitor_hits=("order",))
    row = the(
        run(all_users(("u00", "a", 2, "order", 2.0), ("u01", "b", 3, "purchase")), config=config)
    )
    assert (row.purchases, row.responses, row.revenue) == (1, 2, 4.2)


def test_a_response_to_a_list_of_an_earlier_day_is_reported_and_in_no_rate():
    table = publications(
        ("p1", 1, None, "7", at(-9), at(-8)), ("p2", 2, None, "8", at(-1), at(0))
    ).with_columns(recipe=pl.lit("als"))
    shown = SHOWN | {("p2", user): "de" for user in USERS}
    seen = [(user, "q", -2) for user in USERS]
    late = [(user, item, 2) for user in USERS for item in "abc"]
    result = run(did(*seen, *late, ("u00", "d", 3)), table, shown)
    assert (result.joined, result.late) == (37, 36)
    assert {row.name for row in result.rows if row.by == "version"} == {"8"}
    figures = the(result)
    assert (figures.exposures, figures.responses) == (24, 1)
    # A span of two days is the sum of its days.
    whole = run(did(*seen, *late), table, shown, span=Interval(DAY - timedelta(days=1), SPAN.end))
    assert (whole.joined, whole.late) == (36, 36)
    assert the(whole).exposures == 60


def test_groups_are_of_users_items_and_places():
    result = run(all_users(("u00", "a", 2), ("u11", "b", 2)))
    for by, name, exposures, clicks in (
        ("publication", "p1", 36, 2),
        ("version", "7", 36, 2),
        ("recipe", "als", 36, 2),
        ("slot", "model", 36, 2),
        ("position", "1", 12, 1),
        ("position", "2", 12, 1),
        ("position", "3", 12, 0),
    ):
        figures = the(result, by, name)
        assert (figures.exposures, figures.clicks) == (exposures, clicks), (by, name)
    assert [row.by for row in result.rows] == [
        "all", "publication", "version", "recipe", "slot",
        "position", "position", "position",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (12, [("new", 12, 36, 1)]),
        (11, []),  # the figures of the last user would follow from those of all
        (9, []),
    ],
)
def test_figures_of_fewer_than_ten_users_do_not_follow_from_the_segments(named, expected):
    segment = pl.Series(["new"] * named + [None] * (12 - named), dtype=pl.String)
    segments = SEGMENTS.with_columns(segment.alias(c.SEGMENT))
    result = run(all_users(("u00", "a", 2)), segments=segments)
    rows = [row for row in result.rows if row.by == "segment"]
    assert [(row.name, row.users, row.exposures, row.clicks) for row in rows] == expected


def test_of_a_group_of_fewer_than_ten_only_the_number_is_reported():
    result = run(did(("u11", "a", 2)))
    row = the(result)
    assert row.users == 1
    assert {v for n, v in plain_json(row).items() if n not in ("by", "name", "users")} == {None}


def test_an_event_is_attributed_to_the_last_list_with_its_item():
    """The drawing of the module, and the effect of a patch."""
    table = publications(
        ("p1", 1, None, "7", at(-9), at(-30)),
        ("p2", 2, None, "8", at(0), at(6)),
        ("p2a", 3, "p2", "8", at(8), at(9)),
    )
    shown = {
        ("p1", "ann"): "ab", ("p1", c.FALLBACK_USER): "x",
        ("p2", "ann"): "bc", ("p2", c.FALLBACK_USER): "x",
        ("p2a", "ann"): "de",
    }  # fmt: skip

    def credited(*rows):
        result = run(did(*rows), table, shown)
        # ann alone is too small a group; the claims show the attribution
        return result.claims.agree, result.claims.contradict, result.claims.unmatched

    def expected(item, hours, publication, position=None):
        return ("ann", item, hours, "click", 1.0, publication, position)

    there = ("ann", "q", 1)
    assert credited(there, expected("a", 3, "p1", 1)) == (1, 0, 0)
    assert credited(there, expected("b", 7, "p2", 1)) == (1, 0, 0)
    assert credited(there, expected("b", 7, "p1", 2)) == (0, 1, 0)
    assert credited(there, expected("b", 7, "p2", 2)) == (0, 1, 0)
    assert credited(there, expected("a", 7, "p1", 1)) == (
        1,
        0,
        0,
    )  # p2 lacks it: the last one with it
    assert credited(expected("a", 7, "p1")) == (0, 0, 1)  # but no user was active while p1 was live
    assert credited(there, expected("q", 7, "p2", 1)) == (0, 0, 1)
    assert credited(there, expected("d", 8, "p2a", 1)) == (0, 0, 1)  # before the patch
    assert credited(there, expected("d", 9, "p2a", 1)) == (1, 0, 0)
    assert credited(("ann", "q", 8), expected("c", 10, "p2", 2)) == (1, 0, 0)
    assert credited(there, expected("a", 7, None)) == (0, 0, 0)


def test_the_window_ends_after_its_days():
    table = publications(
        ("p1", 1, None, "7", at(-90), at(-80)), ("p2", 2, None, "8", at(-1), at(-1))
    )
    shown = {("p1", "ann"): "a", ("p1", "*"): "x", ("p2", "ann"): "b", ("p2", "*"): "x"}
    early = ("ann", "q", -30)
    assert run(did(early, ("ann", "a", 18)), table, shown).joined == 1
    late = did(early, ("ann", "a", 18 + 1e-6))
    assert run(late, table, shown).joined == 0
    assert run(late, table, shown, config=AttributionConfig(window_days=3)).joined == 1


def test_users_without_a_list_respond_to_the_fallback_list():
    strangers = [f"s{n:02}" for n in range(10)]
    result = run(did(*((s, "x", 2) for s in strangers), ("s00", "a", 3), ("u00", "x", 3)))
    figures = the(result, "slot", "fallback")
    assert (figures.exposures, figures.responses) == (30, 10)
    assert result.joined == 10


def test_claims_of_lists_that_were_never_shown_are_counted_but_not_attributed():
    claimed = [("u00", item, 2, "click", 1.0, "p1", 1) for item in "klmno"]
    claimed += [("u01", "a", 2, "click", 1.0, "p99", 1), ("s00", "a", 2, "click", 1.0, "p1", 1)]
    result = run(all_users(*claimed))
    assert (result.claims.agree, result.claims.contradict, result.claims.unmatched) == (0, 1, 6)
    assert result.joined == the(result).clicks == 1
    assert "p99" not in {row.name for row in result.rows}
    before = run(did(("u00", "a", 2, "click", 1.0, "p1", 1)), publications(), {})
    assert (before.joined, before.unshown, before.claims.unmatched) == (0, 1, 1)
    assert before.rows == ()


def test_many_events_of_one_user_give_at_most_the_exposures_of_that_user():
    without_flood = with_many_users(("u01", "a", 2))
    flood = [("u00", "abcxyz"[n % 6], 2 + n / 1000, "click") for n in range(3000)]
    with_flood = with_many_users(("u01", "a", 2), *flood)
    figures = the(with_flood)
    assert figures.exposures == the(without_flood).exposures
    assert figures.clicks == the(without_flood).clicks + 3
    # And the error accounts for its being one user.
    assert figures.ctr_se > 3 * the(without_flood).ctr_se


def test_each_day_of_the_span_is_an_exposure_of_its_own():
    week = Interval(DAY, DAY + timedelta(days=7))
    events = did(*((user, "q", 24 * day) for user in USERS for day in range(3)), ("u00", "a", 49))
    figures = the(run(events, span=week))
    assert (figures.exposures, figures.responses) == (3 * 36, 1)


def test_a_window_with_no_event_and_no_publication():
    for events in (did(), did(("u00", "a", -5)), did(("u00", "a", 24))):
        result = run(events)
        assert (result.users, result.events, result.joined, result.rows) == (0, 0, 0, ())
    assert run(did(), publications(), {}).rows == ()


def plain(events, table, shown, window):
    """Return the (publication, position) of each event in the span, one event at a time."""
    rows = sorted(table.iter_rows(named=True), key=lambda row: row[c.GENERATION])

    def list_of(user, instant):
        bases = [r for r in rows if r[c.BASE] is None and r[c.LIVE_FROM] <= instant]
        if not bases:
            return None
        base = bases[-1][c.PUBLICATION_ID]
        chain = [r[c.PUBLICATION_ID] for r in rows if base in (r[c.PUBLICATION_ID], r[c.BASE])]
        live = {r[c.PUBLICATION_ID] for r in rows if r[c.LIVE_FROM] <= instant}
        for owner in (user, c.FALLBACK_USER):
            held = [p for p in chain if p in live and (p, owner) in shown]
            if held:
                return held[-1], owner
        return None

    results = []
    all_events = list(events.iter_rows(named=True))
    for event in all_events:
        if event[c.TIMESTAMP] not in SPAN:
            continue
        best = None
        for visit in all_events:
            gap = event[c.TIMESTAMP] - visit[c.TIMESTAMP]
            same = visit[c.USER_ID] == event[c.USER_ID]
            if not same or not timedelta(0) <= gap <= window:
                continue
            seen = list_of(visit[c.USER_ID], visit[c.TIMESTAMP])
            if seen is None or event[c.ITEM_ID] not in shown[seen]:
                continue
            if best is None or visit[c.TIMESTAMP] > best[0]:
                place = shown[seen].index(event[c.ITEM_ID]) + 1
                best = (visit[c.TIMESTAMP], seen[0], place)
        results.append(None if best is None else best[1:])
    return results


@pytest.mark.parametrize("seed", range(6))
def test_last_touch_agrees_with_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    hours = sorted(rng.choice(np.arange(-60, 24), 7, replace=False).tolist())
    rows, base = [], None
    for generation, hour in enumerate(hours, start=1):
        patch = base is not None and rng.random() < 0.4
        rows.append((f"p{generation}", generation, base if patch else None, "7", at(-99), at(hour)))
        base = base if patch else f"p{generation}"
    table = publications(*rows)
    items = list("abcdefgh")
    shown = {
        (row[0], user): "".join(rng.permutation(items)[:3])
        for row in rows
        for user in [*USERS[:4], c.FALLBACK_USER]
        if rng.random() < 0.6
    }
    events = did(
        *(
            (USERS[rng.integers(6)], items[rng.integers(8)], float(rng.uniform(-48, 24)))
            for _ in range(160)
        )
    )
    asked = plain(events, table, shown, timedelta(days=2))
    assert 10 < sum(one is not None for one in asked) < len(asked)
    assert run(events, table, shown).joined == sum(one is not None for one in asked)
    # Each event in the span claims the list of the reference, or another one.
    inside = iter(asked)
    truths = [next(inside) if when in SPAN else None for when in events[c.TIMESTAMP]]
    claimed = events.with_columns(
        pl.Series(c.PUBLICATION_ID, [t[0] if t else None for t in truths], dtype=pl.String),
        pl.Series(c.POSITION, [t[1] if t else None for t in truths], dtype=pl.Int32),
    )
    claims = run(claimed, table, shown).claims
    assert (claims.agree, claims.contradict, claims.unmatched) == (
        sum(one is not None for one in asked),
        0,
        0,
    )


def test_neither_pseudonyms_nor_the_order_of_rows_change_a_digit():
    rng = np.random.default_rng(3)
    rows = [
        (USERS[rng.integers(12)], "abcdxyz"[rng.integers(7)], float(rng.uniform(0, 24)), kind, 2.0)
        for kind in ("click", "purchase", "return", "rating")
        for _ in range(60)
    ]
    names = dict(zip(USERS, rng.permutation([f"q{n}" for n in range(12)]), strict=True))

    def rates(name, order):
        events = did(*((name(row[0]), *row[1:]) for row in (rows[n] for n in order)))
        shown = {(p, name(u)): items for (p, u), items in SHOWN.items()}
        held = ShownLists.of([(lists(shown), lists({}))], events)
        segments = SEGMENTS.with_columns(pl.col(c.USER_ID).replace(names)) if order[0] else SEGMENTS
        result = attribute_events(events, ONE, held, PRICES, segments, span=SPAN, config=CONFIG)
        return plain_json(result)

    once = rates(lambda user: user, range(len(rows)))
    other = rng.permutation(len(rows))
    assert once == rates(lambda user: names.get(user, user), other)
    assert once["rows"][0]["revenue"] > 0 and once["rows"][0]["returned"] > 0


def test_a_pair_answers_a_list_if_each_of_its_wanted_events_does():
    events = did(
        ("u00", "q", -30),
        ("u00", "a", 2),  # in the list that is live
        ("u01", "q", 3),  # in no list
        ("u02", "b", -3, "purchase"),  # before the publication and before the span
        ("u02", "b", 3, "purchase"),
        ("u03", "c", -0.5),  # not in the span
        ("u04", "x", 4),  # in the fallback list, but this user has an own one
        ("u05", "a", 4, "view"),  # not wanted
        ("s00", "x", 5),  # a user with the fallback list
        ("u06", "b", 6, "purchase"),
        ("u06", "c", 6, "return"),
    )
    table = publications(("p1", 1, None, "7", at(-9), at(-1)))
    held = ShownLists.of([(lists(SHOWN), lists({}))], events)
    wanted = pl.col(c.KIND).is_in(["click", "purchase"])
    pairs = answered_pairs(events, table, held, wanted, span=SPAN, config=CONFIG)
    assert pairs.rows() == [("s00", "x"), ("u00", "a"), ("u02", "b"), ("u06", "b")]
    # An event before its list was live does not answer it, so its pair is left out.
    late = publications(("p1", 1, None, "7", at(-9), at(5)))
    twice = did(("u06", "b", 4), ("u06", "b", 6), ("u05", "b", 6))
    held = ShownLists.of([(lists(SHOWN), lists({}))], twice)
    pairs = answered_pairs(twice, late, held, wanted, span=SPAN, config=CONFIG)
    assert pairs.rows() == [("u05", "b")]


def test_it_is_plain_json():
    as_json = plain_json(run(all_users(("u00", "a", 2))))
    assert json.loads(json.dumps(as_json, allow_nan=False)) == as_json
    assert as_json["span"] == ["2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z"]
    assert as_json["claims"] == {"agree": 0, "contradict": 0, "unmatched": 0}
    assert as_json["rows"][0]["clicks"] == 1 and as_json["shown_effects"] == []


def test_a_rate_needs_users_of_similar_activity():
    week, click = Interval(DAY, DAY + timedelta(days=7)), ("u00", "a", 2)
    figures = the(with_many_users(click, span=week))
    assert figures.ctr_lo < figures.ctr < figures.ctr_hi
    # Four users with a list every day have 28 of 84 showings: 35 effective users.
    daily = [(f"u{n:02}", "q", 24 * day + 1) for n in range(4) for day in range(1, 7)]
    row = plain_json(the(with_many_users(click, *daily, span=week)))
    assert (row["users"], row["exposures"], row["responses"]) == (60, 3 * 84, 1)
    rates = {f"{rate}{end}" for rate in RATES for end in ("", "_se", "_lo", "_hi")}
    assert rates <= set(row) and {row[name] for name in rates} == {None}
