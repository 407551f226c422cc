"""Missing data: what each rule of a switch and of a refresh does without a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate import (
    Anchor,
    BlockLevel,
    Decision,
    EvaluatedRecipe,
    Evidence,
    GateConfig,
    Reference,
    build_gate_history,
    decide,
)
from pipeline.evaluation.gate.refresh import judge_refresh
from tests.unit.evaluation.gate.test_gate import (
    ANCHOR,
    BLOCK,
    CONFIG,
    accepted_levels,
    block,
    evidence,
    judged,
    ladder,
    level,
    nights,
    past_of,
    reference,
    users,
)

Change = Callable[[Evidence], Evidence]
ALS, NEW = judged("als"), judged("new", 0.2, seed=2)


def without(frame: pl.DataFrame, name: str = "cold") -> pl.DataFrame:
    return frame.drop(SLICE + name)


def with_new(change: Callable[[EvaluatedRecipe], EvaluatedRecipe]) -> Change:
    def changed(night: Evidence) -> Evidence:
        return replace(
            night, judged=tuple(change(r) if r.name == "new" else r for r in night.judged)
        )

    return changed


def small_slice(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave 10 users in the slice, and make them far worse."""
    column = pl.Series([0.0 if at < 10 else None for at in range(frame.height)], dtype=pl.Float64)
    return frame.with_columns(column.alias(f"{SLICE}cold"))


def extra_slice(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("ndcg").alias(f"{SLICE}segment_a"))


def proved(records: int = 1) -> Evidence:
    """A night on which `new` is switched to, if nothing is missing."""
    # Its coverage is too low until tonight.
    decisions = nights(records, ALS, replace(NEW, coverage=0.1))
    past = replace(build_gate_history(decisions), anchors=(ANCHOR,))
    return evidence(ALS, NEW, holdout=block(-1), past=past)


def unrecorded(night: Evidence) -> Evidence:
    """Remove the values of the baselines from the records, tonight's included."""
    past = night.past
    processes = tuple(
        replace(p, records=tuple(replace(r, totals=r.totals[:1]) for r in p.records))
        for p in past.e_processes
    )
    # Tonight's days were recorded before, so they add no record.
    shifted = night.holdout.start - timedelta(days=3)
    block_ = replace(night.holdout, start=shifted, end=shifted + night.holdout.length)
    return replace(night, past=replace(past, e_processes=processes), holdout=block_)


SWITCH: list[tuple[str, int, Change, str, str | None]] = [
    ("all there", 1, lambda n: n, "switch", None),
    ("S1 no record", 1, lambda n: replace(n, past=past_of(("hash-x",))), "refresh",
     "switch.evidence"),
    ("S3 one record", 0, lambda n: replace(n, holdout=BLOCK, past=past_of()), "refresh",
     "switch.not_one_week"),
    ("S4 no column", 1, with_new(lambda r: replace(r, users=extra_slice(r.users))), "refresh",
     "switch.slices.segment_a"),
    ("S5 no coverage", 1, with_new(lambda r: replace(r, coverage=None)), "block", "complete"),
    ("S6 no values", 2, unrecorded, "refresh", "switch.baselines.popularity"),
    ("S7 no reference", 1, lambda n: replace(n, last=None), "block", "refresh.last"),
    ("S7 few users", 1, lambda n: replace(n, last=reference("l", 0.0, 199)), "keep",
     "switch.damage"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "records", "change", "kind", "rule"), SWITCH)
def test_a_switch_without_a_figure(
    name: str, records: int, change: Change, kind: str, rule: str | None
) -> None:
    decision = decide(change(proved(max(1, records))), CONFIG)
    assert decision.kind == kind, name
    if rule is not None:
        assert rule in {r.name for r in decision.rules if r.outcome not in ("pass", "reported")}


def test_a_small_slice_is_left_out_of_a_switch() -> None:
    als, new = (replace(r, users=small_slice(r.users)) for r in (ALS, judged("new", 0.2, seed=2)))
    last = nights(2, als, new)[-1]
    assert last.kind == "switch"
    outcomes = {r.name: r.outcome for r in last.rules if r.subject == "new"}
    assert outcomes["switch.slices.cold"] == "underpowered"


def pair(change: Callable[[pl.DataFrame], pl.DataFrame], label: str = "last") -> Reference:
    good = reference(label, 0.01)
    return replace(good, tonight=change(good.tonight), stored=good.stored)


def both(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Reference:
    good = reference("last", -0.5)
    return replace(good, tonight=change(good.tonight), stored=change(good.stored))


def alike(label: str) -> Reference:
    one = users(level(1200))
    return Reference(label, one, one)


def dead(*names: str) -> tuple[EvaluatedRecipe, ...]:
    """All recipes, of which some have no hit."""
    return tuple(
        replace(r, users=users(np.zeros(1200))) if r.name in names else r for r in (*ladder(), ALS)
    )


BASELINES = ("popularity", "decayed_popularity")
REFRESH: list[tuple[str, dict[str, object], str, str, str]] = [
    ("R1 no check", {"checks": ()}, "block", "complete", "missing"),
    ("R2 no reference", {"last": None}, "block", "refresh.last", "missing"),
    ("R2 few users", {"last": reference("l", -0.5, 199)}, "keep", "refresh.last", "underpowered"),
    ("R2 no difference", {"last": alike("last")}, "refresh", "refresh.last", "pass"),
    ("R3 no reference", {"month": None}, "refresh", "refresh.month", "reported"),
    ("R3 few users", {"month": reference("m", -0.5, 199)}, "refresh", "refresh.month", "reported"),
    ("R3 no difference", {"month": alike("m")}, "refresh", "refresh.month", "reported"),
    ("R4 no column", {"last": pair(extra_slice)}, "block", "refresh.slices.segment_a", "missing"),
    ("R4 no standard column", {"last": pair(without)}, "block", "complete", "missing"),
    ("R5 one block", {"levels": 1}, "refresh", "refresh.level", "reported"),
    ("R6 baselines without hits", {"judged": dead(*BASELINES)}, "refresh", "refresh.floor", "pass"),
    ("R6 the best baseline itself", {"champion": "decayed_popularity"}, "refresh", "refresh.floor",
     "pass"),
    ("R7 baselines without hits", {"judged": dead(*BASELINES)}, "refresh", "refresh.anchor",
     "pass"),
    ("R7 never set", {"anchors": ()}, "refresh", "refresh.anchor", "reported"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "kind", "rule", "outcome"), REFRESH)
def test_a_refresh_without_a_figure(
    name: str, changes: dict[str, object], kind: str, rule: str, outcome: str
) -> None:
    decision = decide(refreshed(**changes), CONFIG)
    assert decision.kind == kind, name
    assert outcome in {r.outcome for r in decision.rules if r.name == rule}


def refreshed(
    levels: int = 0, anchors: tuple[Anchor, ...] = (ANCHOR,), **changes: object
) -> Evidence:
    past = replace(past_of(anchors=anchors), levels=accepted_levels(count=levels))
    return replace(evidence(ALS), past=past, **changes)


def test_a_small_slice_is_left_out_of_a_refresh() -> None:
    # All users lose, so the refresh fails by R2, not by the slice.
    decision = decide(refreshed(last=both(small_slice)), CONFIG)
    outcomes = {r.name: r.outcome for r in decision.rules}
    assert (outcomes["refresh.last"], outcomes["refresh.slices.cold"]) == ("fail", "underpowered")


FEW = reference("last", 0.0, 199)
NO_RECORD: list[tuple[str, dict[str, object], str, bool]] = [
    ("all there", {}, "refresh", True),
    ("R2 no reference", {"last": None}, "block", False),
    ("R2 few users, R4 left out, R5 one block", {"last": FEW}, "keep", True),
    ("R2 few users, R5 passes", {"last": FEW, "levels": accepted_levels()}, "keep", True),
    ("R2 few users, R5 fails", {"last": FEW, "levels": accepted_levels(0.9)}, "block", False),
    ("R2 few users, R4 fails", {"last": reference("last", 0.06, 199, harm={"hot": 0.1}),
     "config": GateConfig(slice_users=20, min_nonzero=20)}, "block", False),
    ("R2 few users, R4 no column", {"last": replace(FEW, tonight=extra_slice(FEW.tonight))},
     "block", False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "kind", "recorded"), NO_RECORD)
def test_a_block_is_recorded_unless_a_rule_on_damage_fails(
    name: str, changes: dict[str, Any], kind: str, recorded: bool
) -> None:
    config, levels = changes.pop("config", CONFIG), changes.pop("levels", ())
    past = replace(past_of(), levels=levels)
    decision = decide(evidence(ALS, judged("new", seed=2), past=past, **changes), config)
    assert decision.kind == kind, name
    # Days that are not recorded leave no hole.
    assert [s.use for s in decision.e_processes if s.recipe == "new"] == ["recorded"] * recorded
    few = name.startswith("R2 few users")
    assert decision.waiting == few
    assert build_gate_history([decision]).underpowered_nights == few


def ratios(count: int, accepted: bool = True) -> tuple[BlockLevel, ...]:
    """Blocks of the champion with a baseline ratio that alternates."""
    return tuple(
        BlockLevel(
            "hash-als", block(week), 1200, 0.23, 0.0, 1.2 + 0.4 * (week % 4 > 1), 0.0, accepted
        )
        for week in range(1, count + 1)
    )


ALL = (*BASELINES, "als")
ANCHORS: list[tuple[str, dict[str, Any], str, bool, bool]] = [
    # Night, its data, outcome, whether it sets an anchor, whether the bound is wider than 10 %.
    ("never set", {"anchors": ()}, "reported", True, False),
    ("never set, too few users tonight", {"anchors": (), "users": 199}, "reported", False, False),
    ("never set, baselines without hits", {"anchors": (), "dead": BASELINES}, "reported", False,
     False),
    ("set, baselines without hits", {"dead": BASELINES}, "pass", False, False),
    ("set, no recipe with hits", {"dead": ALL}, "fail", False, False),
    ("set, fallen ratio", {"anchors": (Anchor("hash-als", 2.0, 3),)}, "fail", False, False),
    ("set, no accepted block", {}, "pass", False, False),
    ("seven accepted blocks", {"levels": ratios(7)}, "pass", False, False),
    ("eight accepted blocks", {"levels": ratios(8)}, "pass", False, True),
    ("eight blocks of runs that were not accepted", {"levels": ratios(8, False)}, "pass", False,
     False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "there", "outcome", "sets", "wider"), ANCHORS)
def test_the_anchor_without_a_figure(
    name: str, there: dict[str, Any], outcome: str, sets: bool, wider: bool
) -> None:
    n = there.get("users", 1200)
    recipes = dead(*there.get("dead", ())) if n == 1200 else (*ladder(n), judged("als", n=n))
    als = next(r for r in recipes if r.name == "als")
    past = replace(past_of(anchors=there.get("anchors", (ANCHOR,))), levels=there.get("levels", ()))
    night = replace(evidence(als), judged=recipes, past=past, last=reference("last", 0.01))
    refresh = judge_refresh(night, als, CONFIG)
    rule = next(r for r in refresh.rules if r.name == "refresh.anchor")
    assert (rule.outcome, refresh.anchor is not None) == (outcome, sets), name
    assert (rule.bound is not None and rule.bound < -0.1 - 1e-6) == wider


def test_an_anchor_that_was_never_set_is_set_tonight_and_compared_later() -> None:
    first = decide(refreshed(anchors=()), CONFIG)
    assert first.anchor is not None and first.anchor.ratio > 1
    later: Decision = decide(refreshed(anchors=(first.anchor,)), CONFIG)
    assert {r.outcome for r in later.rules if r.name == "refresh.anchor"} == {"pass"}


def test_a_block_without_hits_sets_no_anchor() -> None:
    level_ = replace(accepted_levels(count=1)[0], ratio=1.4, se=0.1)
    assert Anchor.over((replace(level_, ratio=0.0, se=0.0),)) is None
    assert Anchor.over((replace(level_, ratio=None, se=None),)) is None
    assert Anchor.over((level_,)) is not None
