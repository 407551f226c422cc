"""Activity of items and users: the check finds silent halves, and no healthy week."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.validate.activity import ActivityConfig, judge_activity
from pipeline.data.validate.checks import DataCheck, Status

AS_OF = datetime(2024, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)
CONFIG = ActivityConfig()


def shop(days: int = 120, users: int = 900, items: int = 1500, a_day: int = 1200) -> pl.DataFrame:
    """A shop whose users come with a rate of their own, and buy popular items more often."""
    rng = np.random.default_rng(3)
    n = days * a_day
    rate = rng.gamma(1.0, 1.0, users)
    weight = 1 / (10 + np.arange(items))
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{x}" for x in rng.choice(users, n, p=rate / rate.sum())],
            c.ITEM_ID: [f"i{x}" for x in rng.choice(items, n, p=weight / weight.sum())],
            c.TIMESTAMP: [AS_OF - DAY * float(x) for x in rng.uniform(0.001, days, n)],
            c.SOURCE: ["shop"] * n,
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )


SHOP = shop()


def silent(column: str, days: float) -> pl.DataFrame:
    """The shop after half of the ids of a column fell silent."""
    half = pl.col(column).str.slice(1).cast(pl.Int64) % 2 == 0
    return SHOP.filter(~(half & (pl.col(c.TIMESTAMP) >= AS_OF - DAY * days)))


def judged(events: pl.DataFrame, *blocked: Interval) -> dict[str, DataCheck]:
    return {check.name: check for check in judge_activity(events, AS_OF, blocked, CONFIG)}


def test_a_healthy_week_passes_with_a_ratio_near_one() -> None:
    checks = judged(SHOP)
    assert list(checks) == ["activity_items", "activity_users"]
    for check in checks.values():
        assert check.status is Status.PASSED
        assert check.figure == pytest.approx(1.0, abs=0.1)
        assert check.bound in (0.7, 0.5)


@pytest.mark.parametrize("days", [7, 21])
def test_half_of_the_items_silent_fails_although_volume_may_stay(days: float) -> None:
    check = judged(silent(c.ITEM_ID, days))["activity_items"]
    assert check.status is Status.FAILED
    assert "of source shop" in check.sentence
    assert check.sentence.endswith("% at least") and "% of usual" in check.sentence


def test_renamed_users_fail() -> None:
    recent = pl.col(c.TIMESTAMP) >= AS_OF - DAY * 7
    renamed = pl.when(recent).then(pl.lit("x") + pl.col(c.USER_ID)).otherwise(pl.col(c.USER_ID))
    checks = judged(SHOP.with_columns(renamed.alias(c.USER_ID)))
    assert checks["activity_users"].status is Status.FAILED
    assert checks["activity_users"].figure == 0.0
    assert checks["activity_items"].status is Status.PASSED


def test_each_source_is_compared_with_itself() -> None:
    other = silent(c.ITEM_ID, 7).with_columns(
        pl.lit("app").alias(c.SOURCE), (pl.lit("b") + pl.col(c.ITEM_ID)).alias(c.ITEM_ID)
    )
    check = judged(pl.concat([SHOP, other]))["activity_items"]
    assert check.status is Status.FAILED
    assert "of source app" in check.sentence


@pytest.mark.parametrize("days", [35, 62, 0])
def test_a_short_history_or_few_ids_fail_nothing(days: int) -> None:
    events = silent(c.ITEM_ID, 7).filter(pl.col(c.TIMESTAMP) >= AS_OF - DAY * days)
    assert {check.status for check in judged(events).values()} == {Status.NO_HISTORY}
    few = shop(users=150, items=150)
    assert {check.status for check in judged(few).values()} == {Status.NO_HISTORY}


def test_weeks_inside_blocked_holdouts_are_not_usual() -> None:
    # Half of the items were silent for seven weeks: the damage has become usual.
    damaged = silent(c.ITEM_ID, 56)
    assert judged(damaged)["activity_items"].status is Status.PASSED
    blocks = [Interval(AS_OF - DAY * (7 * w + 7), AS_OF - DAY * 7 * w) for w in range(1, 5)]
    left = judged(damaged, *blocks)["activity_items"]
    assert left.status is Status.PASSED or left.figure != judged(damaged)["activity_items"].figure
    # Two of eight weeks were damaged and blocked, so that tonight's weeks are compared with six.
    two = silent(c.ITEM_ID, 21)
    check = judged(two, Interval(AS_OF - DAY * 21, AS_OF - DAY * 7))["activity_items"]
    assert check.status is Status.FAILED
    assert check.figure is not None
    unmarked = judged(two)["activity_items"].figure
    assert unmarked is not None
    assert check.figure <= unmarked
