"""Upkeep of a shop that has nights behind it: what anybody may still ask for is still there."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import columns as c
from pipeline.steps.compare import compare
from pipeline.steps.feedback import feedback
from pipeline.steps.gc import gc
from pipeline.steps.reproduce import reproduce
from pipeline.steps.retrain import nightly
from pipeline.steps.run import Workspace
from pipeline.steps.show import history, lists
from tests.worlds import CONFIG, NIGHTS, catalogue, land, purchases

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
DATA = ("events", "items", "users", "batches")
WEEKS_LATER, MONTHS_LATER = NOW + timedelta(days=20), NOW + timedelta(days=120)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, workspace):
    """Two nights, and the files of the third one; upkeep has been there once before."""
    home = tmp_path_factory.mktemp("gc") / "home"
    ws = workspace(home, CONFIG)
    bought = purchases(users=260, items=80, days=100)
    catalogue(home, items=80)
    since = None
    for number, night in enumerate(NIGHTS):
        for until in (night - timedelta(days=3), night):
            land(home, bought, until, since)
            feedback(ws, until)
            since = until
        if number < 2:
            nightly(ws, night)
            gc(ws, NOW)
    return home


def copied(shop, folder):
    shutil.copytree(shop, folder / "home")
    return Workspace.open(folder / "home")


def pinned(ws):
    """What each night sees of what it has pinned."""
    return {
        (run.run_id, table): ws.lake.read(table, version=version).hash_rows().sort().to_list()
        for run in ws.runs.starting_with("")
        for table, version in run.json("snapshot", "snapshot")["versions"].items()
        if table in DATA and version is not None
    }


def arrays(ws):
    return sorted(p.relative_to(ws.home).as_posix() for p in (ws.home / "runs").rglob("*.npz"))


def test_versions_are_made_again_and_compared_as_before(shop, tmp_path):
    ws = copied(shop, tmp_path)
    seen, page = pinned(ws), compare(ws, 1, 2).to_dict()
    result = gc(ws, WEEKS_LATER)
    assert result.taken["scorers and windows"].files > 4
    assert {kept.table for kept in result.tables if kept.cleared.files} >= {"batches"}
    assert sum(name.endswith("scorer.npz") for name in arrays(ws)) == 2 + 2
    ws = Workspace.open(ws.home)
    assert pinned(ws) == seen
    assert compare(ws, 1, 2).to_dict() == page
    assert [reproduce(ws, number).outcome for number in (1, 2)] == ["same", "same"]


def test_the_next_night_ends_as_it_would_have(shop, tmp_path):
    ended = []
    for name, kept in (("kept", True), ("left", False)):
        ws = copied(shop, tmp_path / name)
        if kept:
            gc(ws, WEEKS_LATER)
            ws = Workspace.open(ws.home)
        night = nightly(ws, NIGHTS[2])
        decisions = [(e["as_of"], e["sentence"]) for e in history(ws) if e["type"] == "decision"]
        shown = lists(ws, None).drop(c.PUBLICATION_ID)
        ended.append((night.decision, night.sentence, night.metrics, decisions, shown.rows()))
    assert ended[0] == ended[1]
    assert "against the scorer of" in ended[0][1]


def test_a_night_whose_data_are_gone_says_so_and_the_last_two_stay(shop, tmp_path):
    ws = copied(shop, tmp_path)
    nightly(ws, NIGHTS[2])
    gc(ws, MONTHS_LATER)
    ws = Workspace.open(ws.home)
    found = reproduce(ws, 1)
    assert (found.outcome, found.exit_code) == ("gone", 6)
    [why] = found.causes
    assert why.kind == "snapshot"
    assert "cannot be read: it was vacuumed" in why.sentence
    assert [reproduce(ws, number).outcome for number in (2, 3)] == ["same", "same"]
    assert lists(ws, None).height > 1000
    assert nightly(ws, NIGHTS[2]).status == "already_done"
