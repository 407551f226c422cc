"""Earlier blocks of a night, where nights are rarer than the block is long."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.base import Interval, as_of
from pipeline.workspace.artifacts import EarlierBlockFile
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.run_files import earlier_step
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.worlds import NIGHTS, copy_of

pytestmark = pytest.mark.slow

WEEK = timedelta(days=7)


def decision(ws: Workspace, night):
    run_id, _ = decide(ws, night)
    return ws.run(run_id), ws.run(run_id).read(DecisionFile).root


@pytest.fixture
def caught_up(third_landed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The third night, two weeks after the second one, which evaluates one earlier block."""
    monkeypatch.setenv("NIGHTJAR__GATE__CATCH_UP_BLOCKS", "1")
    ws = Workspace.open(copy_of(third_landed, tmp_path / "rare"))
    return decision(ws, NIGHTS[2])


def test_a_night_records_what_a_night_a_week_ago_would_have(caught_up, third_landed, tmp_path):
    run, rare = caught_up
    often = Workspace.open(copy_of(third_landed, tmp_path / "often"))
    _, week_ago = decision(often, as_of(NIGHTS[2] - WEEK))
    block = Interval(NIGHTS[2] - 2 * WEEK, NIGHTS[2] - WEEK)
    assert run.read(EarlierBlockFile, earlier_step(0)).holdout == block
    expected = {s.recipe_hash: s.record for s in week_ago.e_processes}
    assert None not in expected.values()
    assert {s.recipe_hash: s.earlier for s in rare.e_processes} == {
        recipe: (record,) for recipe, record in expected.items()
    }
    # The week before the second night is in no record; without a second one nothing is emptied.
    assert {(s.blocks, s.holes) for s in rare.e_processes} == {(3, 7)}


def test_without_the_setting_the_days_are_a_hole(third_decided):
    home, run_id, _ = third_decided
    run = Workspace.open(home).run(run_id)
    assert run.committed(earlier_step(0)) is None
    statuses = run.read(DecisionFile).root.e_processes
    assert {(s.blocks, s.opened) for s in statuses} == {(0, NIGHTS[2])}
