"""Killed at any step and run again, an ingest leaves the same lake as an undisturbed run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import Died, by_exception, dying_at, parsed_here
from tests.ingesting import AT, land, orders, state, workspace

ROOT = Path(__file__).resolve().parents[2]


def prepare(home: Path) -> Workspace:
    """Make a workspace with one ingested file and three landed ones: events, and two of items."""
    ws = workspace(home)
    land(ws, "orders-0.csv", orders("1,anna,bread,1,2024-03-01 10:00:00"))
    feedback(ws, AT)
    land(
        ws,
        "orders-1.csv",
        orders(
            "1,anna,bread,1,2024-03-01 10:00:00",
            ",anna,milk,2,2024-03-02 10:00:00",
            ",anna,milk,2,2024-03-02 10:00:00",
            "3,bert,salt,-1,2024-03-03 10:00:00",
            "4,bert,salt,x,2024-03-03 10:00:00",
            "5,,salt,1,2024-03-03 10:00:00",
            "too,few",
        ),
    )
    land(ws, "items.csv", "item_id,title,price\nbread,Bread,1\nmilk,Milk,\n,?,1\n", "items")
    land(ws, "users.csv", "user_id,segment\nanna,a\ncarl,b\n", "users")
    return ws


def outcome(ws: Workspace) -> dict[str, object]:
    versions = {
        t: ws.lake.version(t) for t in ("events", "items", "users", "quarantine", "batches")
    }
    files = {
        folder: sorted(p.name for p in (ws.home / folder).rglob("*") if p.is_file())
        for folder in ("landing", "archive", "scratch", "rejected", "lake/_spool")
    }
    ws.lake.check_tail()
    return {**state(ws), "versions": versions, "files": files}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "call", parsed_here)
        return prepare(tmp_path_factory.mktemp("started") / "ws").home


@pytest.fixture(scope="module")
def undisturbed(started, tmp_path_factory):
    home = tmp_path_factory.mktemp("calm") / "ws"
    shutil.copytree(started, home)
    ws = Workspace.open(home)
    with pytest.MonkeyPatch.context() as patch, dying_at(-1, by_exception) as passed:
        patch.setattr(Child, "call", parsed_here)
        result = feedback(ws, AT)
    assert not result.failed
    return outcome(ws), list(passed)


def test_an_undisturbed_pass_is_complete(undisturbed):
    result, passed = undisturbed
    assert len(result["events"]) == 4
    assert len(result["quarantine"]) == 3
    assert len(result["items"]) == 2
    assert len(result["users"]) == 2
    assert [row for row in result["batches"] if "void" in row] == []
    assert len(result["files"]["archive"]) == 4
    assert result["files"]["landing"] == result["files"]["lake/_spool"] == []
    assert len(passed) > 40


def pick(passed: list[str], place: str) -> list[int]:
    """Each kind of half step in its first place, or in its last one where that is another."""
    first = {passed.index(name) for name in passed}
    last = {len(passed) - 1 - passed[::-1].index(name) for name in passed}
    return sorted(first if place == "first" else last - first)


@pytest.mark.parametrize("place", ["first", pytest.param("last", marks=pytest.mark.slow)])
def test_an_exception_at_any_kind_of_step_costs_nothing(
    started, undisturbed, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(Child, "call", parsed_here)
    expected, passed = undisturbed
    points = pick(passed, place)
    assert len(points) >= 2 * 4
    for point in points:
        home = tmp_path / str(point)
        shutil.copytree(started, home)
        ws = Workspace.open(home)
        with pytest.raises(Died), dying_at(point, by_exception):
            feedback(ws, AT)
        feedback(ws, AT)
        assert outcome(ws) == expected, passed[point]


def test_dying_twice_costs_nothing(started, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    expected, passed = undisturbed
    shutil.copytree(started, tmp_path / "ws")
    ws = Workspace.open(tmp_path / "ws")
    middle = next(i for i, name in enumerate(passed) if name == "after _spool_frames") + 2
    for point in (middle, 0, 1, 2):
        with pytest.raises(Died), dying_at(point, by_exception):
            feedback(ws, AT)
    feedback(ws, AT)
    assert outcome(ws) == expected


@pytest.mark.slow
def test_a_killed_process_costs_nothing(started, undisturbed, tmp_path):
    expected, passed = undisturbed
    for point in range(0, len(passed), 4):
        home = tmp_path / str(point)
        shutil.copytree(started, home)
        killed = subprocess.run(
            [sys.executable, "-m", "tests.dying", str(home), str(point)], cwd=ROOT, check=False
        )
        assert killed.returncode == 9
        ws = Workspace.open(home)
        feedback(ws, AT)
        assert outcome(ws) == expected, passed[point]
        shutil.rmtree(home)
