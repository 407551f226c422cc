"""Backdated runs: what they see of files that were ingested after their as-of."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import AsOf, Interval
from pipeline.report.markup import prose
from pipeline.report.night import NightPage
from pipeline.serving.foldin import new_since
from pipeline.steps.experiments.backtest import backtest
from pipeline.steps.experiments.backtest.sandbox import BacktestSandbox
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.maintenance.gc import gc
from pipeline.steps.nightly.known import catalogue_at
from pipeline.steps.nightly.night_record import night_record
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.reporting.page_files import PAGE
from pipeline.stores.batches import Batches
from pipeline.stores.runs import Runs
from pipeline.workspace.experiment_artifacts import BacktestPlanFile
from pipeline.workspace.night import last_file, open_night
from pipeline.workspace.run_files import read_history
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.worlds import CONFIG, START, copy_of, land, purchases

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
AT = AsOf(START + 14 * DAY)
LATER = AsOf(AT + 3 * DAY)
CHANGED = "i3"


def prices(home, *, changed):
    path = home / "landing" / "items" / f"items-{changed}.csv"
    names = [f"i{n}" for n in range(160)]
    price = [changed if name == CHANGED else "1.0" for name in names]
    pl.DataFrame({"item_id": names, "price": price}).write_csv(path)
    os.utime(path, (START.timestamp(), START.timestamp()))


@pytest.fixture(scope="module")
def weekly(workspace, tmp_path_factory):
    """A workspace that got its events week by week; late ones and new prices after the as-of."""
    ws = workspace(tmp_path_factory.mktemp("weekly") / "home", CONFIG)
    prices(ws.home, changed="1.0")
    events = purchases()
    for week in range(2):
        land(ws.home, events, START + 7 * (week + 1) * DAY, START + 7 * week * DAY)
        ingest_landed(ws, AsOf(START + 7 * (week + 1) * DAY))
    late = events.head(50).with_columns(pl.format("late-{}", "event_id").alias("event_id"))
    land(ws.home, late, LATER)
    prices(ws.home, changed="9.0")
    ingest_landed(ws, LATER)
    return ws


def started(ws, known_by, monkeypatch, at=AT):
    monkeypatch.setenv("NIGHTJAR__SNAPSHOT__KNOWN_BY", known_by)
    again = Workspace.open(ws.home)
    return open_night(again, snapshot(again, at).run_id)


@pytest.fixture
def copy(weekly, tmp_path):
    return Workspace.open(copy_of(weekly.home, tmp_path / "home"))


def late_events(night):
    return night.events(c.EVENT_ID)[c.EVENT_ID].str.starts_with("late-").sum()


def price(night):
    items = night.table("items", columns=[c.ITEM_ID, c.PRICE])
    return items.filter(items[c.ITEM_ID] == CHANGED)[c.PRICE].item()


def test_late_rows_and_later_columns_are_not_seen_by_as_of(copy, monkeypatch):
    now = started(copy, "now", monkeypatch)
    assert (now.snapshot.known.by, late_events(now), price(now)) == ("now", 50, 9.0)
    then = started(copy, "as_of", monkeypatch)
    assert (then.snapshot.known.by, late_events(then), price(then)) == ("as_of", 0, 1.0)
    assert then.run_id != now.run_id
    assert started(copy, "as_of", monkeypatch).run_id == then.run_id


def test_files_that_a_run_did_not_see_are_new_to_the_pass_after_it(copy, monkeypatch):
    then, now = (started(copy, by, monkeypatch) for by in ("as_of", "now"))
    arrived = Batches(copy.lake).arrived_since(last_file(copy, then.snapshot))
    assert len(arrived) == 1
    assert Batches(copy.lake).arrived_since(last_file(copy, now.snapshot)) == {}
    new = copy.lake.read("events", where=new_since(arrived, AT))
    assert new[c.EVENT_ID].str.starts_with("late-").sum() == 50


def test_a_run_sees_by_default_what_the_lake_holds_now(copy):
    night = open_night(copy, snapshot(copy, AT).run_id)
    assert (night.snapshot.known.by, late_events(night)) == ("now", 50)


def test_a_history_that_was_loaded_in_bulk_is_known_now(workspace, tmp_path, monkeypatch):
    ws, at = workspace(tmp_path / "home", CONFIG), AsOf(START + 30 * DAY)
    land(ws.home, purchases(), at)
    ingest_landed(ws, at)
    night = started(ws, "as_of", monkeypatch, at)
    assert night.snapshot.known.by == "now"
    assert "bulk" in night.snapshot.known.reason


@pytest.mark.parametrize("removed", ["file", "version"])
def test_a_version_that_gc_has_removed_is_read_as_it_is_now(copy, removed, monkeypatch):
    version = catalogue_at(copy, AT)["items"]
    if removed == "file":
        for file in copy.lake.files("items", version) - copy.lake.files("items"):
            (copy.lake.root / "items" / file).unlink()
    else:
        today = datetime.now(UTC)
        for at in (today, today + 8 * DAY):
            gc(copy, AsOf(at))
    night = started(copy, "as_of", monkeypatch)
    assert (night.snapshot.known.by, price(night), late_events(night)) == ("now", 9.0, 50)
    assert f"version {version}" in night.snapshot.known.reason


def test_a_table_of_which_no_file_had_arrived_is_empty(copy):
    early = catalogue_at(copy, AsOf(START))
    assert early == {"items": None, "users": None}
    assert catalogue_at(copy, LATER)["items"] == copy.lake.version("items")


def test_a_backtest_delivers_late_rows_and_new_columns_when_they_arrived(
    copy, tmp_path, monkeypatch
):
    course = backtest._Course(AT, AsOf(AT + 4 * DAY), DAY, None)

    def boxed(known_by):
        if known_by is not None:
            monkeypatch.setenv("NIGHTJAR__SNAPSHOT__KNOWN_BY", known_by)
        ws = Workspace.open(copy.home)
        run = Runs(tmp_path / str(known_by)).open(BacktestPlanFile.STEP)
        plan, seen = backtest._plan(ws, run, course), []
        box = BacktestSandbox(ws, plan, tmp_path / str(known_by) / "box")
        for begin, end in zip([START - DAY, *course.instants], course.instants, strict=False):
            box.deliver(Interval(begin, end))
            night = open_night(box.ws, snapshot(box.ws, end).run_id)
            seen.append((late_events(night), price(night)))
        assert course.folder(ws)
        return plan.known.by, seen

    assert boxed(None) == ("as_of", [(0, 1.0)] * 3 + [(50, 9.0)] * 2)
    assert boxed("now") == ("now", [(50, 9.0)] * 5)


def test_the_report_names_what_a_run_saw_and_why(copy, monkeypatch):
    monkeypatch.setenv("NIGHTJAR__SNAPSHOT__KNOWN_BY", "as_of")
    ws = Workspace.open(copy.home)
    run_id, _ = decide(ws, AT)
    night = open_night(ws, run_id)
    known = night.snapshot.known
    assert (known.by, night.run.read(NightPage).known) == ("as_of", known)
    assert f"<dd>{prose(known.text)}</dd>" in (night.run.folder / PAGE).read_text()
    record = night_record(night, version=None, taken=frozenset())
    assert record.tags["nightjar.known_by"] == known.text
    assert len(read_history(night.run, "full").item) < ws.lake.read("events").height - 40
