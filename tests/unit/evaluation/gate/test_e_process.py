"""E-processes: no user and no run counts twice, evidence ends with the champion it is against,
damaged data give none, and its error rate is as stated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from pipeline.base import Interval, plain
from pipeline.evaluation.gate import (
    Decision,
    Evidence,
    GateConfig,
    GateHistory,
    build_gate_history,
    decide,
    offers,
)
from pipeline.evaluation.gate.e_process import (
    EFFECTS,
    MIXTURE_WEIGHTS,
    EProcess,
    EProcessKey,
    EProcessStatus,
    blocks_expected,
    e_value_text,
    waiting_day,
)
from tests.unit.evaluation.gate.test_gate import (
    AS_OF,
    BLOCK,
    CONFIG,
    DAY,
    block,
    evidence,
    judged,
    reference,
    rule,
)

KEY = EProcessKey("champion", "candidate", "ndcg", 20, 7)
QUIET = GateConfig(default_seed_sd=0.0)


def plain_points(blocks: list[tuple[float, float]]) -> float:
    """The mean over nine bets of the likelihood ratio of all blocks, in ten lines."""
    total = 0.0
    for bet in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28):
        ratio = 1.0
        for x, v in blocks:
            ratio *= math.exp(-((x - bet) ** 2) / (2 * v)) / math.exp(-(x**2) / (2 * v))
        total += ratio * (15 / 64 if bet < 0.05 else 1 / 80)
    return total


def filled(blocks: list[tuple[float, float]]) -> EProcess:
    account = EProcess(KEY)
    for at, (x, v) in enumerate(blocks):
        account = account.add(x, v, block(len(blocks) - at))
    return account


def test_points_are_the_mixture_of_likelihood_ratios() -> None:
    random = Random(1)
    blocks = [(random.gauss(0.01, 0.02), random.uniform(1e-4, 9e-4)) for _ in range(6)]
    process = filled(blocks)
    assert process.e_value == pytest.approx(plain_points(blocks), rel=1e-9)
    weights = np.array([1 / v for _, v in blocks])
    lifts = np.array([x for x, _ in blocks])
    assert process.lift == pytest.approx(float((lifts * weights).sum() / weights.sum()))
    assert process.se == pytest.approx(float(weights.sum() ** -0.5))
    assert EProcess(KEY).e_value == 1.0
    assert math.isnan(EProcess(KEY).lift)


def test_a_sure_winner_does_not_overflow() -> None:
    process = filled([(0.5, 1e-7)] * 3)
    assert process.log_e > 1e5
    assert process.e_value == 1e6
    assert e_value_text(process.e_value) == "over 1,000,000"


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (0.0, "under 0.1"),
        (0.07, "under 0.1"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (12.4, "12"),
        (499.7, "499"),  # rounded down: 500 is not reached
        (512.4, "512"),
        (1e6, "over 1,000,000"),
    ],
)
def test_points_read_alike_everywhere(points: float, text: str) -> None:
    assert e_value_text(points) == text
    log = math.log(points) if points else -900.0
    account = EProcess(KEY, log_likelihood_ratios=(log,) * len(EFFECTS))
    standing = EProcessStatus("new", account, 500.0, None, None, None)
    assert standing.sentence == f"new: e-value {text} (500 needed)"


def test_an_account_that_has_not_moved_has_no_sign() -> None:
    standing = EProcessStatus("new", filled([(-0.0001, 1e-12)]), 500.0, None, None, None)
    assert "(500 needed), lift 0.0 % (95 %: 0.0 % to 0.0 %) over 1 block" in standing.sentence


@pytest.mark.parametrize("bad", [(0.1, 0.0), (math.nan, 1.0), (0.1, math.inf), (0.1, -1.0)])
def test_values_that_are_not_evidence_are_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        EProcess(KEY).add(*bad, BLOCK)


def test_users_are_not_counted_twice() -> None:
    account = EProcess(KEY).add(0.01, 1e-4, BLOCK)
    for days in (0, 1, 6):
        later = Interval(BLOCK.start + days * DAY, BLOCK.end + days * DAY)
        with pytest.raises(ValueError, match="overlaps"):
            account.add(0.01, 1e-4, later)
        assert waiting_day(account, None, later) == f"waiting, day {days} of 7"
    assert waiting_day(account, None, block(-1)) is None
    assert waiting_day(account, block(-1).end, block(-1)) == "waiting, day 0 of 7"
    assert waiting_day(account, block(-1).start, block(-1)) is None


def test_a_year_of_looking_passes_a_hundred_points_in_less_than_one_case_in_a_hundred() -> None:
    # 2,000 equal candidates of 52 blocks; .5 % is far below the promise and far above none.
    random = np.random.default_rng(7)
    v = 0.013**2
    x = random.normal(0, math.sqrt(v), (2000, 52))
    bets, shares = np.array(EFFECTS)[:, None, None], np.array(MIXTURE_WEIGHTS)[:, None, None]
    points = (shares * np.exp(np.cumsum(bets * x / v - bets**2 / (2 * v), axis=2))).sum(axis=0)
    reached = (points >= 100).any(axis=1).mean()
    assert 0.0 < reached < 0.01
    one = filled([(float(value), v) for value in x[0]])
    assert one.e_value == pytest.approx(points[0, -1])


def test_a_several_times_better_candidate_needs_no_months() -> None:
    # With few hits a block has an error of ±30 %. Four times as good is clear at once.
    assert sum(MIXTURE_WEIGHTS) == pytest.approx(1.0)
    assert filled([(2.87, 0.3**2)]).e_value == 1e6
    assert filled([(0.6, 0.1**2)]).e_value > 500
    # And a bet on that costs the small ones hardly anything.
    small = [(0.02, 0.013**2)] * 8
    four = (
        sum(math.exp(sum(g * x / v - g * g / (2 * v) for x, v in small)) for g in EFFECTS[:4]) / 4
    )
    assert filled(small).e_value > 0.93 * four


def test_how_many_blocks_two_percent_needs() -> None:
    v = 0.013**2
    assert blocks_expected(EProcess(KEY), v, 500) == math.ceil(
        2 * math.log(64 / 15 * 5 / 0.01) * v / 0.02**2
    )
    half = filled([(0.02, v)] * 3)
    assert blocks_expected(half, v, 500) == blocks_expected(EProcess(KEY), v, 500) - 3
    assert blocks_expected(filled([(0.5, v)]), v, 500) == 0


def test_a_standing_is_written_as_json_and_read_back_equal() -> None:
    for account in (EProcess(KEY), filled([(0.01, 1e-4)]), filled([(0.9, 1e-7)] * 2)):
        standing = EProcessStatus("new", account, 500.0, 0.03, 4, "waiting, day 2 of 7")
        text = json.dumps(plain(standing), allow_nan=False)
        assert TypeAdapter(EProcessStatus).validate_json(text) == standing
        # An account from before the bets changed begins anew, under the same key.
        older = plain(standing) | {"log_likelihood_ratios": [9.0] * 4}
        assert TypeAdapter(EProcessStatus).validate_python(older).e_process == EProcess(KEY)
        assert standing.sentence.startswith("new: ")
        assert standing.sentence.endswith("; waiting, day 2 of 7")


# In the gate -------------------------------------------------------------------------------------


def night(week: int, past: GateHistory, *recipes: Any, days: int = 0, **changes: Any) -> Evidence:
    """`week` weeks after `BLOCK`, and some days."""
    shift = timedelta(days=7 * week + days)
    held = Interval(BLOCK.start + shift, BLOCK.end + shift)
    anchors = past.anchors or evidence(judged("als")).past.anchors
    return evidence(
        *(recipes or (judged("als"), judged("new", 0.012, noise=0.03, seed=2))),
        holdout=held,
        past=replace(past, anchors=anchors),
        **changes,
    )


def account_of(decision: Decision, name: str = "new") -> EProcess:
    return next(s.e_process for s in decision.e_processes if s.recipe == name)


def test_points_grow_over_blocks_and_switch_when_they_suffice() -> None:
    # At seven nights a week a week counts once.
    decisions: list[Decision] = []
    for days in range(40):
        decision = decide(night(0, build_gate_history(decisions), days=days), QUIET)
        decisions.append(decision)
        assert account_of(decision).blocks == days // 7 + 1
        if decision.kind == "switch":
            break
    assert decisions[-1].kind == "switch"
    assert len(decisions) % 7 == 1
    assert len(decisions) > 7
    before = decisions[-2]
    assert (before.kind, rule(before, "switch.e_value", "new").outcome) == ("refresh", "waiting")
    assert "(500 needed), lift +1." in before.sentence
    assert ", waiting, day 6 of 7" in before.sentence
    counted = [account_of(d).log_e for d in decisions[::7]]
    assert counted == sorted(counted)
    assert account_of(decisions[-2]).e_value < 500 <= account_of(decisions[-1]).e_value
    # The switch closes all accounts, and the next ones begin after the block that decided it.
    past = build_gate_history(decisions)
    assert (past.e_processes, past.opened) == ((), decisions[-1].block.end)
    back = (judged("new"), judged("als", 0.3, seed=2))
    after = {"champion": "new", "days": len(decisions)}
    decision = decide(night(0, past, *back, **after), QUIET)
    assert account_of(decision, "als").blocks == 0
    assert decision.kind != "switch"
    assert rule(decision, "switch.e_value", "als").outcome == "waiting"


def test_a_switch_that_never_went_live_closes_nothing() -> None:
    switched = decide(night(0, GateHistory(), judged("als"), judged("new", 0.2, seed=2)), CONFIG)
    assert switched.kind == "switch"
    past = build_gate_history([switched], [False])
    assert past.opened is None
    # Its points are there on the next night, though no further block has passed.
    again = decide(night(0, past, judged("als"), judged("new", 0.2, seed=2), days=1), CONFIG)
    assert (again.kind, account_of(again).blocks) == ("switch", 1)


def test_a_night_that_is_run_twice_counts_once() -> None:
    first = decide(night(0, GateHistory()), QUIET)
    again = decide(night(0, GateHistory()), QUIET)  # the past of the same instant is the same
    assert again == first
    assert account_of(decide(night(1, build_gate_history([first, again])), QUIET)).blocks == 2


def test_a_night_before_the_accounts_last_block_is_judged_by_its_own_past() -> None:
    first = decide(night(0, GateHistory()), QUIET)
    later = decide(night(2, build_gate_history([first])), QUIET)
    # Run afterwards: the account as it stood then, and the later one stays what it is.
    between = decide(night(1, build_gate_history([first])), QUIET)
    assert account_of(between).blocks == 2
    assert account_of(between).last == between.block
    past = build_gate_history([first, between, later])
    assert account_of(later) in past.e_processes
    assert account_of(between) not in past.e_processes


def test_another_length_of_block_or_of_lists_is_another_account() -> None:
    first = decide(night(0, GateHistory()), QUIET)
    longer = Interval(BLOCK.end, BLOCK.end + timedelta(days=14))
    decision = decide(replace(night(2, build_gate_history([first])), holdout=longer), QUIET)
    assert account_of(decision).blocks == 1
    tens = tuple(replace(r, k=10) for r in night(1, GateHistory()).judged)
    decision = decide(replace(night(1, build_gate_history([first])), judged=tens, k=10), QUIET)
    assert account_of(decision).blocks == 1


def test_an_equal_candidate_gathers_nothing() -> None:
    als = judged("als")
    twin = replace(als, name="twin", recipe_hash="hash-twin")
    decision = decide(night(0, GateHistory(), als, twin), QUIET)
    points = rule(decision, "switch.e_value", "twin")
    assert (decision.kind, points.outcome) == ("refresh", "underpowered")
    assert "too few differences" in points.sentence
    assert account_of(decision, "twin") == EProcess(account_of(decision, "twin").key)


def test_too_few_users_count_no_block() -> None:
    few = (judged("als", n=150), judged("new", 0.5, n=150, seed=2))
    decision = decide(night(0, GateHistory(), *few), QUIET)
    assert account_of(decision).blocks == 0
    assert rule(decision, "switch.e_value", "new").outcome == "underpowered"
    assert (decision.kind, decision.waiting) == ("keep", True)


def test_damaged_data_switch_nothing_and_move_no_account() -> None:
    better = (judged("als"), judged("new", 0.2, seed=2))
    decision = decide(night(0, GateHistory(), *better, last=reference("last", -0.2)), CONFIG)
    assert (decision.kind, decision.recipe, decision.e_processes) == ("block", "als", ())
    assert rule(decision, "refresh.last").sentence in decision.sentence
    assert build_gate_history([decision]).e_processes == ()
    slow = (judged("als", noise=0.001), judged("new", 0.04, noise=0.05, seed=2))
    healthy = decide(night(0, GateHistory(), *slow), QUIET.model_copy(update={"candidates": 10**9}))
    assert healthy.inconclusive == "new"
    damaged = decide(
        night(0, GateHistory(), *slow, last=reference("last", -0.2)),
        QUIET.model_copy(update={"candidates": 10**9}),
    )
    assert (damaged.kind, damaged.inconclusive) == ("block", None)
    assert "inconclusive" not in damaged.sentence
    # An ageing champion alone does not prevent a switch.
    aged = decide(night(0, GateHistory(), *better, month=reference("month", -0.01)), CONFIG)
    assert aged.kind == "switch"


def test_the_grey_zone_names_recipes_a_person_may_switch_to() -> None:
    decisions: list[Decision] = []
    while len(decisions) < 12 and (not decisions or decisions[-1].kind != "switch"):
        slow = (judged("als", noise=0.001), judged("new", 0.02, noise=0.05, seed=2))
        decisions.append(decide(night(len(decisions), build_gate_history(decisions), *slow), QUIET))
    grey = [d for d in decisions if d.inconclusive]
    assert grey
    for decision in grey:
        assert (decision.kind, decision.inconclusive) == ("refresh", "new")
        assert offers(decision) == ("new",)
        assert offers(replace(decision, kind="block")) == ("new", "als")
        assert 100 <= account_of(decision).e_value < 500
        assert "new is inconclusive" in decision.sentence
        assert rule(decision, "switch.coverage", "new").outcome == "pass"
    assert all(
        account_of(d).e_value < 100 for d in decisions if not d.inconclusive and not d.promotes
    )
    # Harm in a slice cannot be accepted.
    harmful = (judged("als", noise=0.001), judged("new", 0.05, harm={"hot": 0.5}, seed=2))
    assert decide(night(0, GateHistory(), *harmful), QUIET).inconclusive is None


def test_accounts_stay_when_nothing_could_be_judged() -> None:
    first = decide(night(0, GateHistory()), QUIET)
    blocked = decide(night(1, build_gate_history([first]), checks=()), QUIET)
    assert (blocked.kind, blocked.e_processes) == ("block", ())
    assert account_of(decide(night(2, build_gate_history([first, blocked])), QUIET)).blocks == 2
    assert BLOCK.end == AS_OF
