"""The benchmark of fold-in compares three kinds of lists of the same users."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks import foldin
from pipeline import columns as c
from pipeline.data.matrix import WEIGHT
from pipeline.models.als import Als

NIGHT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        for _ in range(16):
            item = (user % 3) * 12 + int(rng.integers(12))
            rows.append((f"u{user:02}", f"i{item:02}", NIGHT + timedelta(days=rng.uniform(-60, 9))))
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: c.INSTANT}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))


def test_three_kinds_of_lists_are_of_users_with_events(events):
    gap = timedelta(days=3)
    made = foldin._three(Als(factors=4, iterations=3, device="cpu"), events, NIGHT, gap)
    at = pl.col(c.TIMESTAMP)
    did = set(events.filter((at >= NIGHT) & (at < NIGHT + gap))[c.USER_ID])
    assert 10 < len(did) < 60
    assert {kind: set(frame[c.USER_ID]) for kind, frame in made.items()} == dict.fromkeys(
        ("left", "folded", "retrained"), did
    )
    had = set(events.filter(at < NIGHT + gap).select(c.USER_ID, c.ITEM_ID).rows())
    shown = {kind: set(f.select(c.USER_ID, c.ITEM_ID).rows()) for kind, f in made.items()}
    assert not (shown["folded"] | shown["retrained"]) & had
    assert shown["left"] & had


def test_a_model_that_is_not_trained_again_is_its_own_equal(events, monkeypatch):
    recipe = Als(factors=4, iterations=3, device="cpu")
    one = foldin._three(recipe, events, NIGHT, timedelta(days=3))
    monkeypatch.setattr(foldin, "_three", lambda *_: {**one, "retrained": one["folded"]})
    monkeypatch.setitem(foldin.DATA, "made-up", foldin.DATA["online-retail"].__class__(
        lambda _: events, (NIGHT,), ()
    ))  # fmt: skip
    near = foldin._near("made-up", "als", recipe, events, timedelta(days=3))
    assert near.folded_in_common == 1.0 > near.left_in_common > 0
    assert near.folded_ndcg_at_10 == near.retrained_ndcg_at_10 > 0


def test_the_promise_is_printed_with_the_cron(capsys):
    foldin.print_fresh(foldin.Fresh("x", "als", 9, 5000, 4.0, 61.0, 3.0, 5.0, 5.5, 2))
    printed = capsys.readouterr().out
    assert "MISSED  aim: 95 % within 10 s" in printed
    assert "300 s until the cron + 2 s to lie still + 61.0 s = 363 s" in printed
