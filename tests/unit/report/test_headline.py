"""Tests of the headline: a status for every outcome, and lifts with their intervals."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.report.headline import (
    Headline,
    Lift,
    NightFacts,
    headline,
    night_headline,
)
from tests.records import AS_OF, decision

FACTS = NightFacts(
    run_id="20240101T000000Z-1a2b3c4d",
    as_of=AS_OF,
    data_since=AS_OF - timedelta(days=14),
    publishes=True,
    over_baseline=Lift("popularity", 0.226, 0.11, 0.345, 0.02),
    over_before=Lift("the version before", 0.028, -0.015, 0.071, 0.02),
    published=True,
)
ALONE = {"over_baseline": None, "over_before": None}
LAST = RuleResult("refresh.last", "als", -0.3, -0.1, "fail", "−30.0 % against the last scorer")
VOLUME = RuleResult("check.volume", "", 10.0, 100.0, "fail", "10 events, 100 expected")
FEW = RuleResult("first.users", "popularity", 20, 200, "underpowered", "20 users, 200 needed")
ABSENT = RuleResult("absent", "als", None, None, "reported", "als: its training failed")
CHECK = DataCheck("event_id_missing", "fail", 1.0, 0.0, "3 rows lack an event id")


def facts(kind, *, more=None, **fields):
    made = decision(kind=kind, reasons=("20 users can be evaluated",), **fields)
    return replace(FACTS, decision=made, **(more or {}))


def test_a_refresh_reads_as_a_person_would_write_it():
    assert headline(facts("refresh")) == Headline(
        "good",
        "New lists are live: the same recipe on two more weeks of data; 22.6 % better than "
        "popularity (11.0 to 34.5), about as good as the version before (+2.8 %, −1.5 to +7.1).",
        "Nothing to do.",
        "Live: als, about as good as before (+2.8 %, −1.5 to +7.1); decision refresh; "
        "22.6 % better than popularity (11.0 to 34.5)",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts("first"), "good"),
        (facts("switch"), "good"),
        (facts("refresh"), "good"),
        (facts("refresh", more={"published": False, "publishes": False}), "good"),
        (facts("refresh", more={"published": None}), "good"),
        (facts("first", rules=(FEW,)), "look"),
        (facts("refresh", rules=(ABSENT,)), "look"),
        (facts("refresh", inconclusive="als"), "look"),
        (facts("refresh", more={"over_baseline": Lift("p", -0.2, -0.3, -0.1, 0.02)}), "look"),
        (facts("refresh", more={"over_before": Lift("p", -0.1, -0.18, -0.02, 0.02)}), "look"),
        (facts("keep", waiting=True), "look"),
        (facts("block", rules=(LAST,)), "act"),
        (facts("block", rules=(VOLUME,)), "act"),
        (facts("refresh", more={"cold_fault": "the lists differ", "published": None}), "act"),
        (replace(FACTS, failed_checks=(CHECK,)), "act"),
        (FACTS, "look"),
    ],
)
def test_every_outcome_has_a_status(given, expected):
    result = headline(given)
    assert result.status == expected
    assert (result.todo == "Nothing to do.") == (expected == "good")


@pytest.mark.parametrize(
    ("published", "publishes", "opening"),
    [
        (True, True, "New lists are live"),
        (None, True, "New lists were accepted for publication"),
        (None, False, "New lists passed every check, and were not published"),
    ],
)
def test_a_headline_states_whether_lists_are_live(published, publishes, opening):
    given = facts("refresh", more={"published": published, "publishes": publishes})
    assert headline(given).news.startswith(opening)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        (facts("keep"), "20 users can be evaluated"),
        (facts("block", rules=(VOLUME,)), VOLUME.sentence),
        (facts("refresh", more={"cold_fault": "the lists differ"}), "the lists differ"),
        (replace(FACTS, failed_checks=(CHECK,)), CHECK.sentence),
        (
            facts("first", more=ALONE),
            "Live: als; decision first",
        ),
        (
            facts("first", more={**ALONE, "published": None, "publishes": False}),
            "Not published: als; decision first",
        ),
    ],
)
def test_a_headline_has_its_fact_alone(given, fact):
    assert headline(given).fact == fact


def test_failed_data_name_the_worst_check_and_count_the_others():
    rare = DataCheck("activity_items", "failed", 0.58, 0.7, "ratio 0.58, 0.70 at least")
    empty = DataCheck("volume", "failed", 0.0002, 2.5, "0 events in the last day")
    news = headline(replace(FACTS, failed_checks=(rare, empty))).news
    assert empty.sentence in news and rare.sentence not in news and "1 more check failed" in news
    absent = DataCheck("schema", "failed", None, None, "events lack user_id")
    assert absent.sentence in headline(replace(FACTS, failed_checks=(rare, absent, rare))).news


def test_a_block_by_a_bound_does_not_ask_for_data():
    low = RuleResult("bounds.coverage", "als", 0.01, 0.05, "fail", "coverage of als 1.0 %")
    todo = headline(facts("block", rules=(low,))).todo
    assert "`gate.min_coverage`" in todo and "landing/" not in todo


def test_a_block_offers_its_override_unless_the_data_failed():
    offered = headline(facts("block", rules=(LAST,), recipe_hash="hash"))
    assert f"nightjar gate accept {FACTS.run_id}" in offered.todo
    assert "the new model is 30.0 % worse than the last one on the same users" in offered.news
    assert "gate accept" not in headline(facts("block", rules=(VOLUME,), recipe_hash="hash")).todo


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            RuleResult("refresh.level", "als", -0.4, -0.2, "fail", "s"),
            "40.0 % below its usual level",
        ),
        (RuleResult("refresh.floor", "als", -0.052, 0.0, "fail", "s"), "5.2 % worse than the best"),
        (RuleResult("refresh.slices.new_items", "als", -0.1, 0.0, "fail", "s"), "group new items"),
        (RuleResult("refresh.gain", "als", 0.9, 0.5, "fail", "gain of 90 %"), "gain of 90 %"),
        (RuleResult("refresh.last", "als", None, None, "missing", "no scorer"), "no scorer"),
        (VOLUME, VOLUME.sentence),
    ],
)
def test_a_block_names_its_cause(rule, text):
    assert text in headline(facts("block", rules=(rule,))).news


def test_a_night_without_a_run_has_nothing_to_do():
    result = night_headline(None, "41 new events; 100,000 are needed")
    assert result.status == "good"
    assert "41 new events; 100,000 are needed" in result.text


def test_a_switch_names_the_new_recipe():
    over = Lift("the recipe before on all 3 blocks of days", 0.04, 0.02, 0.06, 0.02)
    result = headline(facts("switch", more={"over_blocks": over}))
    assert "als replaces" in result.news
    assert "4.0 % better than the recipe before on all 3 blocks of days (2.0 to 6.0)" in result.news
    assert "about as good as the version before (+2.8 %, −1.5 to +7.1)" in result.news


@pytest.mark.parametrize(
    ("lift", "text"),
    [
        (Lift("x", 0.0712, 0.0164, 0.127, 0.02), "7.1 % better than x (1.6 to 12.7)"),
        (Lift("x", -0.12, -0.2, -0.05, 0.02), "12.0 % worse than x (5.0 to 20.0)"),
        (Lift("x", 0.0, 0.0, 0.0, 0.0), "about as good as x (0.0 %, 0.0 to 0.0)"),
        (
            Lift("x", 0.02, -0.4, 0.44, 0.02),
            "unclear whether better than x (+2.0 %, −40.0 to +44.0)",
        ),
    ],
)
def test_a_lift_names_its_interval(lift, text):
    assert lift.text == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(days=1), "one more day of data"),
        (timedelta(days=7), "one more week of data"),
        (timedelta(days=13), "13 more days of data"),
        (timedelta(hours=3), "newer data"),
    ],
)
def test_a_refresh_names_the_days_since_the_live_version(span, text):
    given = replace(facts("refresh"), data_since=AS_OF - span)
    assert f"the same recipe on {text}" in headline(given).news
