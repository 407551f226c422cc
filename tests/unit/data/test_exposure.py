"""Whose list of which publication: the fast joins against the rule as it is written."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.exposure import OWNER, SHOWN, bases_alone, exposure_intervals, shown_at
from tests.published import at, lists, log, publications


def by_the_rule(user, instant, table, held):
    """Return (publication, owner) by the rule of the docstring, one instant at a time."""
    rows = list(table.iter_rows(named=True))
    live = [r for r in rows if r[c.BASE] is None and r[c.LIVE_FROM] <= instant]
    if not live:
        return None
    base = max(live, key=lambda r: r[c.GENERATION])[c.PUBLICATION_ID]
    chain = [r for r in rows if base in (r[c.PUBLICATION_ID], r[c.BASE])]
    chain = [r for r in chain if r[c.LIVE_FROM] <= instant]
    for owner in (user, c.FALLBACK_USER):
        own = [r for r in chain if (r[c.PUBLICATION_ID], owner) in held]
        if own:
            return max(own, key=lambda r: r[c.GENERATION])[c.PUBLICATION_ID], owner
    return None


def visible_lists(events, table, shown):
    rows = events.with_row_index("row")
    joined = shown_at(rows, exposure_intervals(table, shown))
    assert joined["row"].n_unique() == joined.height
    return {row["row"]: (row[SHOWN], row[OWNER]) for row in joined.iter_rows(named=True)}


@pytest.mark.parametrize("seed", range(12))
def test_it_follows_the_rule(seed):
    rng = np.random.default_rng(seed)
    hours = rng.integers(0, 12, 9)  # clocks disagree, and some instants are equal
    rows, bases = [], []
    for generation, hour in enumerate(hours.tolist(), start=1):
        base = None if not bases or rng.random() < 0.4 else bases[rng.integers(len(bases))]
        rows.append((f"p{generation}", generation, base, "7", at(-9), at(hour)))
        if base is None:
            bases.append(f"p{generation}")
    table = publications(*rows)
    users = [*"abcde", c.FALLBACK_USER]
    held = {(r[0], u): "x" for r in rows for u in users if rng.random() < 0.5}
    events = log(
        *((u, "x", at(h)) for u in "abcde" for h in (*range(-1, 13), *rng.uniform(0, 12, 9)))
    )
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=seed)
    assert any(r[2] for r in rows) and held
    for alone, few in ((table, held), (bases_alone(table), held)):
        joined = visible_lists(
            shuffled, alone, lists(few).sample(fraction=1.0, shuffle=True, seed=seed)
        )
        for n, (user, _, instant) in enumerate(shuffled.iter_rows()):
            assert joined.get(n) == by_the_rule(user, instant, alone, few), (user, instant)


def test_lists_of_one_owner_touch_and_never_overlap():
    table = publications(
        ("p1", 1, None, "7", at(-9), at(0)),
        ("p1a", 2, "p1", "7", at(3), at(4)),
        ("p2", 3, None, "8", at(9), at(9)),
    )
    joined = exposure_intervals(
        table, lists({("p1", "ann"): "ab", ("p1a", "ann"): "ab", ("p2", "ann"): "a"})
    )
    spans = joined.select(SHOWN, "since", "until", c.MODEL_VERSION, c.BASE).rows()
    assert spans[0] == ("p1", at(0), at(4), "7", "p1")
    assert spans[1] == ("p1a", at(4), at(9), "7", "p1")
    assert spans[2][:2] == ("p2", at(9)) and spans[2][2] > at(9) + timedelta(days=36500)


def test_nothing_published_shows_nothing():
    assert visible_lists(log(("ann", "x", at(1))), publications(), lists({})) == {}
    assert exposure_intervals(publications(), lists({})).is_empty()
    assert shown_at(log(), exposure_intervals(publications(), lists({}))).is_empty()


def test_whatever_else_an_event_holds_stays():
    table = publications(("p1", 1, None, "7", at(-9), at(0)))
    rows = log(("ann", "x", at(1)), ("bob", "x", at(1))).with_columns(kind=pl.lit("view"))
    joined = shown_at(
        rows, exposure_intervals(table, lists({("p1", "ann"): "ab", ("p1", c.FALLBACK_USER): "x"}))
    )
    assert joined.select(c.USER_ID, "kind", OWNER).sort(c.USER_ID).rows() == [
        ("ann", "view", "ann"),
        ("bob", "view", c.FALLBACK_USER),
    ]
