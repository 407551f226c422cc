"""The start of a night: as-of and config determine the run; changes that give another one."""

from datetime import timedelta

import pytest

from pipeline.steps.diagnostics import night_estimate
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.nightly.validate import validate
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import outcome, same_outcome
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, land, purchases


def test_a_second_start_of_a_night_is_already_done(third, shop, monkeypatch):
    """Neither newer data nor the place of MLflow makes another night."""
    before = outcome(third)
    monkeypatch.setenv("NIGHTJAR__REGISTRY__TRACKING_URI", "http://127.0.0.1:1")
    ws = Workspace.open(third.home)
    assert ws.tracking_uri == "http://127.0.0.1:1"
    again = nightly(ws, NIGHTS[1])
    assert again.status == "already_done"
    assert again.exit_code == 0
    assert again.cost == shop[2].cost != {}
    assert same_outcome(before, outcome(third))


def test_an_instant_is_exact_to_the_microsecond(copy):
    started = snapshot(copy, NIGHTS[1].replace(microsecond=500_000))
    assert started.status == "new"
    assert started.run_id != nightly(copy, NIGHTS[1]).run_id


def test_a_device_makes_no_other_recipe(third):
    toml = third.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('family = "als"', 'family = "als"\ndevice = "cpu"'))
    ws = Workspace.open(third.home)
    started = snapshot(ws, NIGHTS[2])
    assert set(started.recipes) == {
        "popularity",
        "decayed_popularity",
        "personal_frequency",
        "als",
        "mad",
    }


def test_a_night_that_lacked_a_file_is_another_night_with_it(workspace, tmp_path):
    ws = workspace(tmp_path / "late", CONFIG)
    events = purchases()
    land(ws.home, events, NIGHTS[0] - timedelta(days=1))
    feedback(ws, NIGHTS[0])
    for _ in range(2):
        with raises("validate.failed"):
            nightly(ws, NIGHTS[0])
    [first] = ws.runs.starting_with("")
    land(ws.home, events, NIGHTS[0], NIGHTS[0] - timedelta(days=1))
    feedback(ws, NIGHTS[0])
    started = snapshot(ws, NIGHTS[0])
    assert started.status == "new" and started.run_id != first.run_id
    validate(ws, started.run_id)


def test_nothing_to_do_after_a_silent_week(copy):
    late = NIGHTS[1].replace(month=6)
    ended = nightly(copy, late)
    assert ended.status == "nothing_to_do"
    assert ended.exit_code == 0
    assert "2024-03-" in ended.sentence


def test_an_as_of_before_all_data(copy):
    with raises("split.no_event"):
        nightly(copy, NIGHTS[0].replace(year=2020))


@pytest.mark.parametrize(("name", "hint"), [("alz", "; nearest: als"), ("../../../etc", "")])
def test_a_recipe_that_is_not_configured(copy, name, hint):
    with raises("recipe.unknown") as error:
        nightly(copy, NIGHTS[2], recipes=[name])
    assert f"{name!r}{hint}. " in error.value.sentence


def test_a_night_that_does_not_fit_into_memory_is_refused_before_it_starts(copy, monkeypatch):
    lines: list[str] = []
    before = [run.run_id for run in copy.runs.starting_with("")]
    monkeypatch.setattr(night_estimate, "free_memory", lambda: 1 << 20)
    with raises("memory.night_too_large") as error:
        snapshot(copy, NIGHTS[1] + timedelta(hours=1), progress=lines.append)
    assert [run.run_id for run in copy.runs.starting_with("")] == before
    assert "features about" in error.value.sentence
    assert any("features about" in line for line in lines)
