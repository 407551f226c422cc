"""Returning users and repeated items: damage that hardly changes the number of active ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.validate.activity import ActivityConfig, judge_activity
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.data.validate.returns import ReturnsConfig, judge_returns

AS_OF = datetime(2024, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = ["returning_users", "known_users", "repeated_items"]


def shop(users: int = 900, days: int = 160, a_day: int = 900) -> pl.DataFrame:
    """A shop whose users come with a rate of their own, and often buy their favourites again."""
    rng = np.random.default_rng(4)
    n, items = days * a_day, 600
    rate = rng.gamma(2.0, 1.0, users)
    weight = 1 / (10 + np.arange(items))
    weight /= weight.sum()
    favourites = rng.choice(items, (users, 6), p=weight)
    user = rng.choice(users, n, p=rate / rate.sum())
    own = favourites[user, rng.integers(0, 6, n)]
    item = np.where(rng.random(n) < 0.5, own, rng.choice(items, n, p=weight))
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{x}" for x in user],
            c.ITEM_ID: [f"i{x}" for x in item],
            c.TIMESTAMP: [AS_OF - DAY * float(x) for x in rng.uniform(0.001, days, n)],
            c.SOURCE: ["shop"] * n,
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )


SHOP = shop()


def since(days: float) -> pl.Expr:
    return pl.col(c.TIMESTAMP) >= AS_OF - DAY * days


def number(column: str) -> pl.Expr:
    return pl.col(column).str.slice(1).cast(pl.Int64)


def half_renamed(events: pl.DataFrame = SHOP) -> pl.DataFrame:
    some = since(10) & (number(c.USER_ID) % 2 == 0)
    new = pl.when(some).then(pl.lit("x") + pl.col(c.USER_ID)).otherwise(pl.col(c.USER_ID))
    return events.with_columns(new.alias(c.USER_ID))


def third_silent() -> pl.DataFrame:
    return SHOP.filter(~(since(28) & (number(c.USER_ID) % 10 < 3)))


def best_sellers_exchanged(days: float) -> pl.DataFrame:
    # i0 to i99 are the best sellers: each gets the id of one 37 places further.
    other = pl.format("i{}", (number(c.ITEM_ID) + 37) % 100)
    some = since(days) & (number(c.ITEM_ID) < 100)
    return SHOP.with_columns(pl.when(some).then(other).otherwise(c.ITEM_ID).alias(c.ITEM_ID))


def judged(events: pl.DataFrame, *blocked: Interval) -> dict[str, DataCheck]:
    checks = judge_returns(events, AS_OF, blocked, ReturnsConfig())
    return {check.name: check for check in checks}


def test_a_healthy_week_passes_with_ratios_near_one() -> None:
    checks = judged(SHOP)
    assert list(checks) == NAMES
    for check in checks.values():
        assert check.status is Status.PASSED
        assert check.figure == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("events", "name"),
    [
        (half_renamed(), "known_users"),
        (third_silent(), "returning_users"),
        (best_sellers_exchanged(21), "repeated_items"),
    ],
)
def test_damage_that_the_activity_does_not_show_fails_one_check(
    events: pl.DataFrame, name: str
) -> None:
    failed = [check.name for check in judged(events).values() if check.status is Status.FAILED]
    assert failed == [name]
    activity = judge_activity(events, AS_OF, (), ActivityConfig())
    assert {check.status for check in activity} == {Status.PASSED}


def test_each_source_is_compared_with_itself() -> None:
    other = half_renamed().with_columns(
        pl.lit("app").alias(c.SOURCE), (pl.lit("b") + pl.col(c.USER_ID)).alias(c.USER_ID)
    )
    check = judged(pl.concat([SHOP, other]))["known_users"]
    assert check.status is Status.FAILED
    assert "source app" in check.sentence


@pytest.mark.parametrize(("new", "status"), [(0.4, Status.PASSED), (0.7, Status.FAILED)])
def test_a_campaign_that_brings_more_than_half_as_many_new_users_fails(
    new: float, status: Status
) -> None:
    usual = SHOP.filter(since(7))[c.USER_ID].n_unique()
    campaign = (
        SHOP.filter(since(7))
        .head(int(new * usual))
        .with_columns(pl.format("new{}", pl.int_range(pl.len())).alias(c.USER_ID))
    )
    checks = judged(pl.concat([SHOP, campaign]))
    assert checks["known_users"].status is status
    assert checks["known_users"].figure == pytest.approx(1 / (1 + new), abs=0.03)
    assert checks["returning_users"].passed
    assert checks["repeated_items"].passed


@pytest.mark.parametrize("weeks", [5, 7])
def test_a_source_without_events_in_four_weeks_has_ended(weeks: int) -> None:
    ended = SHOP.filter(~since(7 * weeks)).with_columns(pl.lit("old").alias(c.SOURCE))
    checks = judged(pl.concat([SHOP, ended]))
    assert {check.status for check in checks.values()} == {Status.PASSED}
    assert all("source shop" in check.sentence for check in checks.values())


@pytest.mark.parametrize("days", [0, 60, 112])
def test_a_short_history_fails_nothing(days: int) -> None:
    checks = judged(half_renamed().filter(since(days)))
    assert {check.status for check in checks.values()} == {Status.NO_HISTORY}


def test_few_users_fail_nothing() -> None:
    few = half_renamed(shop(users=150, a_day=150))
    assert judged(few)["known_users"].status is Status.NO_HISTORY


def test_weeks_inside_blocked_holdouts_are_not_usual() -> None:
    # After seven damaged weeks the damage is in the median, unless the weeks were blocked.
    damaged = best_sellers_exchanged(49)
    blocks = [Interval(AS_OF - DAY * 49, AS_OF - DAY * 7)]
    assert judged(damaged, *blocks)["repeated_items"].status is Status.NO_HISTORY
    assert judged(damaged)["repeated_items"].status is Status.PASSED
