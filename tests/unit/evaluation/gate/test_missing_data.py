"""Missing data: what each rule of a switch and of a refresh does without a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate import (
    Anchor,
    Decision,
    EvaluatedRecipe,
    Evidence,
    Reference,
    build_gate_history,
    decide,
)
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
