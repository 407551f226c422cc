from __future__ import annotations

import math

import pytest

from pipeline.report import wording
from pipeline.report.night import LiftRow, RecipeRow, RuleRow


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
        (0.4, "+40 %"),
        (0.0153, "+1.5 %"),
        (-0.0949, "−9.5 %"),
        (-0.0996, "−10 %"),
        (0.0001, "0 %"),
        (-0.0001, "0 %"),
        (0.0, "0 %"),
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


def test_recipes_title_names_the_best_and_its_lead() -> None:
    rows = [RecipeRow("popularity", "baseline", 0.08), RecipeRow("als", "candidate", 0.12)]
    assert (
        wording.recipes_title(rows, "ndcg_at_20") == "als has the best NDCG@20, +50 % on popularity"
    )
    assert wording.recipes_title(rows[:1], "ndcg_at_20") == "popularity reaches 0.080 NDCG@20"
    zero = [RecipeRow("popularity", "baseline", 0.0), rows[1]]
    assert wording.recipes_title(zero, "ndcg_at_20") == "als has the best NDCG@20"
    level = [RecipeRow("a", "candidate", 0.12), RecipeRow("b", "candidate", 0.12001)]
    assert wording.recipes_title(level, "ndcg_at_20") == "b and a are level at 0.120 NDCG@20"
    failed = [RecipeRow("als", "candidate", failure="no GPU")]
    assert wording.recipes_title(failed, "ndcg_at_20") == "No recipe could be judged"


def test_lifts_title_takes_the_gates_word_not_the_intervals() -> None:
    clear = LiftRow("als", 0.4, 0.3, 0.5)
    thin = LiftRow("als", 0.4, 0.3, 0.5, underpowered="too few users")
    assert wording.lifts_title([clear, thin], "pop") == "No recipe is proved better than pop"
    proved = [LiftRow("a", 0.1, 0.05, 0.15, True), LiftRow("b", 0.2, 0.1, 0.3, True), clear]
    assert wording.lifts_title(proved, "pop") == "b beats pop by 20 %"
    told = "Nobody could be held against pop: too little evidence"
    assert wording.lifts_title([thin], "pop") == told


def test_a_blocked_night_names_its_causes_and_no_candidate() -> None:
    rules = [
        RuleRow("switch.lift", "als", -0.4, 0.01, wording.FAILED, "als loses"),
        RuleRow("check.volume", "", 0.4, 0.5, wording.FAILED, "too few events"),
        RuleRow("complete", "als", None, None, "missing", "the evaluation of als is missing"),
        RuleRow("refresh.r1", "als", 0.0, -0.02, wording.PASSED, "as last time"),
    ]
    first, *others = wording.advice("block", rules)
    assert first.startswith("Look first at: check volume, complete.")
    assert len(others) == 2
    assert "the sentence above" in wording.advice("block", [])[0]


def test_what_a_person_may_accept_is_named_as_a_command() -> None:
    thin = RuleRow("refresh.last", "als", 120, 200, wording.UNDERPOWERED, "120 people")
    command = "`nightjar gate accept RUN --by NAME --because TEXT`"
    for kind in ("block", "keep"):
        [told] = [x for x in wording.advice(kind, [thin], "RUN", ("als",)) if "accept" in x]
        assert told == (
            f"If you know better: {command} puts the als of tonight live; then start the night "
            "again."
        )
        assert not [x for x in wording.advice(kind, [thin], "RUN") if "accept" in x]
    [told] = wording.acceptance("RUN", ("new", "als"))
    assert f"{command} puts the new of tonight live, with `--recipe als` als; then start" in told


def test_other_nights_ask_nothing_of_a_person() -> None:
    thin = RuleRow("refresh.r1", "als", None, None, wording.UNDERPOWERED, "120 people")
    assert wording.advice("refresh", [thin]) == ()
    assert wording.advice("keep", []) == ()
    assert "waits for more days" in wording.advice("keep", [thin])[0]
    assert set(wording.HEADLINE) == {"first", "switch", "refresh", "keep", "block"}
