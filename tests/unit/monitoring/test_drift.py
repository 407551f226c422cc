"""Signals with drift, without drift, and without enough data."""

import json
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter

from benchmarks.drift import by_single_days, simulated
from pipeline import columns as c
from pipeline.base import plain
from pipeline.data.cluster_robust import ratio_ci
from pipeline.monitoring.drift import Quality, QualityMean, windows_at
from pipeline.monitoring.verdicts import Drift, DriftConfig, DriftStatus, Measured, judge
from tests.unit.monitoring.shops import CONFIG, END, ITEMS, drifting, judged, named, shop

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def stable():
    return shop()


def another_item(row, rng):
    """Users want items that had no events."""
    return [row[0], f"i{39 - int(row[1][1:]):02}", *row[2:]]


def test_a_stable_shop_has_no_drift(stable):
    report = judged(stable)
    assert report.status == DriftStatus.STABLE
    assert report.alarms == ()
    assert set(named(report)) == {
        "data.volume", "data.kinds", "data.values", "data.prices",
        "taste.popularity", "taste.items", "taste.categories",
    }  # fmt: skip
    assert "no drift in 7 signals up to 2026-06-01T03:00:00Z" in report.sentence
    for signal in report.signals:
        assert signal.status == DriftStatus.STABLE and abs(signal.figure) < 3
        assert len(signal.days) == CONFIG.scored_days


def test_thirty_stable_nights_raise_one_alarm_at_most():
    long = shop(seed=1, days=62)
    nights = [judged(long, end=END - back * DAY) for back in range(30)]
    assert sum(night.status == DriftStatus.DRIFT for night in nights) <= 1


def test_another_taste_is_detected_in_its_first_night():
    report = judged(shop(change=another_item, since=1))
    assert report.status == DriftStatus.DRIFT
    assert {"taste.popularity", "taste.items"} <= drifting(report)
    first = report.alarms[0]
    assert first.name.startswith("taste.") and first.figure > CONFIG.single_day_z
    assert first.since == END - DAY
    assert first.sentence in report.sentence
    assert ", and 6 for a single day" in first.sentence and "28 days before" in first.sentence


def every(nth, item):
    return f"i{nth * (int(item[1:]) // nth):02}"


def novelty(row, rng):
    return "novelty" if rng.random() < 0.4 else row[1]


def no_value(row, rng):
    return [*row[:3], None if rng.random() < 0.5 else row[3], row[4]]


@pytest.mark.parametrize(
    ("change", "name", "asks"),
    [
        (lambda row, _: [*row[:2], "purchase", *row[3:]], "data.kinds", True),
        (lambda row, _: [*row[:3], 5.0 * row[3], row[4]], "data.values", True),
        (lambda row, _: [row[0], every(9, row[1]), *row[2:]], "data.prices", True),
        (lambda row, rng: [f"{row[0]}{rng.random() < 0.5}", *row[1:]], "data.new_users", True),
        (lambda row, rng: [row[0], novelty(row, rng), *row[2:]], "data.new_items", True),
        (no_value, "data.missing.value", False),
        (lambda row, _: [row[0], every(5, row[1]), *row[2:]], "taste.categories", True),
    ],
)
def test_each_signal_finds_its_own_change(change, name, asks):
    report = judged(shop(change=change, since=1))
    assert name in drifting(report)
    assert named(report)[name].retrain_helps is asks
    assert (name in {alarm.name for alarm in report.alarms}) is asks


def test_one_persons_flood_is_no_volume(stable):
    few = stable.filter(pl.col(c.USER_ID) < "u040")
    latest = stable.filter(pl.col(c.TIMESTAMP) >= END - DAY)
    flood = latest.with_columns(pl.lit("eve").alias(c.USER_ID))
    volume = named(judged(pl.concat([few, flood])))["data.volume"]
    assert volume.status == DriftStatus.STABLE


def test_volume_up_asks_for_a_retrain_and_volume_down_for_a_person(stable):
    latest = pl.col(c.TIMESTAMP) >= END - DAY
    up = stable.filter(latest).with_columns(pl.format("x{}", c.USER_ID).alias(c.USER_ID))
    twice = named(judged(pl.concat([stable, up, up.with_columns(user_id=c.ITEM_ID)])))
    assert twice["data.volume"].status == DriftStatus.DRIFT and twice["data.volume"].retrain_helps
    assert twice["data.volume"].figure > 6
    few = judged(stable.filter(~latest | (pl.col(c.USER_ID) < "u010")))
    down = named(few)["data.volume"]
    assert down.status == DriftStatus.DRIFT and not down.retrain_helps and down.figure < -6
    assert "events, usually" in down.sentence
    assert "data.volume" not in {alarm.name for alarm in few.alarms}


def test_a_flood_from_one_person_is_no_drift(stable):
    noise = stable.filter(pl.col(c.TIMESTAMP) >= END - DAY).head(1)
    flood = pl.concat([noise] * 5000).with_columns(
        pl.lit("u000").alias(c.USER_ID),
        pl.lit("i39").alias(c.ITEM_ID),
        pl.Series(c.TIMESTAMP, [END - DAY + timedelta(seconds=n) for n in range(5000)]),
    )
    report = judged(pl.concat([stable, flood.cast({c.TIMESTAMP: c.INSTANT})]))
    assert report.status == DriftStatus.STABLE
    crowd = flood.head(60).with_columns(pl.Series(c.USER_ID, [f"u{n:03}" for n in range(60)]))
    many = pl.concat([stable, *[crowd.cast({c.TIMESTAMP: c.INSTANT})] * 4])
    assert "taste.items" in drifting(judged(many))


def test_n_of_m_with_the_latest_among_them():
    def mild(row, rng):
        return another_item(row, rng) if rng.random() < 0.4 else row

    config = DriftConfig(single_day_z=100.0)
    only = "taste.items"
    one = named(judged(shop(change=mild, since=1), config=config))[only]
    two = named(judged(shop(change=mild, since=2), config=config))[only]
    assert one.figure >= config.z_threshold and one.status == DriftStatus.STABLE
    assert two.status == DriftStatus.DRIFT and "exceeded on 2 of 3 days" in two.sentence
    assert two.since == END - 2 * DAY
    # It is over: the latest day is not part of it.
    three = shop(change=mild, since=3)
    latest = pl.col(c.TIMESTAMP) >= END - DAY
    over = pl.concat([three.filter(~latest), shop().filter(latest)])
    back = named(judged(over, config=config))[only]
    assert min(back.days[1:]) >= config.z_threshold > back.days[0]
    assert back.status == DriftStatus.STABLE


@pytest.mark.parametrize("seed", range(4))
def test_a_small_change_that_lasts_is_detected_by_the_scored_days_together(seed):
    changed, same = (simulated(seed, moved=moved, days=34) for moved in (True, False))
    category = named(judged(changed.events, items=changed.items))["taste.categories"]
    assert category.status == DriftStatus.DRIFT and not by_single_days(category, CONFIG)
    assert category.together > CONFIG.z_threshold and category.since == END - 3 * DAY
    assert "exceeded by the 3 days together" in category.sentence
    assert judged(same.events, items=same.items).status == DriftStatus.STABLE


def test_days_together_are_no_drift_if_one_is_extreme_or_the_change_is_over(stable):
    def status(*days, together):
        measured = Measured("taste.items", days, 28, together=together)
        return judge(measured, windows_at(END, CONFIG), CONFIG).status

    assert status(1.0, 2.0, 3.0, together=4.0) == DriftStatus.DRIFT
    assert status(1.0, 2.0, 3.0, together=3.9) == DriftStatus.STABLE
    assert status(1.0, 2.0, 3.0, together=math.nan) == DriftStatus.STABLE
    assert status(0.9, 9.0, 9.0, together=9.0) == DriftStatus.STABLE  # over
    assert status(5.9, 0.0, 0.0, together=5.0) == DriftStatus.STABLE  # one day
    # Events are not missing on one of the days.
    late = pl.col(c.TIMESTAMP).is_between(END - 2 * DAY, END - DAY, closed="left")
    closed = named(judged(stable.filter(~late)))
    assert {signal.together for signal in closed.values()} == {None}
    alone = named(judged(stable, config=DriftConfig(scored_days=1, min_days=1)))
    assert {signal.together for signal in alone.values()} == {None}


def test_a_lasting_fall_of_volume_and_of_live_quality_is_detected_together(stable):
    late = pl.col(c.TIMESTAMP) >= END - 3 * DAY
    fewer = judged(stable.filter(~late | (pl.col(c.USER_ID) < "u042")))
    volume = named(fewer)["data.volume"]
    assert volume.status == DriftStatus.DRIFT and not volume.retrain_helps
    assert volume.together < -CONFIG.z_threshold and not by_single_days(volume, CONFIG)
    low = replace(quality(*[mean(0.085, 0.008)] * 3), together=mean(0.085, 0.001))
    signal = named(judged(stable, qualities=[low]))["quality.ndcg"]
    assert signal.status == DriftStatus.DRIFT and max(map(abs, signal.days)) < CONFIG.z_threshold
    better = replace(quality(*[mean(0.115, 0.008)] * 3), together=mean(0.115, 0.001))
    assert named(judged(stable, qualities=[better]))["quality.ndcg"].status == DriftStatus.STABLE


def test_a_reference_that_is_too_short_raises_no_alarm_and_is_reported():
    # Three days are judged; the first day of all began in the middle, and is not one.
    report = judged(shop(days=17, change=another_item, since=1))
    assert report.status == DriftStatus.TOO_SHORT
    assert report.sentence == "data: volume: 13 days of reference, 14 are needed"
    assert {signal.status for signal in report.signals} == {DriftStatus.TOO_SHORT}
    assert report.alarms == () and all(signal.figure is None for signal in report.signals)
    enough = judged(shop(days=18, change=another_item, since=1))
    assert enough.status == DriftStatus.DRIFT


def test_a_window_with_no_event(stable):
    latest = pl.col(c.TIMESTAMP) >= END - DAY
    report = judged(stable.filter(~latest))
    assert report.status == DriftStatus.NO_EVENT
    assert report.sentence == "no events on the day up to 2026-06-01T03:00:00Z"
    assert {signal.status for signal in report.signals} == {DriftStatus.NO_EVENT}
    nothing = judged(stable.clear())
    assert nothing.status == DriftStatus.TOO_SHORT and nothing.alarms == ()


def test_days_on_which_a_shop_is_closed_are_no_reference():
    """Every Saturday without an event: neither it, nor the day after, is a drift."""
    open_days = shop().filter(pl.col(c.TIMESTAMP).dt.offset_by("-3h").dt.weekday() != 6)
    for back in range(7):
        report = judged(open_days, end=END - back * DAY)
        assert report.status in (DriftStatus.STABLE, DriftStatus.NO_EVENT), report.sentence


def test_a_reported_drift_starts_a_new_reference():
    changed = shop(change=another_item, since=3)
    report = judged(changed)
    since = {signal.name: signal.since for signal in report.signals if signal.since}
    assert since and set(since.values()) == {END - 3 * DAY}
    again = judged(changed, restarts=since)
    assert named(again)["taste.items"].status == DriftStatus.TOO_SHORT
    assert named(again)["data.kinds"].status == DriftStatus.STABLE
    assert again.status == DriftStatus.STABLE
    # Weeks later the new taste is the usual one, and the old one would be news.
    later = shop(change=another_item, since=20)
    restarted = judged(later, restarts=dict.fromkeys(since, END - 20 * DAY))
    assert named(restarted)["taste.items"].status == DriftStatus.STABLE


def test_nothing_after_the_end_is_looked_at(stable):
    end = END - 5 * DAY
    before = judged(stable.filter(pl.col(c.TIMESTAMP) < end), end=end)
    assert plain(judged(stable, end=end)) == plain(before)


def test_missing_columns_give_no_signal():
    bare = shop().with_columns(pl.lit("view").alias(c.KIND), pl.lit(1.0).alias(c.VALUE))
    empty = ITEMS.clear()
    assert set(named(judged(bare, items=empty))) == {
        "data.volume",
        "taste.popularity",
        "taste.items",
    }


def test_a_shop_of_two_items_has_fewer_of_them_than_tenths():
    first = pl.col(c.ITEM_ID) == "i00"
    few = shop().with_columns(pl.when(first).then(c.ITEM_ID).otherwise(pl.lit("i01")))
    assert few[c.ITEM_ID].n_unique() == 2
    signals = named(judged(few))
    assert signals["taste.popularity"].status is DriftStatus.STABLE
    assert signals["taste.items"].status is DriftStatus.STABLE


def mean(value, se=0.002):
    return QualityMean(value, se, 400, 400)


def quality(*days, nights=None):
    known = [0.10, 0.102, 0.098, 0.101, 0.099, 0.1] if nights is None else nights
    return Quality("ndcg", days, tuple(mean(x) for x in known))


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (quality(mean(0.1), mean(0.1), mean(0.1)), DriftStatus.STABLE),
        (quality(mean(0.08), mean(0.085), mean(0.1)), DriftStatus.DRIFT),
        (quality(mean(0.07), mean(0.1), mean(0.1)), DriftStatus.DRIFT),
        (
            quality(mean(0.2), mean(0.2), mean(0.2)),
            DriftStatus.STABLE,
        ),  # a gain
        (quality(mean(0.08, se=0.03), mean(0.08, se=0.03), mean(0.1)), DriftStatus.STABLE),
        (quality(None, mean(0.08), mean(0.08)), DriftStatus.NO_EVENT),
        (quality(mean(0.05), mean(0.05), mean(0.05), nights=[0.1] * 4), DriftStatus.TOO_SHORT),
        (quality(mean(0.0), mean(0.0), mean(0.0), nights=[0.0] * 9), DriftStatus.STABLE),
    ],
)
def test_live_quality_alarms_when_it_is_clearly_worse(stable, seen, verdict):
    signal = named(judged(stable, qualities=[seen]))["quality.ndcg"]
    assert signal.status == verdict
    assert signal.retrain_helps
    if verdict == DriftStatus.DRIFT:
        assert "nightly runs before (0.0" in signal.sentence and "usually 0.1000" in signal.sentence


def live_quality(rng, n_users, hit=0.15):
    """Quality of lists for some users, few of them with a hit."""
    ndcg = np.where(rng.random(n_users) < hit, rng.choice([1, 0.63, 0.5, 0.43, 0.3], n_users), 0.0)
    ratio = ratio_ci(ndcg, np.ones(n_users))
    return QualityMean(ratio.mean, ratio.se, n_users, n_users)


def quality_alarms(steady, n_users, hit=0.15, looks=200):
    """Count the drifts of weekly nights' looks at days on which `hit` of the users have one."""
    rng, nothing = np.random.default_rng(1), steady.clear()
    alarms = [
        Quality(
            "ndcg",
            tuple(live_quality(rng, n_users, hit) for _ in range(CONFIG.scored_days)),
            tuple(live_quality(rng, 7 * n_users) for _ in range(10)),
        )
        for _ in range(looks)
    ]
    signals = named(
        judged(nothing, qualities=[replace(x, name=f"{n}") for n, x in enumerate(alarms)])
    )
    return sum(signals[f"quality.{n}"].status == DriftStatus.DRIFT for n in range(looks))


@pytest.mark.parametrize("n_users", [10, 15])
def test_a_few_users_without_a_hit_are_no_worse_lists(stable, n_users):
    assert quality_alarms(stable, n_users) == 0


def test_lists_without_hits_are_detected_with_fifty_users_a_day(stable):
    assert quality_alarms(stable, 50, hit=0.0) > 150


def test_nights_that_know_no_error_leave_a_day_its_own(stable):
    nights = tuple(QualityMean(0.1, None, 400, 400) for _ in range(6))
    alike = Quality("ndcg", (mean(0.08), mean(0.08), mean(0.1)), nights)
    assert named(judged(stable, qualities=[alike]))["quality.ndcg"].status == DriftStatus.DRIFT


def test_neither_pseudonyms_nor_the_order_of_rows_change_a_digit(stable):
    names = {f"u{n:03}": f"q{(n * 37) % 60:03}" for n in range(60)}
    renamed = stable.with_columns(pl.col(c.USER_ID).replace(names))
    shuffled = renamed.sample(fraction=1.0, shuffle=True, seed=1)
    assert plain(judged(shuffled)) == plain(judged(stable))


def test_it_is_plain_json_and_comes_back():
    report = judged(shop(change=another_item, since=1), qualities=[quality(None, None, None)])
    text = json.dumps(plain(report), allow_nan=False)
    assert TypeAdapter(Drift).validate_json(text) == report


@pytest.mark.parametrize(
    "fields", [{"min_days": 4}, {"least_days": 29}, {"single_day_z": 3.0}, {"scored_days": 0}]
)
def test_settings_that_contradict_each_other_are_refused(fields):
    with pytest.raises(ValueError, match=r"must not|greater than"):
        DriftConfig(**fields)
