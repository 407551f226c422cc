from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.models.search import Axis
from pipeline.stores.studies.files import StudyFiles
from pipeline.stores.studies.store import Studies
from pipeline.stores.studies.trial import COMPLETE, FAILED, PRUNED
from tests.raising import raises

AXES = {
    "alpha": Axis(("alpha",), 0.03, 1000.0, True, False),
    "factors": Axis(("factors",), 4, 64, False, True),
}
START = {"alpha": 500.0, "factors": 8}
FACTS = {"key": "als", "as_of": "2024-03-11T09:00:00Z"}
WINDOWS = 3


def value_of(values):
    """Value of a recipe: best at alpha 5, independent of the factors."""
    return 1.0 - 0.1 * abs(math.log(values["alpha"] / 5.0))


def go_on(study, trials, *, halve=False):
    """Measure some trials; return those that were requested."""
    asked_for = []
    for _ in range(trials):
        asked = study.ask()
        asked_for.append(dict(asked.values))
        if not halve:
            study.finish(
                asked, COMPLETE, {"windows": [value_of(asked.values)]}, value_of(asked.values)
            )
            continue
        for step in range(1, WINDOWS + 1):
            if not study.report(asked, step, value_of(asked.values)) and step < WINDOWS:
                study.finish(asked, PRUNED, {"windows": [value_of(asked.values)] * step})
                break
        else:
            notes = {"windows": [value_of(asked.values)] * WINDOWS}
            study.finish(asked, COMPLETE, notes, value_of(asked.values))
    return asked_for


@pytest.fixture
def studies(tmp_path):
    with Studies(tmp_path / "studies") as opened:
        yield opened


def test_the_start_is_tried_first_then_the_others_then_the_proposals(studies):
    other = {"alpha": 7.0, "factors": 16}
    study = studies.begin("one", FACTS, AXES, {"alpha": 500.0}, [other, other])
    first = study.ask()
    assert (first.start, first.values) == (True, {"alpha": 500.0})
    assert study.report(first, 1, 0.0)
    study.finish(first, COMPLETE, {"windows": [0.0]}, 0.0)
    asked = go_on(study, 3)
    assert asked[0] == other
    assert all(values.keys() == AXES.keys() for values in asked)
    assert [trial.start for trial in study.trials()] == [True, False, False, False]
    assert study.axes == AXES


def test_proposals_lie_within_the_spans_and_get_better(studies):
    study = studies.begin("one", FACTS, AXES, START)
    asked = go_on(study, 20, halve=True)
    for name, axis in AXES.items():
        assert all(axis.low <= values[name] <= axis.high for values in asked)
    assert all(isinstance(values["factors"], int) for values in asked)
    trials = study.trials()
    best = max((t for t in trials if t.state == COMPLETE), key=lambda t: t.notes["windows"])
    assert 2.0 < best.values["alpha"] < 12.0
    pruned = [t for t in trials if t.state == PRUNED]
    assert len(pruned) > 5
    assert all(len(t.notes["windows"]) < WINDOWS for t in pruned)


def test_the_start_is_never_given_up(studies):
    study = studies.begin("one", FACTS, AXES, START, [{"alpha": 5.0, "factors": 8}])
    study.set_aside(study.ask())  # it waits behind a better one
    go_on(study, 2, halve=True)
    again = next(t for t in study.trials() if t.start)
    assert again.state == COMPLETE


def test_a_resumed_study_proposes_the_same_as_an_unbroken_one(tmp_path):
    with Studies(tmp_path / "a") as studies:
        unbroken = go_on(studies.begin("one", FACTS, AXES, START), 13)
    asked = []
    for part in (2, 9, 2):
        with Studies(tmp_path / "b") as studies:
            study = studies.find("one") or studies.begin("one", FACTS, AXES, START)
            asked += go_on(study, part)
            study.set_aside(study.ask())  # what the end of a budget does
    assert asked == unbroken


def test_a_started_study_is_read_with_its_facts_and_notes(tmp_path):
    with Studies(tmp_path) as studies:
        assert studies.find("one") is None
        study = studies.begin("one", FACTS, AXES, START)
        go_on(study, 2)
        study.note("mixture", {"of": "abc"})
    with Studies(tmp_path) as studies:
        result = studies.find("one")
        assert result is not None
        assert result.facts["as_of"] == FACTS["as_of"]
        assert result.noted("mixture") == {"of": "abc"}
        assert result.noted("nothing") is None
        assert [t.number for t in result.trials()] == [0, 1]


def test_a_study_that_was_only_half_begun_is_begun_again(studies, monkeypatch):
    from optuna.study import Study as OptunaStudy

    with monkeypatch.context() as patch:
        patch.setattr(
            OptunaStudy, "set_user_attr", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            studies.begin("one", FACTS, AXES, START, [{"alpha": 7.0, "factors": 16}])
    assert studies.find("one") is None
    study = studies.begin("one", FACTS, AXES, START, [{"alpha": 7.0, "factors": 16}])
    assert [values["alpha"] for values in go_on(study, 3)][:2] == [500.0, 7.0]
    assert go_on(study, 1) != [{"alpha": 7.0, "factors": 16}]


def test_the_last_study_of_a_key_is_the_newest_other_one(studies):
    for name, key in (("one", "als"), ("two", "als"), ("three", "blend"), ("four", "als")):
        studies.begin(name, {**FACTS, "key": key}, AXES, START)
    last = studies.last("als", "four")
    assert last is not None
    assert last.study_id == "two"
    assert studies.last("ease", "four") is None


def test_a_failed_trial_is_not_proposed_again(studies):
    study = studies.begin("one", FACTS, AXES, START)
    go_on(study, 1)
    asked = []
    for _ in range(3):
        trial = study.ask()
        asked.append(dict(trial.values))
        study.finish(trial, FAILED, {"failure": "too large"})
    assert len({tuple(values.items()) for values in asked}) == 3
    assert [t.notes.get("failure") for t in study.trials()][1:] == ["too large"] * 3


def test_importance_names_the_field_that_matters(studies):
    study = studies.begin("one", FACTS, AXES, START)
    go_on(study, 5)
    assert study.importance({t.number: value_of(t.values) for t in study.trials()}) == {}
    go_on(study, 10)
    alike = {t.number: value_of(t.values) for t in study.trials()}
    shares = study.importance(alike)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["alpha"] > 0.7
    assert study.importance(dict.fromkeys(alike, 1.0)) == {}


DYING = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.stores.test_studies import AXES, FACTS, START, go_on
from pipeline.stores.studies.store import Studies
with Studies(Path({home!r})) as studies:
    study = studies.find("one") or studies.begin("one", FACTS, AXES, START)
    go_on(study, {trials})
    asked = study.ask()
    study.report(asked, 1, 0.5)
    print(sorted(asked.values.items()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die(home: Path, trials: int) -> str:
    root = str(Path(__file__).parents[3])
    code = DYING.format(root=root, home=str(home), trials=trials)
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    return died.stdout.strip()


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_tried_once_more(tmp_path):
    with Studies(tmp_path / "calm") as studies:
        unbroken = go_on(studies.begin("one", FACTS, AXES, START), 8)
    lost = die(tmp_path / "killed", 4)
    with Studies(tmp_path / "killed") as studies:
        study = studies.find("one")
        assert study is not None
        assert len(study.trials()) == 4
        again = go_on(study, 4)
        assert str(sorted(again[0].items())) == lost
        assert again == unbroken[4:]
        assert len(study.trials()) == 8


@pytest.mark.slow
def test_a_trial_that_killed_two_processes_is_given_up(tmp_path):
    assert die(tmp_path, 2) == die(tmp_path, 0)
    with Studies(tmp_path) as studies:
        study = studies.find("one")
        assert study is not None
        (given_up,) = [t for t in study.trials() if t.state == FAILED]
        assert "ended twice" in given_up.notes["failure"]
        assert [dict(given_up.values)] != go_on(study, 1)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "studies.db").write_bytes(b"no database" * 200)
    with raises("study.unusable"):
        Studies(tmp_path).__enter__()


def test_without_optuna_it_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with raises("extra.optuna_missing"):
        Studies(tmp_path)


def test_files_are_checked_when_they_are_read(tmp_path):
    files = StudyFiles(tmp_path, "one")
    with raises("study.no_result"):
        files.read("study.json")
    files.write({"study.json": b"{}", "history.png": b"\x89PNG"})
    files.write({"study.json": b"[]", "history.png": b"\x89PNG"})
    assert files.names == ("history.png", "study.json")
    assert files.read("study.json") == b"[]"
    assert files.path("history.png").read_bytes() == b"\x89PNG"
    (tmp_path / "one" / "study.json").write_bytes(b"{}")
    with raises("study.checksum"):
        files.path("study.json")
    (tmp_path / "one" / "history.png").unlink()
    with raises("storage.cannot_read"):
        files.read("history.png")


def test_nothing_is_imported_before_it_is_needed():
    code = (
        "import sys, pipeline.cli, pipeline.steps.experiments.tuning.tune\n"
        "sys.exit('optuna' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
