from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns as c
from pipeline.data.split import SplitConfig, split
from pipeline.workspace.artifacts import SplitFile

START = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = START + timedelta(hours=24 * 30)
KINDS = ("view", "purchase", "return")
Event = tuple[int, int, str, int]

ROWS = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 5), st.sampled_from(KINDS), st.integers(0, 24 * 35)
    ),
    max_size=60,
)


def frame(rows: list[Event]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{r[0]}" for r in rows],
            c.ITEM_ID: [f"i{r[1]}" for r in rows],
            c.KIND: [r[2] for r in rows],
            c.VALUE: [1.0] * len(rows),
            c.TIMESTAMP: pl.Series([START + timedelta(hours=r[3]) for r in rows], dtype=c.INSTANT),
        }
    )


def plain_truth(
    rows: list[Event], cutoff: int, as_of: int, discovery: bool
) -> set[tuple[str, str]]:
    known = {u for u, _, _, hour in rows if hour < cutoff}
    had = {(u, i) for u, i, _, hour in rows if hour < cutoff}
    return {
        (f"u{u}", f"i{i}")
        for u, i, kind, hour in rows
        if kind == "purchase"
        and cutoff <= hour < as_of
        and u in known
        and not (discovery and (u, i) in had)
    }


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["repeat", "discovery"]), st.integers(1, 6), st.randoms())
def test_a_split_agrees_with_a_loop_and_with_any_order(
    rows: list[Event], policy: str, enough: int, randomness: object
) -> None:
    rows = [(0, 0, "purchase", 0), *rows]
    config = SplitConfig(
        min_users=max(2, enough),
        holdout_days_options=(7, 14, 28),
        task=policy,
        target_kinds=("purchase",),
    )
    parts = split(frame(rows), AS_OF, config, first=False)
    cutoff = 24 * (30 - parts.holdout_days)
    expected = plain_truth(rows, cutoff, 24 * 30, policy == "discovery")
    assert set(parts.truth.iter_rows()) == expected
    assert parts.train.end == parts.holdout.start == START + timedelta(hours=cutoff)
    assert parts.holdout.end == AS_OF
    judged = len({user for user, _ in expected})
    assert judged >= config.min_users or "underpowered" in parts.flags
    shuffled = rows.copy()
    randomness.shuffle(shuffled)  # type: ignore[attr-defined]
    again = split(frame(shuffled), AS_OF, config, first=False)
    assert again.truth.equals(parts.truth)
    assert SplitFile.of(again) == SplitFile.of(parts)
