"""Maintenance after several nights: all data that a command may still read are kept."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import columns as c
from pipeline.base import plain
from pipeline.report.night import NightPage
from pipeline.steps.experiments.comparison.compare import compare
from pipeline.steps.experiments.reproduction.reproduce import reproduce
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.maintenance.gc import gc
from pipeline.steps.nightly.evaluate import evaluate
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.gate import gate
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.nightly.train import train
from pipeline.steps.nightly.validate import validate
from pipeline.stores.lake import Lake
from pipeline.workspace.artifacts import SnapshotFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import NIGHTS, copy_of, land, purchases

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
DATA = ("events", "items", "users", "batches")
A_WEEK_LATER, WEEKS_LATER, MONTHS_LATER = (NOW + timedelta(days=d) for d in (8, 20, 120))


@pytest.fixture(scope="module")
def shop(tmp_path_factory, two_nights):
    """Two nights, upkeep, then the files of the third one, a bad row among them."""
    home = copy_of(two_nights[0], tmp_path_factory.mktemp("gc") / "home")
    ws = Workspace.open(home)
    gc(ws, NOW)
    bad = home / "landing" / "events" / "bad.csv"
    bad.write_text("event_id,user_id,item_id,value,timestamp\nx,u1,i1,much,2024-01-01T00:00:00Z\n")
    os.utime(bad, (0, 0))
    since, bought = NIGHTS[1], purchases()
    for until in (NIGHTS[2] - timedelta(days=3), NIGHTS[2]):
        land(home, bought, until, since)
        feedback(ws, until)
        since = until
    return home


def copied(shop, folder):
    return Workspace.open(copy_of(shop, folder / "home"))


def pinned(ws):
    """Row hashes of each table that a night has pinned, by run and table."""
    return {
        (run.run_id, table): ws.lake.read(table, version=version).hash_rows().sort().to_list()
        for run in ws.runs.starting_with("")
        for table, version in run.read(SnapshotFile).versions.items()
        if table in DATA and version is not None
    }


def arrays(ws):
    return sorted(p.relative_to(ws.home).as_posix() for p in (ws.home / "runs").rglob("*.npz"))


def test_versions_are_made_again_and_compared_as_before(shop, tmp_path):
    ws = copied(shop, tmp_path)
    seen, page = pinned(ws), compare(ws, 1, 2).plain()
    result = gc(ws, WEEKS_LATER)
    assert result.taken["scorers and windows"].files > 4
    assert {kept.table for kept in result.tables if kept.cleared.files} >= {"batches"}
    assert sum(name.endswith("scorer.npz") for name in arrays(ws)) == 2 + 2
    ws = Workspace.open(ws.home)
    assert pinned(ws) == seen
    assert compare(ws, 1, 2).plain() == page
    assert [reproduce(ws, number).outcome for number in (1, 2)] == ["same", "same"]


def test_the_next_night_ends_as_it_would_have(shop, tmp_path):
    ended = []
    for name, kept in (("kept", True), ("left", False)):
        ws = copied(shop, tmp_path / name)
        if kept:
            gc(ws, WEEKS_LATER)
            ws = Workspace.open(ws.home)
        night = nightly(ws, NIGHTS[2])
        decisions = [(e.as_of, e.sentence) for e in LedgerHistory.of(ws.ledger).decisions]
        shown = lists(ws, None).drop(c.PUBLICATION_ID)
        ended.append((night.decision, night.sentence, night.metrics, decisions, shown.rows()))
    assert ended[0] == ended[1]
    assert "against the scorer of" in ended[0][1]


def test_while_a_night_chooses_its_pins_nothing_is_removed(shop, tmp_path, monkeypatch):
    ws, verify, left = copied(shop, tmp_path), Lake.verify, []

    def meanwhile(lake, table, version=None):
        monkeypatch.undo()
        left.append(gc(Workspace.open(ws.home), A_WEEK_LATER).left)
        verify(lake, table, version)

    monkeypatch.setattr(Lake, "verify", meanwhile)
    started = snapshot(ws, NIGHTS[2])
    assert f"the lock pins is held by process {os.getpid()}" in left[0]["events"]
    assert len(left) == 1
    gc(ws, A_WEEK_LATER)
    validate(ws, started.run_id)
    features(ws, started.run_id)


def test_a_night_that_has_decided_goes_on_when_quarantine_is_empty(shop, tmp_path):
    ws = copied(shop, tmp_path)
    undisturbed = copied(shop, tmp_path / "calm")
    started = snapshot(ws, NIGHTS[2])
    validate(ws, started.run_id)
    features(ws, started.run_id)
    for recipe in started.recipes:
        train(ws, started.run_id, recipe)
    evaluate(ws, started.run_id)
    gate(ws, started.run_id)
    assert ws.lake.read("quarantine").height == 1
    gc(ws, WEEKS_LATER)
    ws = Workspace.open(ws.home)
    with raises("lake.version_vacuumed"):
        ws.lake.read("quarantine", version=0)
    ended, expected = nightly(ws, NIGHTS[2]), nightly(undisturbed, NIGHTS[2])
    assert plain(ended) | {"cost": 0} == plain(expected) | {"cost": 0}
    page, other = (x.run(ended.run_id).read(NightPage, "cold_check") for x in (ws, undisturbed))
    assert page.quarantined == other.quarantined
    assert page.quarantine_reasons == other.quarantine_reasons
    assert page.quarantined == 1


def test_a_night_whose_data_are_gone_is_reported_and_the_last_two_stay(shop, tmp_path):
    ws = copied(shop, tmp_path)
    nightly(ws, NIGHTS[2])
    gc(ws, MONTHS_LATER)
    ws = Workspace.open(ws.home)
    reproduction = reproduce(ws, 1)
    assert (reproduction.outcome, reproduction.exit_code) == ("gone", 6)
    [why] = reproduction.causes
    assert why.kind == "snapshot"
    assert "cannot be read" in why.sentence
    assert [reproduce(ws, number).outcome for number in (2, 3)] == ["same", "same"]
    assert lists(ws, None).height > 1000
    assert nightly(ws, NIGHTS[2]).status == "already_done"
