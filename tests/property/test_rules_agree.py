from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns as c
from pipeline.data.validate.rules import (
    EARLIEST,
    JUDGED,
    MAX_ID_BYTES,
    CheckKind,
    declare,
    failures,
    row_reasons,
)
from pipeline.data.validate.suite import run_suite

AT = datetime(2017, 12, 1, 9, tzinfo=UTC)
KINDS = ("view", "purchase")
MOMENT = timedelta(microseconds=1)
RULES = declare(at=AT, kinds=KINDS)
SCHEMA = {name: c.EVENTS[name] for name in JUDGED}

GOOD: dict[str, Any] = {
    c.EVENT_ID: "e",
    c.USER_ID: "u",
    c.ITEM_ID: "i",
    c.KIND: "view",
    c.VALUE: 1.0,
    c.TIMESTAMP: AT - timedelta(days=3),
    c.POSITION: None,
}

# rule -> values of its column that break it, and values just inside the bound
PLANTED: dict[str, tuple[list[Any], list[Any]]] = {
    **{f"{i}_missing": ([None], ["x"]) for i in ("event_id", "user_id", "item_id")},
    "kind_missing": ([None], ["view"]),
    **{f"{i}_empty": (["", " \t\n"], ["0"]) for i in ("event_id", "user_id", "item_id")},
    **{
        f"{i}_too_long": (["x" * 257, "ä" * 129], ["x" * MAX_ID_BYTES, "ä" * 128])
        for i in ("event_id", "user_id", "item_id")
    },
    **{
        f"{i}_unprintable": (
            ["a\0", "\x1b[31m", "\x7f", "a\x85", "a\tb", "a\u200b", "\ufeffa", "a\xadb", "\u202ea"]
            + [
                f"a{hidden}b"
                for hidden in "\ufe0f\u034f\u115f\u1160\u3164\uffa0\u17b4\u180b\u2028\u2029\u2800"
            ],
            ["a b", "ä", "e\u0301", "한국", "ไทย", "😀"],
        )
        for i in ("event_id", "user_id", "item_id")
    },
    "kind_unknown": (["View", "", "purchase "], ["view", "purchase"]),
    "value_missing": ([None, float("nan")], [0.0]),
    "value_too_large": ([float("inf"), float("-inf"), 1.1e12], [1e12]),
    "value_negative": ([-1e-300, -3.0, float("-inf")], [0.0, -0.0]),
    "timestamp_missing": ([None], [AT]),
    "timestamp_too_early": ([EARLIEST - MOMENT, datetime(1970, 1, 1, tzinfo=UTC)], [EARLIEST]),
    "timestamp_in_future": ([AT + MOMENT, datetime(2117, 1, 1, tzinfo=UTC)], [AT]),
    "position_below_one": ([0, -7], [1, None, 2**31 - 1]),
}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def both_counts(events: pl.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    predicates = failures(events, RULES).sum().row(0, named=True)
    expectations, _ = run_suite(events, RULES)
    return predicates, expectations


def test_every_row_rule_is_planted_and_every_rule_has_a_predicate_and_an_expectation() -> None:
    assert {rule.name for rule in RULES if rule.level == "row"} == set(PLANTED)
    predicates, expectations = both_counts(frame([GOOD]))
    assert list(predicates) == list(expectations) == [rule.name for rule in RULES]
    assert len(set(expectations)) == len(RULES) == 22
    assert set(predicates.values()) == set(expectations.values()) == {0}
    assert {rule.check for rule in RULES} == set(CheckKind)


def test_both_sides_find_every_planted_fault_and_nothing_else() -> None:
    columns = {rule.name: rule.column for rule in RULES}
    rows, expected = [], dict.fromkeys((rule.name for rule in RULES), 0)
    for name, (bad, good) in PLANTED.items():
        for value in bad + good:
            rows.append({**GOOD, c.EVENT_ID: f"e{len(rows)}", columns[name]: value})
        expected[name] += len(bad)
    expected["value_negative"] += 1  # -inf breaks two rules, and is planted under both
    expected["value_too_large"] += 1
    for name in ("event_id", "user_id", "item_id"):
        expected[f"{name}_unprintable"] += 1  # white space of the empty ones
    # good values of event_id come twice, on one day
    expected["event_repeated"] += sum(
        count
        for count in pl.Series([r[c.EVENT_ID] for r in rows]).value_counts()["count"]
        if count > 1
    )
    events = frame(rows)
    predicates, expectations = both_counts(events)
    assert predicates == expected
    assert expectations == expected


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_fault_is_named_and_a_value_inside_the_bound_is_not(name: str) -> None:
    column = next(rule.column for rule in RULES if rule.name == name)
    bad, good = PLANTED[name]
    assert bad and good
    for value in bad:
        reasons = row_reasons(frame([{**GOOD, column: value}]), at=AT, kinds=KINDS)
        assert name in reasons[0].to_list()
    for value in good:
        reasons = row_reasons(frame([{**GOOD, column: value}]), at=AT, kinds=KINDS)
        assert reasons[0].to_list() == []


def test_the_same_id_is_a_repeat_on_one_day_only() -> None:
    late = datetime(2017, 11, 20, 23, 59, 59, 999_999, tzinfo=UTC)
    rows = [
        {**GOOD, c.TIMESTAMP: late},
        {**GOOD, c.TIMESTAMP: late + MOMENT},  # the next day
        {**GOOD, c.EVENT_ID: "f", c.TIMESTAMP: late},
        {**GOOD, c.EVENT_ID: "f", c.TIMESTAMP: late - timedelta(hours=23)},
        {**GOOD, c.EVENT_ID: "f", c.TIMESTAMP: None},
        {**GOOD, c.EVENT_ID: None, c.TIMESTAMP: late},
        {**GOOD, c.EVENT_ID: None, c.TIMESTAMP: late},
    ]
    predicates, expectations = both_counts(frame(rows))
    assert predicates["event_repeated"] == expectations["event_repeated"] == 2


ids = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.sampled_from(["\0", "\x9f"]),
    st.sampled_from(["ä" * 129, "e" * 256, "a", "b"]),
)
rows = st.fixed_dictionaries(
    {
        c.EVENT_ID: ids,
        c.USER_ID: ids,
        c.ITEM_ID: ids,
        c.KIND: st.one_of(st.none(), st.sampled_from([*KINDS, "VIEW", ""])),
        c.VALUE: st.one_of(st.none(), st.floats()),
        c.TIMESTAMP: st.one_of(
            st.none(),
            st.sampled_from([EARLIEST, EARLIEST - MOMENT, AT, AT + MOMENT]),
            st.datetimes(
                min_value=datetime(1900, 1, 1),  # noqa: DTZ001
                max_value=datetime(2200, 1, 1),  # noqa: DTZ001
                timezones=st.just(UTC),
            ),
        ),
        c.POSITION: st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    }
)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(rows, min_size=20, max_size=60))
def test_predicates_and_expectations_count_alike_on_any_events(
    drawn: list[dict[str, Any]],
) -> None:
    events = frame(drawn)
    predicates, expectations = both_counts(events)
    assert predicates == expectations
    # the reasons of the rows are the counts of the row rules
    named = row_reasons(events, at=AT, kinds=KINDS).explode().value_counts()
    counted = {name: count for name, count in named.iter_rows() if name is not None}
    assert counted == {
        rule.name: predicates[rule.name]
        for rule in RULES
        if rule.level == "row" and predicates[rule.name]
    }
