from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import columns as c
from pipeline.base import Interval, plain
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.errors import GateError
from pipeline.evaluation.evaluate import NDCG, SLICE
from pipeline.evaluation.gate import (
    Absent,
    Anchor,
    BlockRatio,
    Decision,
    EvaluatedRecipe,
    Evidence,
    GateConfig,
    GateHistory,
    Reference,
    RuleResult,
    accept,
    build_gate_history,
    decide,
    offers,
)
from pipeline.evaluation.gate.rules import verdict
from pipeline.evaluation.slices import SLICES
from pipeline.number_text import change

CONFIG = GateConfig()
AS_OF = datetime(2024, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)
BLOCK = Interval(AS_OF - timedelta(days=7), AS_OF)


def data_check(name, passed, sentence, figure=None, bound=None):
    return DataCheck(name, Status.PASSED if passed else Status.FAILED, figure, bound, sentence)


CHECKS = (data_check("volume", True, "1,000 events"), data_check("schema", True, "as before"))


def block(weeks_ago: int) -> Interval:
    shift = timedelta(days=7 * weeks_ago)
    return Interval(BLOCK.start - shift, BLOCK.end - shift)


def level(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Values of an average recipe for n users."""
    return np.random.default_rng(seed).beta(1.2, 4.0, n)


def users(values: np.ndarray[Any, Any], harm: Mapping[str, float] | None = None) -> pl.DataFrame:
    """Values with every slice: user u is in slice s if u mod 7 is its place, and some are cold."""
    n = len(values)
    at = np.arange(n)
    inside = {name: at % len(SLICES) == place for place, name in enumerate(SLICES)}
    values = values.copy()
    for name, factor in (harm or {}).items():
        values[inside[name]] *= factor
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{i:06}" for i in at],
            NDCG: values,
            **{SLICE + name: np.where(mask, values, np.nan) for name, mask in inside.items()},
        }
    ).with_columns(pl.exclude(c.USER_ID).fill_nan(None))


def judged(
    name: str,
    lift: float = 0.0,
    *,
    n: int = 1200,
    baseline: int | None = None,
    noise: float = 0.02,
    seed: int = 1,
    coverage: float | None = 0.5,
    harm: Mapping[str, float] | None = None,
) -> EvaluatedRecipe:
    random = np.random.default_rng(seed)
    base = level(n)
    values = base * (1 + lift) + random.normal(0, noise, n)
    return EvaluatedRecipe(name, f"hash-{name}", baseline, users(values, harm), coverage, k=20)


def ladder(n: int = 1200) -> tuple[EvaluatedRecipe, ...]:
    return (
        judged("popularity", -0.5, n=n, baseline=0, coverage=0.02, seed=11),
        judged("decayed_popularity", -0.3, n=n, baseline=1, coverage=0.02, seed=12),
    )


def reference(label: str, lift: float, n: int = 1200, seed: int = 5, **kwargs: Any) -> Reference:
    """Tonight's fit is `lift` better than the stored scorer."""
    tonight = judged("t", lift, n=n, seed=seed, **kwargs).users
    return Reference(label, tonight, judged("s", n=n, seed=seed + 1).users)


def evidence(*recipes: EvaluatedRecipe, **changes: Any) -> Evidence:
    n = recipes[0].users.height
    everything = (*ladder(n), *recipes)
    base = Evidence(
        k=20,
        holdout=BLOCK,
        judged=everything,
        expected=tuple(r.name for r in everything),
        champion="als",
        checks=CHECKS,
        last=reference("the night before", 0.01, n),
        month=reference("a month ago", 0.02, n),
        past=GateHistory(anchors=(Anchor("hash-als", 1.4, 3),)),
    )
    return replace(base, **changes)


def rule(decision: Decision, name: str, subject: str | None = None) -> RuleResult:
    matching = [r for r in decision.rules if r.name == name and subject in (None, r.subject)]
    assert len(matching) == 1, (name, subject, [r.name for r in decision.rules])
    return matching[0]


# A first model -----------------------------------------------------------------------------------


def test_without_a_champion_the_best_that_learns_is_first() -> None:
    night = evidence(judged("als"), judged("wild", -0.4, seed=2), judged("als2", 0.1, seed=3))
    # als would have been the first, had als2 not been there: no rule refuses it.
    decision = decide(
        replace(night, champion=None, last=None, month=None, past=GateHistory()), CONFIG
    )
    assert (decision.kind, decision.recipe, decision.recipe_hash) == ("first", "als2", "hash-als2")
    assert decision.promotes
    assert rule(decision, "first.lift.decayed_popularity", "als2").outcome == "pass"
    assert rule(decision, "first.lift.decayed_popularity", "wild").outcome == "fail"
    assert "wild fails a rule (−" in decision.sentence
    assert "als is behind als2 (+" in decision.sentence
    assert "over decayed_popularity" in decision.sentence
    assert decision.anchor == Anchor("hash-als2", pytest.approx(1.1 / 0.7, rel=0.02), 1)
    assert "anchor covers only" in decision.sentence
    assert [r.recipe_hash for r in decision.ratios if r.accepted] == ["hash-als2"]


def test_when_learning_does_not_pay_the_best_baseline_is_first() -> None:
    night = evidence(judged("als", -0.4), champion=None)
    decision = decide(night, CONFIG)
    assert (decision.kind, decision.recipe) == ("first", "decayed_popularity")
    assert "no learned recipe beats every baseline" in decision.sentence
    assert "als fails a rule" in decision.sentence
    assert decision.anchor == Anchor("hash-decayed_popularity", 1.0, 1)


def test_a_baseline_must_beat_each_below_it() -> None:
    # als is above decayed popularity, but not above own counts, which are above everything.
    own = judged("personal_frequency", 0.1, baseline=2, seed=4)
    assert (
        decide(evidence(judged("als"), own, champion=None), CONFIG).recipe == "personal_frequency"
    )
    # A personal frequency that does not beat decayed popularity is not counted as beaten.
    weak = judged("personal_frequency", -0.29, baseline=2, seed=4)
    tie = decide(evidence(judged("als", -0.29), weak, champion=None), CONFIG)
    assert tie.recipe == "decayed_popularity"


def test_too_few_users_for_a_first_model_is_decayed_popularity_and_reported() -> None:
    decision = decide(evidence(judged("als", 1.0, n=199), champion=None), CONFIG)
    assert (decision.kind, decision.recipe) == ("first", "decayed_popularity")
    assert "underpowered: 199 users can be evaluated (200 needed)" in decision.sentence
    no_fallback = decide(
        evidence(judged("als", 1.0, n=199), champion=None),
        GateConfig(fallback="something_else"),
    )
    assert (no_fallback.kind, no_fallback.recipe) == ("block", None)
    assert "something_else is missing; nothing goes live" in no_fallback.sentence


def test_no_users_to_judge_is_underpowered_and_no_error() -> None:
    night = evidence(judged("als", n=0), champion=None, last=None, month=None)
    assert decide(night, CONFIG).recipe == "decayed_popularity"
    waiting = decide(evidence(judged("als", n=0)), CONFIG)
    assert (waiting.kind, waiting.waiting) == ("keep", True)


# A switch ----------------------------------------------------------------------------------------


def test_a_candidate_that_is_clearly_better_is_switched_to() -> None:
    past = GateHistory(
        anchors=(Anchor("hash-als", 1.4, 3),),
        ratios=(
            BlockRatio("hash-new", block(1), 1.5, 0.01),
            BlockRatio("hash-new", Interval(block(2).start, block(1).start + DAY), 99.0, 0.01),
            BlockRatio("hash-new", block(2), 1.7, 0.01),
            BlockRatio("hash-new", block(9), 9.0, 0.01),
        ),
    )
    decision = decide(evidence(judged("als"), judged("new", 0.2, seed=2), past=past), CONFIG)
    assert (decision.kind, decision.recipe, decision.recipe_hash) == ("switch", "new", "hash-new")
    assert decision.sentence.startswith(
        "switch: new replaces als: e-value over 1,000,000 (500 needed), lift +"
    )
    assert rule(decision, "switch.churn", "new").outcome == "reported"
    points = rule(decision, "switch.e_value", "new")
    assert (points.outcome, points.bound) == ("pass", 500)
    assert decision.anchor is not None
    tonight = next(r.ratio for r in decision.ratios if r.recipe_hash == "hash-new")
    assert decision.anchor.ratio == pytest.approx((tonight + 1.5 + 1.7) / 3)
    assert not decision.anchor.thin


def test_more_candidates_than_allowed_make_the_threshold_stricter() -> None:
    many = [judged(f"c{n}", -0.1, seed=20 + n) for n in range(6)]
    decision = decide(evidence(judged("als"), *many), CONFIG)
    assert rule(decision, "switch.e_value", "c0").bound == pytest.approx(800)


def test_the_one_with_most_points_of_several_winners_leads() -> None:
    night = evidence(judged("als"), judged("a", 0.1, seed=2), judged("b", 0.2, seed=3))
    decision = decide(night, CONFIG)
    assert decision.recipe == "b"
    assert "a: e-value over 1,000,000 (500 needed)" in decision.sentence


@pytest.mark.parametrize(
    ("candidate", "rule_name"),
    [
        ({"lift": 0.009, "noise": 0.001}, "switch.lift"),
        ({"lift": 0.02, "noise": 0.3}, "switch.e_value"),
        ({"lift": 0.2, "coverage": 0.39}, "switch.coverage"),
        ({"lift": 0.2, "harm": {"cold": 0.5}}, "switch.slice.cold"),
    ],
)
def test_each_rule_can_stop_a_switch(candidate: dict[str, Any], rule_name: str) -> None:
    # Spread over seeds is known to be nothing here: the lift alone is too small.
    config = GateConfig(default_seed_sd=0.0)
    night = evidence(judged("als", noise=0.001), judged("new", **candidate, seed=2))
    decision = decide(night, config)
    assert decision.kind == "refresh"
    assert rule(decision, rule_name, "new").outcome == "fail"
    assert "; new: e-value " in decision.sentence
    others = [r for r in decision.rules if r.name.startswith("switch.") and r.subject == "new"]
    if rule_name in ("switch.coverage", "switch.slice.cold"):
        assert [r.name for r in others if r.outcome == "fail"] == [rule_name]


def test_the_luck_of_the_seed_alone_stops_a_lift_that_users_would_prove() -> None:
    night = evidence(judged("als", noise=0.001), judged("new", 0.015, noise=0.001, seed=2))
    assert decide(night, GateConfig(default_seed_sd=0.0)).kind == "switch"
    assert decide(night, CONFIG).kind == "refresh"
    measured = replace(night.judged[3], seed_sd=0.0), replace(night.judged[2], seed_sd=0.0)
    assert decide(replace(night, judged=(*night.judged[:2], *measured)), CONFIG).kind == "switch"


def test_a_candidate_below_a_baseline_is_not_switched_to() -> None:
    own = judged("personal_frequency", 0.4, baseline=2, seed=4, coverage=0.1)
    decision = decide(evidence(judged("als"), judged("new", 0.2, seed=2), own), CONFIG)
    assert rule(decision, "switch.baseline.personal_frequency", "new").outcome == "fail"
    assert rule(decision, "switch.coverage", "personal_frequency").outcome == "fail"
    assert decision.kind == "block"  # the champion itself is under .98 of it
    assert rule(decision, "refresh.baseline").outcome == "fail"
    assert rule(decision, "refresh.baseline").sentence in decision.sentence


def test_small_slices_are_reported_and_not_judged() -> None:
    night = evidence(judged("als", n=350), judged("new", 0.5, n=350, harm={"hot": 0.1}, seed=2))
    decision = decide(night, CONFIG)
    assert decision.kind == "switch"
    assert rule(decision, "switch.slice.hot", "new").outcome == "underpowered"


# A refresh ---------------------------------------------------------------------------------------


def test_a_healthy_night_refreshes_and_names_the_recipe() -> None:
    decision = decide(evidence(judged("als"), judged("wild", -0.4, seed=2)), CONFIG)
    assert (decision.kind, decision.recipe, decision.anchor) == (
        "refresh",
        "als",
        Anchor("hash-als", 1.4, 3),
    )
    assert decision.sentence.startswith("refresh: als on newer data: NDCG@20 ")
    assert "against the scorer of the night before (1,200 users)" in decision.sentence
    assert "wild: e-value under 0.1 (500 needed), lift −4" in decision.sentence
    assert rule(decision, "switch.e_value", "wild").outcome == "fail"
    assert rule(decision, "refresh.month").outcome == "pass"
    assert rule(decision, "refresh.baseline_ratio").outcome == "pass"


@pytest.mark.parametrize(
    ("changes", "rule_name"),
    [
        ({"last": reference("last", -0.05)}, "refresh.last"),
        ({"month": reference("month", -0.02)}, "refresh.month"),
        ({"last": reference("last", 0.06, harm={"hot": 0.7})}, "refresh.slice.hot"),
        ({"past": GateHistory(anchors=(Anchor("hash-als", 1.7, 3),))}, "refresh.baseline_ratio"),
        ({"past": GateHistory()}, "refresh.baseline_ratio"),
        ({"past": GateHistory(anchors=(Anchor("hash-other", 1.0, 3),))}, "refresh.baseline_ratio"),
        ({"last": None, "skipped": ("one reaches into the holdout",)}, "refresh.last"),
    ],
)
def test_each_rule_can_block_a_refresh(changes: dict[str, Any], rule_name: str) -> None:
    decision = decide(evidence(judged("als"), **changes), CONFIG)
    assert (decision.kind, decision.recipe, decision.recipe_hash) == ("block", "als", "hash-als")
    assert rule(decision, rule_name).outcome in ("fail", "missing")
    assert rule(decision, rule_name).sentence in decision.reasons
    assert not [r.name for r in decision.rules if r.name in decision.sentence]
    assert decision.sentence.endswith("; the live lists stay")
    past = changes.get("past", GateHistory(anchors=(Anchor("hash-als", 1.4, 3),)))
    assert decision.anchor == past.anchor_of("hash-als")
    failed = {r.name for r in decision.rules if r.outcome in ("fail", "missing")}
    assert len(failed) >= 1
    if rule_name != "refresh.last":  # a loss everywhere is one in each slice, too
        assert {name for name in failed if name.startswith("refresh.")} == {rule_name}


def test_a_loss_within_three_standard_errors_passes() -> None:
    noisy = reference("last", -0.06, noise=0.2)
    decision = decide(evidence(judged("als"), last=noisy), CONFIG)
    last = rule(decision, "refresh.last")
    assert last.figure is not None
    assert last.bound is not None
    assert last.bound < last.figure < -CONFIG.refresh_margin
    assert decision.kind == "refresh"


def test_a_ratio_that_fell_within_its_error_is_no_proved_harm() -> None:
    for se, kind in ((0.0, "block"), (0.2, "refresh")):
        past = GateHistory(
            (BlockRatio("hash-als", block(1), 1.43, se),), (Anchor("hash-als", 1.7, 3),)
        )
        decision = decide(evidence(judged("als"), past=past), CONFIG)
        ratio = rule(decision, "refresh.baseline_ratio")
        assert ratio.figure is not None
        assert ratio.bound is not None
        assert ratio.figure < ratio.bound
        assert decision.kind == kind


def test_no_scorer_of_a_month_ago_is_reported() -> None:
    decision = decide(evidence(judged("als"), month=None, skipped=("x is too new",)), CONFIG)
    assert decision.kind == "refresh"
    month = rule(decision, "refresh.month")
    assert (month.outcome, "x is too new" in month.sentence) == ("reported", True)
    few = decide(evidence(judged("als"), month=reference("month", -0.5, n=150)), CONFIG)
    assert (few.kind, rule(few, "refresh.month").outcome) == ("refresh", "underpowered")


def test_no_difference_passes() -> None:
    same = judged("t", n=1200).users
    decision = decide(
        evidence(
            judged("als"), last=Reference("last", same, same), month=Reference("m", same, same)
        ),
        CONFIG,
    )
    assert decision.kind == "refresh"
    assert "too few differences" in rule(decision, "refresh.last").sentence


def test_a_stored_scorer_without_hits_is_no_hurdle() -> None:
    nothing = users(np.zeros(1200))
    tonight = judged("t").users
    decision = decide(evidence(judged("als"), last=Reference("last", tonight, nothing)), CONFIG)
    assert decision.kind == "refresh"
    assert rule(decision, "refresh.last").figure is None


def test_too_few_users_keep_for_three_nights_and_then_ask() -> None:
    decisions: list[Decision] = []
    for _ in range(5):
        past = replace(build_gate_history(decisions), anchors=(Anchor("hash-als", 1.4, 3),))
        few = reference("last", -0.5, n=150)
        decisions.append(decide(evidence(judged("als"), last=few, past=past), CONFIG))
    assert [d.kind for d in decisions] == ["keep", "keep", "keep", "block", "block"]
    assert "run 2 of 3" in decisions[1].sentence
    assert (
        "150 users can be evaluated against the scorer of last (200 needed)"
        in decisions[1].sentence
    )
    assert "in 4 runs in a row: accept it" in decisions[3].sentence
    assert all(d.recipe == "als" and not d.promotes for d in decisions)
    healthy = decide(evidence(judged("als")), CONFIG)
    assert build_gate_history([*decisions, healthy]).underpowered_nights == 0


def test_the_ratio_is_a_mean_over_two_blocks_that_do_not_overlap() -> None:
    overlapping = Interval(BLOCK.start - timedelta(days=1), BLOCK.end - timedelta(days=1))
    past = GateHistory(
        anchors=(Anchor("hash-als", 2.0, 3),),
        ratios=(
            BlockRatio("hash-als", overlapping, 99.0, 0.0, True),
            BlockRatio("hash-als", block(1), 2.4, 0.0),
            BlockRatio("hash-als", block(2), 99.0, 0.0, True),
            BlockRatio("hash-other", block(1), 99.0, 0.0, True),
        ),
    )
    decision = decide(evidence(judged("als"), past=past), CONFIG)
    tonight = next(r for r in decision.ratios if r.recipe_hash == "hash-als")
    ratio = rule(decision, "refresh.baseline_ratio")
    assert ratio.figure == pytest.approx((tonight.ratio + 2.4) / 2)
    assert ratio.bound == pytest.approx(1.8)
    assert f"standard error {tonight.se / 2:.3f}" in ratio.sentence


@pytest.mark.parametrize(("blocks", "widened"), [(7, False), (8, True)])
def test_eight_healthy_blocks_say_how_much_the_ratio_moves(blocks: int, widened: bool) -> None:
    past = GateHistory(
        anchors=(Anchor("hash-als", 1.4, 3),),
        ratios=tuple(
            BlockRatio("hash-als", block(w), 1.2 + 0.4 * (w % 4 > 1), 0.0, True)
            for w in range(1, blocks + 1)
        ),
    )
    bound = rule(decide(evidence(judged("als"), past=past), CONFIG), "refresh.baseline_ratio").bound
    assert bound is not None
    assert (bound < 1.4 * 0.9 - 1e-9) == widened


# Failing closed ----------------------------------------------------------------------------------


def _without(recipe: EvaluatedRecipe, column: str) -> EvaluatedRecipe:
    return replace(recipe, users=recipe.users.drop(column))


def _spoilt(recipe: EvaluatedRecipe, value: float | None) -> EvaluatedRecipe:
    first = pl.int_range(pl.len()) == 0
    spoilt = recipe.users.with_columns(pl.when(first).then(value).otherwise(NDCG).alias(NDCG))
    return replace(recipe, users=spoilt)


ALS = judged("als")
OTHERS = replace(ALS, users=ALS.users.with_columns(pl.col(c.USER_ID) + "x"))
HALVED = Reference("last", ALS.users, ALS.users.head(600))


@pytest.mark.parametrize(
    ("night", "words"),
    [
        (evidence(_without(ALS, NDCG)), "als: ndcg is missing"),
        (evidence(_without(ALS, SLICE + "hot")), "als: slice.hot is missing"),
        (evidence(_without(ALS, c.USER_ID)), "als: user_id is missing"),
        (evidence(_spoilt(ALS, None)), "als: ndcg has values that are missing or not finite"),
        (
            evidence(_spoilt(ALS, float("nan"))),
            "als: ndcg has values that are missing or not finite",
        ),
        (evidence(judged("als", coverage=None)), "als: coverage is missing"),
        (evidence(judged("als", coverage=float("nan"))), "als: coverage is missing"),
        (evidence(replace(ALS, k=10)), "als: was evaluated at k = 10, not 20"),
        (evidence(OTHERS), "als: was evaluated on other users than the rest"),
        (evidence(ALS, ALS), "two evaluations have the same name"),
        (
            evidence(replace(ALS, users=pl.concat([ALS.users, ALS.users.head(1)]))),
            "als: a user appears twice",
        ),
        (evidence(ALS, expected=("als", "gone")), "the evaluation of gone is missing"),
        (evidence(ALS, champion="gone"), "the champion's recipe gone is missing"),
        (
            evidence(ALS, absent=(Absent("personal_frequency", 2, "out of memory"),)),
            "personal_frequency is missing: out of memory",
        ),
        (
            evidence(ALS, champion="x", absent=(Absent("x", None, "no GPU"),)),
            "x is missing: no GPU",
        ),
        (evidence(ALS, judged=(ALS,), expected=("als",)), "no baseline was evaluated"),
        (evidence(ALS, checks=()), "the data checks are missing"),
        (
            evidence(ALS, checks=(*CHECKS, data_check("catalogue", False, "half of it is gone"))),
            "half of it is gone",
        ),
        (
            evidence(ALS, last=Reference("last", ALS.users.drop(NDCG), ALS.users)),
            "last, tonight: ndcg is missing",
        ),
        (evidence(ALS, last=HALVED), "last: the two scorers were evaluated on different users"),
    ],
)
def test_a_missing_figure_blocks_by_its_name(night: Evidence, words: str) -> None:
    for champion in (night.champion, None):
        decision = decide(replace(night, champion=champion), CONFIG)
        if champion is None and night.champion in ("gone", "x"):
            continue
        assert decision.kind == "block"
        assert decision.recipe == champion
        assert words in decision.sentence
        assert any(words.endswith(r.sentence) for r in decision.rules)


def test_a_check_of_the_data_keeps_its_figure_and_bound() -> None:
    failed = data_check("volume", False, "400 events, 500 at least", 400.0, 500.0)
    schema = data_check("schema", True, "as before")
    for passed in (False, True):
        decision = decide(
            evidence(
                ALS,
                checks=(replace(failed, status=Status.PASSED if passed else Status.FAILED), schema),
            ),
            CONFIG,
        )
        checked = rule(decision, "check.volume")
        assert (checked.outcome, checked.figure, checked.bound) == (verdict(passed), 400.0, 500.0)
        checked = rule(decision, "check.schema")
        assert (checked.figure, checked.bound) == (None, None)


def test_no_change_has_no_sign() -> None:
    assert [change(x) for x in (-0.0004, 0.0004, 0.0)] == ["0.0 %"] * 3
    assert [change(x) for x in (-0.0006, 0.041)] == ["−0.1 %", "+4.1 %"]


def test_a_candidate_that_failed_to_train_leaves_the_others_compared() -> None:
    night = evidence(ALS, absent=(Absent("big", None, "out of memory"),))
    decision = decide(replace(night, expected=(*night.expected, "big")), CONFIG)
    assert decision.kind == "refresh"
    assert rule(decision, "absent").sentence == "big: out of memory"
    assert decision.sentence.endswith("; degraded: big was left out")


def test_slices_that_one_side_lacks_block_a_switch() -> None:
    new = judged("new", 0.2, seed=2)
    extra = new.users.with_columns(pl.col(NDCG).alias(SLICE + "segment_x"))
    decision = decide(evidence(ALS, replace(new, users=extra)), CONFIG)
    assert decision.kind == "refresh"
    assert rule(decision, "switch.slice.segment_x", "new").outcome == "missing"


def test_many_faults_are_counted_and_all_are_kept() -> None:
    bare = replace(ALS, users=ALS.users.select(c.USER_ID))
    decision = decide(evidence(bare), CONFIG)
    assert len(decision.reasons) == 1 + len(SLICES)
    assert "and 5 more; the live lists stay" in decision.sentence


# The shape ---------------------------------------------------------------------------------------

NIGHTS = (
    evidence(ALS, judged("wild", -0.4, seed=2)),
    evidence(ALS, judged("new", 0.2, seed=2)),
    evidence(ALS, judged("new", 0.2, seed=2), judged("same", 0.2, seed=2), champion=None),
    evidence(ALS, last=reference("last", 0, n=100)),
    evidence(ALS, last=reference("last", -0.1), skipped=("s",)),
    evidence(
        ALS,
        past=GateHistory(
            tuple(BlockRatio("hash-als", block(w), 1.3 + w / 50, 0.01, True) for w in range(1, 12)),
            (Anchor("hash-als", 1.4, 2), Anchor("hash-b", 1.1, 3)),
        ),
        absent=(Absent("b", None, "x"), Absent("a", None, "y")),
    ),
    evidence(judged("als", n=50), champion=None),
)


@pytest.mark.parametrize("night", NIGHTS)
def test_a_decision_is_written_as_plain_json_and_read_back_equal(night: Evidence) -> None:
    decision = decide(night, CONFIG)
    text = json.dumps(plain(decision), allow_nan=False)
    assert TypeAdapter(Decision).validate_json(text) == decision
    assert decision.rules
    assert "\n" not in decision.sentence


@pytest.mark.parametrize("night", NIGHTS)
def test_the_offered_recipes_are_those_that_can_be_accepted(night: Evidence) -> None:
    gone = (*CHECKS, data_check("catalogue", False, "half of it is gone"))
    late = replace(night, last=None, skipped=("s",))
    for one in (night, late, replace(night, checks=gone), replace(night, checks=())):
        decision = decide(one, CONFIG)
        names = {None, *(r.name for r in one.judged)}
        taken = set()
        for name in names:
            try:
                accept(decision, one.past, by="Ada", reason="so", recipe=name)
            except GateError:
                continue
            taken.add(name)
        offered = offers(decision)
        assert taken - {None} == set(offered)
        assert (None in taken) == bool(offered)
        assert bool(offered) == (decision.kind in ("keep", "block") and one.checks == CHECKS)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NIGHTS), st.integers(0, 2**32))
def test_equal_evidence_in_any_order_gives_one_decision(night: Evidence, seed: int) -> None:
    rng = Random(seed)

    def mixed(things: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rng.sample(things, len(things)))

    def rows(frame: pl.DataFrame) -> pl.DataFrame:
        return frame[rng.sample(range(frame.height), frame.height)]

    last = night.last
    other = replace(
        night,
        judged=mixed(tuple(replace(r, users=rows(r.users)) for r in night.judged)),
        expected=mixed(night.expected),
        checks=mixed(night.checks),
        absent=mixed(night.absent),
        last=last and Reference(last.label, rows(last.tonight), rows(last.stored)),
        past=replace(
            night.past, ratios=mixed(night.past.ratios), anchors=mixed(night.past.anchors)
        ),
    )
    assert decide(other, CONFIG) == decide(night, CONFIG)


def test_the_history_follows_from_decisions() -> None:
    first = decide(evidence(ALS, champion=None), CONFIG)
    assert build_gate_history([first]).anchors == (first.anchor,)
    assert build_gate_history([first]).ratios == first.ratios
    later = decide(
        evidence(
            ALS, holdout=block(-1), past=build_gate_history([first]), last=reference("l", -0.2)
        ),
        CONFIG,
    )
    past = build_gate_history([first, later])
    assert later.kind == "block"
    assert past.anchors == (first.anchor,)
    assert [r.accepted for r in past.ratios if r.recipe_hash == "hash-als"] == [True, False]
    assert build_gate_history([]) == GateHistory()
    # A switch that never went live leaves the champion's anchor where it was.
    switch = decide(evidence(ALS, judged("new", 0.2, seed=2)), CONFIG)
    both = build_gate_history([first, switch])
    assert both.anchor_of("hash-als") == first.anchor
    assert both.anchor_of("hash-new") == switch.anchor
    assert both.anchor_of("hash-wild") is None


@pytest.mark.parametrize(
    "bad",
    [
        {"alpha": 0.0},
        {"alpha": None},
        {"candidates": 0},
        {"coverage_ratio": 1.1},
        {"x": 1},
        {"min_nonzero": 101},
        {"min_users": 20},
        {"min_lift": math.inf},
        {"refresh_margin": math.inf},
        {"default_seed_sd": math.nan},
    ],
)
def test_thresholds_have_bounds(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateConfig(**bad)


# The error rate ----------------------------------------------------------------------------------


def _switches(lift: float, nights: int, seed: int, tau: float = 0.005) -> int:
    """Count the switches to a candidate of true `lift`, with new users and seeds each night."""
    random = np.random.default_rng(seed)
    n, switches = 400, 0
    for _ in range(nights):
        base = random.beta(1.2, 4.0, n)
        noise = random.normal(0, tau, 2)
        als = base * (1 + noise[0]) + random.normal(0, 0.05, n)
        new = base * (1 + lift + noise[1]) + random.normal(0, 0.05, n)
        pop = EvaluatedRecipe("popularity", "p", 0, users(base * 0.5), 0.1, 20)
        recipes = (
            pop,
            EvaluatedRecipe("als", "a", None, users(als), 0.5, 20),
            EvaluatedRecipe("new", "n", None, users(new), 0.5, 20),
        )
        night = Evidence(
            20,
            BLOCK,
            recipes,
            ("als", "new"),
            "als",
            CHECKS,
            past=GateHistory(anchors=(Anchor("a", 2.0, 3),)),
        )
        switches += decide(night, CONFIG).kind == "switch"
    return switches


def test_equal_candidates_are_hardly_ever_switched_to() -> None:
    # At α/M = .2 % a night; 300 nights give .6 at most, and four have a chance of .3 %.
    assert _switches(0.0, 300, seed=7) <= 3


def test_a_fifth_better_is_detected() -> None:
    assert _switches(0.2, 20, seed=8) == 20
