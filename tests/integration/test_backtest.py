"""Replays of past days: each policy in a sandbox, resumable, without a change of live lists."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.monitoring.policy import Cause
from pipeline.steps.experiments.backtest import days
from pipeline.steps.experiments.backtest.backtest import backtest, parse_every, parse_schedules
from pipeline.steps.experiments.backtest.days import RetrainSchedule
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.config import Composed
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import Workspace
from tests import worlds
from tests.raising import raises
from tests.worlds import copy_of

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
BEGIN, END = worlds.NIGHTS[0], worlds.NIGHTS[0] + 3 * DAY


@pytest.fixture(scope="module")
def shop(tmp_path_factory, workspace):
    """A workspace with its whole history, and a night that is live."""
    ws = workspace(tmp_path_factory.mktemp("shop"), worlds.CONFIG)
    worlds.land(ws.home, worlds.purchases(), worlds.NIGHTS[2])
    worlds.catalogue(ws.home)
    feedback(ws, worlds.NIGHTS[2] + DAY)
    nightly(ws, BEGIN)
    return ws


@pytest.fixture(scope="module")
def result(shop):
    return backtest(shop, BEGIN, END, every=DAY, schedules=tuple(RetrainSchedule))


KILLED = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
import structlog
from pipeline.steps.experiments.backtest.backtest import backtest
from pipeline.steps.experiments.backtest.days import RetrainSchedule
from pipeline.workspace.workspace import Workspace
from tests.integration.test_backtest import BEGIN, DAY, END

def stop(logger, name, event):
    if (event["event"], event.get("task")) == ("task_started", sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    raise structlog.DropEvent

structlog.configure(processors=[stop])
ws = Workspace.open(Path(sys.argv[1]))
backtest(ws, BEGIN, END, every=DAY, schedules=[RetrainSchedule.ADAPTIVE])
"""


def decided(day):
    return (day.as_of, day.retrained, day.decision, day.sentence, day.ndcg)


def live_state(ws):
    """The live state and the decisions."""
    return (
        ws.lake.read("publications").sort(c.GENERATION).to_dicts(),
        [dict(entry) for entry in ws.ledger.entries()],
        {table: ws.lake.version(table) for table in ("events", "recommendations", "batches")},
        sorted(run.run_id for run in ws.runs.starting_with("")),
    )


def test_every_policy_begins_with_a_night_and_goes_on_as_it_is_called(result):
    nights = {name: [day.retrained for day in days] for name, days in result.days.items()}
    assert nights["nightly"] == [True] * 4
    assert nights["weekly"] == nights["never"] == [True, False, False, False]
    assert nights["adaptive"][0]
    assert all(day.reason for days in result.days.values() for day in days)
    assert result.days["nightly"][0].decision == "first"


def test_days_are_scored_by_the_live_lists_with_and_without_folding_in(result):
    never = result.days["never"]
    assert never[0].ndcg is None
    assert all(day.user_days > 0 and day.ndcg > 0 for day in never[1:])
    assert never[1].ndcg == never[1].base_ndcg  # nothing was folded in before
    assert any(day.ndcg != day.base_ndcg for day in never[2:])
    # Until the second as-of all have lived the same.
    assert {days[1].ndcg for days in result.days.values()} == {never[1].ndcg}


def test_the_table_has_nights_seconds_and_shares(result):
    rows = {row["schedule"]: row for row in result.plain()["rows"]}
    assert rows["nightly"]["nights"] == 3
    assert rows["nightly"]["of_nightly"] == 1.0
    assert rows["never"]["training_seconds"] == 0
    assert rows["nightly"]["training_seconds"] > 0
    assert "of nightly" in result.text()
    json.dumps(result.plain())
    assert (result.folder / "backtest.svg").stat().st_size > 0


def test_nothing_live_moves(shop):
    before = live_state(shop)
    backtest(shop, BEGIN, BEGIN + DAY, every=DAY, schedules=(RetrainSchedule.NEVER,))
    assert live_state(shop) == before


def test_the_night_of_a_sandbox_decides_as_the_live_one_did(shop, result):
    live = shop.runs.starting_with("")[0]
    sentence_live = live.read(DecisionFile).root.sentence
    assert result.days["nightly"][0].sentence == sentence_live


def test_stopped_anywhere_it_goes_on_with_the_same_decisions(shop, result, monkeypatch):
    span = {"every": DAY, "schedules": (RetrainSchedule.ADAPTIVE, RetrainSchedule.NIGHTLY)}
    end = BEGIN + 2 * DAY
    for name in ("nightly", "score_span", "foldin"):
        real, left = getattr(days, name), [2]

        def dies(*args, real=real, left=left, **more):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(*args, **more)

        monkeypatch.setattr(days, name, dies)
        with contextlib.suppress(KeyboardInterrupt):
            backtest(shop, BEGIN, end, **span)
        monkeypatch.setattr(days, name, real)
    again = backtest(shop, BEGIN, end, **span)
    for policy in ("adaptive", "nightly"):
        undisturbed = [decided(day) for day in result.days[policy][:3]]
        assert [decided(day) for day in again.days[policy]] == undisturbed


@pytest.mark.parametrize("at", ["gate", "foldin"])
def test_killed_it_goes_on_with_the_same_decisions(shop, result, tmp_path, at):
    ws = Workspace.open(copy_of(shop.home, tmp_path / "copy"))
    shutil.rmtree(ws.home / "backtests", ignore_errors=True)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(ws.home), at],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = backtest(ws, BEGIN, END, every=DAY, schedules=[RetrainSchedule.ADAPTIVE])
    days = result.days["adaptive"]
    assert [decided(day) for day in again.days["adaptive"]] == [decided(day) for day in days]


def test_a_second_call_trains_nothing_and_reports_that_its_days_are_kept(shop, result, monkeypatch):
    monkeypatch.setattr(days, "nightly", None)
    messages = []
    again = backtest(
        shop, BEGIN, END, every=DAY, schedules=tuple(RetrainSchedule), progress=messages.append
    )
    assert again.plain() == result.plain()
    assert messages == [f"resuming the backtest in {result.folder}"]


def test_a_planted_shift_hurts_the_policy_that_never_retrains(shop, result):
    shifted = backtest(
        shop,
        BEGIN,
        END,
        every=DAY,
        schedules=(RetrainSchedule.NEVER,),
        plant=BEGIN + timedelta(hours=1),
    )
    (row,) = shifted.plain()["rows"]
    unshifted = {row["schedule"]: row for row in result.plain()["rows"]}["never"]
    assert row["ndcg"] < 0.9 * unshifted["ndcg"]
    assert row["reaction_days"] is None


def test_a_backtest_runs_through_a_gap_in_the_data(shop):
    end = worlds.NIGHTS[2] + 10 * DAY
    result = backtest(
        shop, worlds.NIGHTS[2], end, every=5 * DAY, schedules=(RetrainSchedule.NIGHTLY,)
    )
    last = result.days["nightly"][-1]
    assert last.decision == "nothing_to_do"
    assert last.ndcg is None


def gapped(workspace, home, since, until):
    """A workspace whose history lacks the days of a span."""
    ws = workspace(home, worlds.CONFIG)
    form = "%Y-%m-%dT%H:%M:%SZ"
    lost = pl.col("timestamp").is_between(
        pl.lit(since.strftime(form)), pl.lit(until.strftime(form))
    )
    worlds.land(ws.home, worlds.purchases().filter(~lost), worlds.NIGHTS[2])
    worlds.catalogue(ws.home)
    feedback(ws, worlds.NIGHTS[2] + DAY)
    return ws


def test_without_a_publication_the_live_lists_learn_new_events(workspace, tmp_path):
    ws = gapped(workspace, tmp_path / "home", BEGIN + DAY, BEGIN + 12 * DAY)
    asked = (RetrainSchedule.NIGHTLY, RetrainSchedule.NEVER)
    result = backtest(ws, BEGIN, BEGIN + 18 * DAY, every=3 * DAY, schedules=asked)
    nightly, never = result.days["nightly"], result.days["never"]
    ended = [day.decision for day in nightly]
    assert ended == ["first", *["block"] * 2, *["nothing_to_do"] * 2, "refresh", "block"]
    assert [day.promoted for day in nightly] == [end in ("first", "refresh") for end in ended]
    assert all((day.foldin_seconds > 0) is not day.promoted for day in nightly)
    # Until the night that refreshes, both have the same lists.
    same = [(day.user_days, day.ndcg, day.base_ndcg) for day in nightly[:6]]
    assert same == [(day.user_days, day.ndcg, day.base_ndcg) for day in never[:6]]
    assert nightly[5].ndcg != nightly[5].base_ndcg
    (row,) = [row for row in result.plain()["rows"] if row["schedule"] == "nightly"]
    assert (row["nights"], row["promoted"]) == (6, 1)


def test_a_gap_before_the_first_as_of_is_waited_for(workspace, tmp_path):
    ws = gapped(workspace, tmp_path / "home", BEGIN - 9 * DAY, BEGIN + DAY)
    result = backtest(ws, BEGIN, BEGIN + 5 * DAY, every=DAY, schedules=tuple(RetrainSchedule))
    for past in result.days.values():
        ended = [day.decision for day in past[:4]]
        assert ended == ["nothing_to_do", "nothing_to_do", "block", "first"]
        assert {day.reason for day in past[:4]} == {"no lists are live yet"}
        assert all(day.ndcg is None for day in past[:4])
        assert all(day.ndcg > 0 for day in past[4:])
    rows = {row["schedule"]: row for row in result.plain()["rows"]}
    assert rows["never"]["training_seconds"] == rows["never"]["nights"] == 0
    assert rows["nightly"]["nights"] == 2


def test_a_policy_names_the_cause_of_a_night(shop):
    config = shop.config.policy.model_copy(update={"min_new_share": 1e-4, "min_hours": 0})
    eager = Workspace(shop.home, Composed(shop.config.model_copy(update={"policy": config}), {}))
    result = backtest(eager, BEGIN, BEGIN + DAY, every=DAY, schedules=(RetrainSchedule.ADAPTIVE,))
    first, second = result.days["adaptive"]
    assert (first.cause, second.cause) == (None, Cause.EVENTS)
    assert second.retrained and second.promoted


def test_wrong_spans_and_names_are_refused_in_words(shop):
    with raises("backtest.span_too_short"):
        backtest(shop, BEGIN, BEGIN, every=DAY, schedules=tuple(RetrainSchedule))
    with raises("backtest.shift_outside"):
        backtest(shop, BEGIN, END, every=DAY, schedules=tuple(RetrainSchedule), plant=END + DAY)
    with raises("data.no_event"):
        early = worlds.START - 30 * DAY
        backtest(shop, early, early + DAY, every=DAY, schedules=(RetrainSchedule.NEVER,))
    for words in ("1w", "0d", "29d", "day", "\u0661d"):
        with raises("backtest.invalid_step"):
            parse_every(words)
    assert parse_every("12h") == timedelta(hours=12)
    with raises("backtest.unknown_schedule"):
        parse_schedules("nightly,daily")
    with raises("backtest.unknown_schedule"):
        parse_schedules(" , ")
    assert parse_schedules("never, nightly,never") == (
        RetrainSchedule.NEVER,
        RetrainSchedule.NIGHTLY,
    )
