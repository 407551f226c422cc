"""The policy: enough data, drift, and the conditions that delay a retrain."""

import tomllib
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from pydantic import ValidationError

from dags.settings import DagSchedule
from pipeline import columns as c
from pipeline.base import plain
from pipeline.monitoring.policy import (
    Cause,
    FirstRun,
    Nights,
    PolicyConfig,
    RetrainAction,
    ScheduleConfig,
    can_skip_drift,
    countable,
    policy,
)
from pipeline.monitoring.verdicts import Drift, Signal
from pipeline.monitoring.verdicts import DriftStatus as Of
from tests.dags.test_settings import UNUSABLE

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
JUDGED = AT - timedelta(hours=33)
CONFIG = PolicyConfig()
STABLE = Drift(AT, Of.STABLE, "no drift in 9 signals", ())


def nights(**changed):
    facts = {"judged": JUDGED, "changed": True, "learnt": 40_000, "started": [JUDGED]}
    return Nights(**{**facts, **changed})


def drifting(name="taste.items", asks=True):
    signal = Signal(name, 9.1, 4.0, Of.DRIFT, "far", asks, AT - timedelta(days=1), (9.1,))
    return Drift(AT, Of.DRIFT, signal.sentence, (signal,))


def ask(events=0, counted=None, past=None, drift=STABLE, config=CONFIG, at=AT):
    counted = events if counted is None else counted
    return policy(events, counted, past or nights(), drift, at=at, config=config)


def test_nothing_new_is_nothing_to_do():
    action = ask(0)
    assert (action.action, action.wanted) == (RetrainAction.SKIP, False)
    assert action.reason == (
        "no retrain: 0 new events (since 2026-05-31T03:00:00Z); 2,000 are needed; "
        "no drift in 9 signals"
    )


def test_a_little_is_folded_in_and_enough_asks_for_a_retrain():
    assert ask(1_999).action == RetrainAction.FOLD_IN
    action = ask(2_000)
    assert action.wanted and action.reason == (
        "retrain requested: 2,000 new events (since 2026-05-31T03:00:00Z); 2,000 are needed"
    )
    assert action.cause == Cause.EVENTS
    assert ask(1_999).cause is None
    large = nights(learnt=80_000_000)
    assert ask(99_999, past=large).action == RetrainAction.FOLD_IN
    assert ask(100_000, past=large).wanted


def before_first(users=0, due=AT + timedelta(days=1), **changed):
    facts = {"judged": None, "changed": False, "learnt": 0, "started": []}
    return nights(**{**facts, "first": FirstRun(users, 200, due), **changed})


def test_the_first_night_is_requested_once_enough_users_can_be_evaluated():
    action = ask(10_000_000, past=before_first(199))
    assert (action.action, action.cause) == (RetrainAction.FOLD_IN, None)
    assert action.reason.startswith("no retrain: the first run: 199 users can be evaluated")
    action = ask(5, past=before_first(200))
    assert action.wanted and action.cause == Cause.FIRST
    assert action.reason.startswith("retrain requested: the first run: 200 users can be ")


def test_the_first_night_is_requested_at_the_latest_some_days_after_the_first_event():
    assert not ask(5, past=before_first(due=AT + timedelta(seconds=1))).wanted
    assert ask(5, past=before_first(due=AT)).cause == Cause.FIRST
    assert not ask(0, past=before_first(due=None)).wanted


def test_a_first_night_that_failed_is_requested_again_after_the_minimum_of_hours():
    for hours, wanted in ((19, False), (20, True)):
        past = before_first(300, started=[AT - timedelta(hours=hours)])
        assert ask(5, past=past).wanted is wanted


def test_no_night_is_requested_that_would_find_no_recent_event():
    for past in (nights(silence="the last 7 days have no event"), before_first(300, silence="x")):
        action = ask(50_000, past=past)
        assert not action.wanted and action.cause is not None
        assert action.reason.endswith(f", but {past.silence}")
        assert can_skip_drift(50_000, past, AT, CONFIG)


@pytest.mark.parametrize("line", UNUSABLE)
def test_a_schedule_that_airflow_cannot_use_is_refused(line):
    with pytest.raises(ValidationError):
        ScheduleConfig.model_validate(tomllib.loads(line))


def test_the_schedule_has_the_defaults_that_airflow_reads():
    defaults, parsed = ScheduleConfig(), DagSchedule()
    assert all(
        getattr(defaults, field.name) == getattr(parsed, field.name) for field in fields(parsed)
    )


def test_drift_asks_for_a_retrain_and_is_the_reason():
    action = ask(5, drift=drifting())
    assert action.wanted
    assert action.reason == "retrain requested: drift in “taste: items”, far"
    assert (action.cause, ask(9_999, drift=drifting()).cause) == (Cause.DRIFT, Cause.DRIFT)
    quality = ask(0, drift=drifting("quality.ndcg"))
    assert quality.wanted and "quality: NDCG" in quality.reason


def test_drift_that_a_person_must_look_at_asks_for_no_retrain():
    action = ask(5, drift=drifting("data.missing.price", asks=False))
    assert action.action == RetrainAction.FOLD_IN
    assert action.reason.endswith("; far")


@pytest.mark.parametrize(
    ("past", "hold"),
    [
        ({"started": [JUDGED, AT - timedelta(hours=19)]}, "20 hours must pass after the run of"),
        ({"started": [AT]}, "20 hours must pass after the run of 2026-06-01T12:00:00Z"),
        ({"changed": False}, "the run of 2026-05-31T03:00:00Z changed nothing and 48 hours"),
    ],
)
def test_a_retrain_waits(past, hold):
    for action in (ask(50_000, past=nights(**past)), ask(9, past=nights(**past), drift=drifting())):
        assert action.action == RetrainAction.FOLD_IN
        assert action.reason.startswith("no retrain yet: ") and hold in action.reason
    assert ask(0, past=nights(**past), drift=drifting()).action == RetrainAction.SKIP


def test_so_many_nights_a_day():
    often = PolicyConfig(min_hours=1, per_day=3)
    started = [AT - timedelta(hours=hours) for hours in (2, 9, 16, 25)]
    action = ask(50_000, past=nights(started=started), config=often)
    assert "3 runs have started within 24 hours, the maximum" in action.reason
    assert ask(50_000, past=nights(started=started[1:]), config=often).wanted
    # A run after the instant is not part of its past.
    assert ask(50_000, past=nights(started=[AT + timedelta(hours=1)]), config=often).wanted


def test_after_the_cool_down_it_may_try_again():
    old = nights(judged=AT - timedelta(hours=48), started=[], changed=False)
    assert ask(50_000, past=old).wanted


def test_drift_is_not_looked_for_where_it_could_change_nothing():
    waiting = nights(started=[AT - timedelta(hours=1)])
    assert can_skip_drift(0, nights(), AT, CONFIG)
    assert can_skip_drift(9, waiting, AT, CONFIG)
    assert not can_skip_drift(9, nights(), AT, CONFIG)
    reason = policy(9, 9, waiting, None, at=AT, config=CONFIG).reason
    assert reason.startswith("no retrain yet: 9 new events") and "20 hours must pass" in reason
    nothing = policy(0, 0, waiting, None, at=AT, config=CONFIG).reason
    assert nothing.startswith("no retrain: 0 new events")


def test_asking_again_gets_the_same_answer():
    assert ask(50_000) == ask(50_000)


def events(*rows):
    """(user, days before now) each."""
    return pl.DataFrame(
        {
            c.USER_ID: [user for user, _ in rows],
            c.TIMESTAMP: [AT - timedelta(days=days) for _, days in rows],
        },
        schema={c.USER_ID: pl.String, c.TIMESTAMP: c.INSTANT},
    )


def since(judged, learnt=10_000_000):
    return Nights(judged, True, learnt, ())


def test_of_each_person_only_so_many_count():
    config = PolicyConfig(user_day_events=3)
    week = since(AT - timedelta(days=7))
    without_flood = [("ann", day) for day in (1, 2)] + [("bob", 1)]
    assert countable(events(*without_flood), week, AT, config) == 3
    flood = [("eve", 1)] * 500
    assert countable(events(*without_flood, *flood), week, AT, config) == 3 + 3
    # However many days a flood is dated on: not more than those since the night allow.
    spread = [("eve", day) for day in range(400) for _ in range(5)]
    assert countable(events(*spread), week, AT, config) == 3 * 7
    assert countable(events(*spread), since(AT - timedelta(hours=1)), AT, config) == 3
    assert countable(events(*spread), since(None), AT, config) == 3 * 400
    assert countable(events(), week, AT, config) == 0


def test_a_flood_from_one_person_buys_no_retrain():
    flood = events(*[("eve", day % 300) for day in range(200_000)])
    crowd = events(*[(f"u{n % 500}", 1) for n in range(2_000)])
    bought = countable(flood, since(JUDGED), AT, CONFIG)
    action = ask(200_000, bought)
    assert action.action == RetrainAction.FOLD_IN
    assert f"200,000 new events, of which {bought:,} count" in action.reason
    assert bought == 200
    assert ask(2_000, countable(crowd, since(JUDGED), AT, CONFIG)).wanted


def test_in_a_small_shop_it_takes_ten_users():
    nights = since(AT - timedelta(days=3), learnt=12_900)  # 645 events are enough
    flood = [("eve", day) for day in (0.1, 1.1, 2.1) for _ in range(1_000)]
    assert countable(events(*flood), nights, AT, PolicyConfig()) == 645 // 10
    crowd = [(f"u{n % 11}", 1) for n in range(3_000)]
    assert countable(events(*crowd), nights, AT, PolicyConfig()) >= 645
    few = [(f"u{n % 9}", 1) for n in range(3_000)]
    assert countable(events(*few), nights, AT, PolicyConfig()) < 645


def test_it_is_plain_json():
    assert plain(ask(7)) == {
        "action": "fold_in",
        "reason": ask(7).reason,
        "events": 7,
        "countable": 7,
        "enough": 2_000,
        "cause": None,
    }
