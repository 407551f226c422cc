from __future__ import annotations

import math

import pytest

from pipeline.evaluation.gate.decision import RuleResult
from pipeline.report import wording


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ndcg_at_20", "NDCG@20"),
        ("hit_rate_at_10", "hit rate@10"),
        ("slice.cold.recall_at_10", "cold: recall@10"),
        ("slice.segment_a_b.ndcg_at_5", "segment a b: NDCG@5"),
        ("coverage", "coverage"),
    ],
)
def test_metric_label(name: str, label: str) -> None:
    assert wording.metric_label(name) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4, "+40.0 %"),
        (0.0153, "+1.5 %"),
        (-0.0949, "−9.5 %"),
        (-0.0996, "−10.0 %"),
        (0.0001, "0.0 %"),
        (-0.0001, "0.0 %"),
        (0.0, "0.0 %"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
    ],
)
def test_change_carries_its_sign(value: float, text: str) -> None:
    assert wording.change(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (0.0, "0"),
        (1352210.0, "1,352,210"),
        (0.123456, "0.1235"),
        (-0.398, "−0.398"),
        (12345.6, "12,346"),
        (1e-7, "1e−07"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_a_blocked_night_has_a_next_step() -> None:
    rules = [
        RuleResult("switch.lift", "als", -0.4, 0.01, "fail", "als loses"),
        RuleResult("check.volume", "", 0.4, 0.5, "fail", "too few events"),
        RuleResult("complete", "als", None, None, "missing", "the evaluation of als is missing"),
        RuleResult("refresh.r1", "als", 0.0, -0.02, "pass", "as last time"),
    ]
    step, restart = wording.advice("block", rules)
    assert "landing/" in step and "gate." not in step
    assert "`nightjar nightly --as-of T`" in restart and "nightly_retrain" in restart
    assert wording.advice("block", []) == (step, restart)


def test_a_block_by_a_configured_bound_names_its_setting() -> None:
    data = RuleResult("refresh.last", "als", -0.3, -0.1, "fail", "a loss")
    low = RuleResult("bounds.coverage", "als", 0.0104, 0.05, "fail", "coverage of als 1.0 %")
    unknown = RuleResult("bounds.gini", "als", None, 0.9, "missing", "gini was not measured")
    step, restart = wording.advice("block", [low])
    for part in ("`gate.min_coverage`", "5.0 %", "als have 1.0 %", wording.MEASURES["coverage"]):
        assert part in step
    assert "lower it" in step and "`nightjar nightly --as-of T`" in restart
    coverage, gini, again = wording.advice("block", [low, unknown])
    assert (coverage, again) == (step, restart)
    assert "`gate.max_gini`" in gini and "raise it" in gini and "not measured" in gini
    bound, other, again, override = wording.advice("block", [data, low], "RUN", ("als",))
    assert (bound, again) == (step, restart)
    assert "landing/" in other and "gate accept RUN" in override


def test_coverage_has_one_notation() -> None:
    rule = RuleResult("bounds.coverage", "als", 0.0104, 0.05, "fail", "")
    values = wording.rule_value(rule, rule.figure), wording.rule_value(rule, rule.bound)
    assert values == ("1.0 %", "5.0 %")
    gini = RuleResult("bounds.gini", "als", 0.91, 0.9, "fail", "")
    assert wording.rule_value(gini, gini.figure) == "0.91"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("switch.evidence", "switch: evidence of lift"),
        ("refresh.slices.new_items", "refresh: group new items"),
        ("first.lift.decayed_popularity", "first model: lift over decayed_popularity"),
        ("switch.baselines.popularity", "switch: mean against baseline popularity"),
        ("check.volume_week", "data check: volume of the last 7 days"),
        ("cold_check", "cold check"),
        ("complete", "completeness"),
    ],
)
def test_a_rule_has_a_title_without_its_id(name: str, title: str) -> None:
    assert wording.rule_title(name) == title


def test_a_sentence_does_not_repeat_the_id_of_its_row() -> None:
    assert wording.without_id("group new items: +1 %", "refresh.slices.new_items") == "+1 %"
    text = "0 of 9 events break the rule kind unknown"
    assert wording.without_id(text, "kind_unknown") == "0 of 9 events break this rule"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.02, 0.0195, 0.0205), "0.02000 (0.01950 to 0.02050)"),
        ((0.2, 0.1, 0.4), "0.20 (0.10 to 0.40)"),
        ((0.2, 0.2, 0.2), "0.20"),
        ((0.2, None, None), "0.20"),
        ((None, None, None), "–"),
    ],
)
def test_an_interval_has_decimals_that_distinguish_its_ends(estimate, text: str) -> None:
    assert wording.estimate(*estimate, least=2) == text


def test_an_acceptable_recipe_is_named_with_its_command() -> None:
    thin = RuleResult("refresh.last", "als", 120, 200, "underpowered", "120 people")
    command = "`nightjar gate accept RUN --by NAME --reason TEXT`"
    for kind in ("block", "keep"):
        [advice] = [x for x in wording.advice(kind, [thin], "RUN", ("als",)) if "accept" in x]
        assert f"{command} chooses als; it prints the command" in advice
        assert not [x for x in wording.advice(kind, [thin], "RUN") if "accept" in x]
    [advice] = wording.acceptance("RUN", ("new", "als"))
    assert f"{command} chooses new, with `--recipe als` als; it prints" in advice


def test_other_nights_ask_nothing_of_a_person() -> None:
    thin = RuleResult("refresh.last", "als", None, None, "underpowered", "120 people")
    assert wording.advice("refresh", [thin]) == ()
    assert wording.advice("keep", []) == ()
    assert "waits for more days" in wording.advice("keep", [thin])[0]


def test_bytes_have_a_unit() -> None:
    sizes = (0, 999, 12_300, 405_000_000, 1_800_000_000)
    texts = ["0 bytes", "999 bytes", "12.3 kB", "405 MB", "1.8 GB"]
    assert [wording.size(count) for count in sizes] == texts
