"""Drift that a night has reported, and its reports after the night kept the champion."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from pipeline.base import Interval
from pipeline.monitoring.rates import Claims
from pipeline.steps.feedback.drift import drift
from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import AttributionSummary, DriftSummary, append_entry
from pipeline.workspace.workspace import Workspace
from tests.worlds import NIGHTS, copy_of, land, purchases

DAY = timedelta(days=1)
CHANGED = NIGHTS[1] - 3 * DAY


@pytest.fixture(scope="module")
def moved_on(one_night, tmp_path_factory):
    """A workspace whose users want other items in the last three days before its second night."""
    home = copy_of(one_night[0], tmp_path_factory.mktemp("told") / "home")
    events = purchases()
    other = pl.format("i{}", 159 - pl.col("item_id").str.slice(1).cast(pl.Int64))
    late = pl.col("timestamp") >= f"{CHANGED:%FT%TZ}"
    land(home, events.with_columns(pl.when(late).then(other).otherwise("item_id").alias("item_id")),
         NIGHTS[1], NIGHTS[0])  # fmt: skip
    ws = Workspace.open(home)
    feedback(ws, NIGHTS[1])
    return ws


def decided(ws: Workspace, as_of, kind, **more):
    """Append a decision: that of the first run, but for this."""
    last = LedgerHistory.of(ws.ledger).last_decision()
    own = {"key": f"decision:{as_of:%F} {kind}", "as_of": as_of, "kind": kind}
    append_entry(ws.ledger, last.model_copy(update=own | more))


@pytest.mark.parametrize("kind", ["keep", "switch"])
def test_a_change_is_reported_by_one_night_whatever_it_decides(moved_on, tmp_path, kind):
    ws = Workspace.open(copy_of(moved_on.home, tmp_path / "home"))
    report = drift(ws, NIGHTS[1])
    since = {x.name: x.since for x in report.signals if x.since is not None}
    assert report.alarms and "taste.popularity" in since
    decided(ws, NIGHTS[1], kind, drift=DriftSummary(status="drift", sentence="", since=since))

    again = drift(ws, NIGHTS[1] + 2 * timedelta(hours=1))

    assert again.alarms == ()
    verdicts = {x.name: x.status for x in again.signals}
    assert {verdicts[name] for name in since} == {"too_short"}


def test_live_lists_that_stay_worse_are_reported_again_after_a_night_that_kept(moved_on, tmp_path):
    ws = Workspace.open(copy_of(moved_on.home, tmp_path / "home"))
    good = AttributionSummary(
        span=Interval(CHANGED, NIGHTS[1]),
        events=0,
        joined=0,
        late=0,
        claims=Claims(0, 0, 0),
        users=100,
        exposures=2000,
        response_rate=0.9,
        response_rate_se=0.01,
    )
    for back in range(5, 0, -1):
        decided(ws, CHANGED - back * DAY, "keep", attribution=good)
    first = drift(ws, NIGHTS[1])
    [alarm] = [x for x in first.alarms if x.name == "quality.responses"]
    noticed = DriftSummary(status="drift", sentence="", since={alarm.name: alarm.since})
    decided(ws, NIGHTS[1], "keep", drift=noticed, attribution=None)

    again = drift(ws, NIGHTS[1] + timedelta(hours=1))

    assert "quality.responses" in {x.name for x in again.alarms}
