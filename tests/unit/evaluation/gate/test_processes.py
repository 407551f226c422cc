"""E-processes of a run: which earlier blocks they lack, and the records that these add."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import Interval
from pipeline.evaluation.gate import (
    Decision,
    EarlierBlock,
    EvaluatedRecipe,
    Evidence,
    build_gate_history,
    decide,
)
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey
from pipeline.evaluation.gate.processes import missing_blocks
from tests.unit.evaluation.gate.test_gate import (
    ANCHOR,
    BLOCK,
    CONFIG,
    DAY,
    block,
    evidence,
    judged,
    ladder,
    nights,
    reference,
    status_of,
)

KEY = EProcessKey("hash-als", "hash-new")
SPANS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(1, 20)).map(
        lambda row: Interval(BLOCK.end - (row[0] + row[1]) * DAY, BLOCK.end - row[0] * DAY)
    ),
    max_size=5,
)


def overlap(left: Interval, right: Interval) -> bool:
    return left.start < right.end and right.start < left.end


@given(st.integers(1, 90), SPANS, st.integers(1, 6))
def test_missing_blocks_fill_the_newest_days_that_lie_in_no_other_block(
    opened: int, excused: list[Interval], count: int
) -> None:
    process = EProcess(KEY, BLOCK.start - opened * DAY, 0.1, excused=tuple(excused[:2]))
    everything = missing_blocks([process], BLOCK, excused[2:], 100)
    assert all(process.opened <= b.start < b.end <= BLOCK.start for b in everything)
    assert all(b.length <= BLOCK.length for b in everything)
    assert all(a.end <= b.start for a, b in pairwise(everything))
    assert not any(overlap(b, span) for b in everything for span in excused)
    # Nothing is left out: with all of them the e-process has no hole.
    full = replace(process, excused=(*excused, *everything))
    assert full.hole_days(BLOCK.start) == 0
    newest = missing_blocks([process], BLOCK, excused[2:], count)
    assert newest == everything[-count:]


def test_days_before_the_last_record_are_never_filled() -> None:
    process = EProcess(KEY, block(4).start, 0.1, excused=(block(3),))
    # Days are cut from the newest, and what is left of them is a block as well.
    cut = Interval(block(4).start, block(4).start + 3 * DAY)
    shifted = Interval(BLOCK.start + 3 * DAY, BLOCK.end + 3 * DAY)
    assert missing_blocks([process], BLOCK, (), 9) == (block(4), block(2), block(1))
    assert missing_blocks([process], BLOCK, (), 1) == (block(1),)
    blocks = missing_blocks([process], shifted, (), 9)
    assert [b.length / DAY for b in blocks] == [7, 3, 7, 7]
    assert cut not in blocks


def opening(weeks: int, *recipes: EvaluatedRecipe) -> Decision:
    """The choice of als, so many weeks ago, among these recipes."""
    hashes = tuple(r.recipe_hash for r in (*ladder(), *recipes))
    return Decision("first", "als", "hash-als", (), (), "first", block(weeks), recipes=hashes)


def weekly(weeks_ago: int) -> tuple[EvaluatedRecipe, ...]:
    """The recipes of one week, whose values differ from week to week."""
    return judged("als", seed=100 + weeks_ago), judged("new", 0.004, seed=200 + weeks_ago)


def earlier(weeks_ago: int, *recipes: EvaluatedRecipe, users: int = 1200) -> EarlierBlock:
    return EarlierBlock(block(weeks_ago), users, (*ladder(), *recipes))


def night(weeks_ago: int, decisions: list[Decision], **changes: object) -> Evidence:
    past = replace(build_gate_history(decisions), anchors=(ANCHOR,))
    return evidence(*weekly(weeks_ago), holdout=block(weeks_ago), past=past, **changes)


@pytest.mark.parametrize("gap", [2, 4])
def test_a_rare_night_records_what_weekly_nights_would_have(gap: int) -> None:
    often = [opening(gap, *weekly(0))]
    for week in range(gap - 1, -1, -1):
        often.append(decide(night(week, often), CONFIG))
    missed = tuple(earlier(week, *weekly(week)) for week in range(gap - 1, 0, -1))
    rare = [opening(gap, *weekly(0))]
    rare.append(decide(night(0, rare, earlier=missed), CONFIG))

    one, other = (build_gate_history(made).e_processes for made in (often, rare))
    assert {p.key.candidate: p for p in one} == {p.key.candidate: p for p in other}
    process = next(p for p in other if p.key == KEY)
    assert [r.block for r in process.records] == [block(w) for w in range(gap - 1, -1, -1)]
    figures = [(status_of(d[-1]).log_e, status_of(d[-1]).lift, status_of(d[-1]).holes)
               for d in (often, rare)]  # fmt: skip
    assert figures[0] == figures[1]
    # Without them the days are a hole, and the e-process opens again.
    emptied = status_of(decide(night(0, rare[:1]), CONFIG))
    assert (emptied.blocks, emptied.opened) == ((1, block(gap).end) if gap == 2 else (0, BLOCK.end))


def test_the_order_of_the_recipes_of_an_earlier_block_has_no_effect() -> None:
    recipes = [*ladder(), *weekly(1)]
    Random(1).shuffle(recipes)
    first = [opening(2, *weekly(0))]
    one, other = (
        decide(night(0, first, earlier=(EarlierBlock(block(1), 1200, tuple(some)),)), CONFIG)
        for some in (recipes, [*ladder(), *weekly(1)])
    )
    assert one == other


def test_earlier_days_with_few_users_or_equal_recipes_are_no_hole() -> None:
    same = judged("als", seed=1)
    alike = replace(same, name="new", recipe_hash="hash-new")
    for missed in (earlier(1, users=199), earlier(1, same, alike)):
        made = [opening(2, *weekly(0))]
        made.append(decide(night(0, made, earlier=(missed,)), CONFIG))
        status = status_of(made[-1])
        assert (status.blocks, status.holes, status.excused) == (1, 0, (block(1),))
        process = next(p for p in build_gate_history(made).e_processes if p.key == KEY)
        assert process.hole_days(BLOCK.start) == 0


def test_a_recipe_that_failed_on_earlier_days_leaves_a_hole() -> None:
    made = [opening(2, *weekly(0))]
    missed = earlier(1, judged("als", seed=101))
    status = status_of(decide(night(0, made, earlier=(missed,)), CONFIG))
    assert (status.blocks, status.holes) == (1, 7)


def test_a_night_that_empties_an_e_process_keeps_the_records_of_its_earlier_days() -> None:
    made = [opening(4, *weekly(0))]
    made.append(decide(night(0, made, earlier=(earlier(1, *weekly(1)),)), CONFIG))
    status = status_of(made[-1])
    assert (status.blocks, status.earlier) == (0, ())
    process = next(p for p in build_gate_history(made).e_processes if p.key == KEY)
    assert (process.opened, process.records) == (BLOCK.end, ())
    assert [record.block for record in process.dropped] == [block(1), BLOCK]
    # A night with damage empties nothing and adds nothing.
    damaged = [made[0]]
    damaged.append(decide(night(0, damaged, last=reference("last", -0.2)), CONFIG))
    assert not [p for p in build_gate_history(damaged).e_processes if p.dropped]


def test_a_night_with_damage_records_no_earlier_days() -> None:
    made = [opening(2, *weekly(0))]
    missed = (earlier(1, *weekly(1)),)
    decision = decide(night(0, made, earlier=missed, last=reference("l", -0.2)), CONFIG)
    assert (decision.kind, decision.e_processes) == ("block", ())


def test_a_candidate_that_opens_tonight_gets_no_earlier_days() -> None:
    made = nights(2, *weekly(0))
    late = replace(night(0, made[:1]), earlier=(earlier(1, *weekly(1), judged("x", 0.1)),))
    recipes = (*late.judged, judged("x", 0.1))
    late = replace(late, judged=recipes, expected=tuple(r.name for r in recipes))
    status = status_of(decide(late, CONFIG), "x")
    assert (status.blocks, status.opened) == (0, BLOCK.end)
