"""MLflow is a mirror: what it has lost comes back from the runs, under the same numbers.

What can go wrong:
* the database, the model or a version is missing -> the next night and `register --all` copy again
* a power cut emptied the files of a new version  -> the same night writes them again
* a page of a night is missing or empty           -> drawn again
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.request import url2pathname

import pytest

from pipeline.failpoints import FailpointReached
from pipeline.steps.lists import history
from pipeline.steps.maintenance.register_all import register_all
from pipeline.steps.nightly import publish
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.refit import refit
from pipeline.steps.nightly.register import register
from pipeline.stores.registry import versions as registry_versions
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.registry import registry
from pipeline.workspace.release_artifacts import MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import mlflow_client
from tests.integration.test_versions import nightjar
from tests.raising import raises
from tests.worlds import NIGHTS, forget_places

RUN_ADDRESS = re.compile(r"#/experiments/\d+/runs/\w+")


def without_mlflow(ws):
    """Delete MLflow's folder, as before a new process."""
    shutil.rmtree(ws.home / "mlflow")
    return moved(ws)


def moved(ws):
    """Give the workspace another path: a process keeps its connections by the database's path."""
    forget_places()
    return Workspace.open(ws.home.rename(ws.home.with_name(f"{ws.home.name}-moved")))


def shown(ws):
    """Everything that MLflow shows of the nights, without its own ids and times."""
    client = mlflow_client(ws)
    experiment = client.get_experiment_by_name("nightjar").experiment_id
    runs = {}
    for run in client.search_runs([experiment]):
        tags, names = run.data.tags, files_of(run)
        key = tags["nightjar.run_id"], tags["nightjar.recipe"]
        kept = {name: tag for name, tag in tags.items() if not name.startswith("mlflow.parent")}
        assert key not in runs
        runs[key] = run.info.status, run.data.params, run.data.metrics, kept, names
    versions = {
        int(version.version): (dict(version.tags), RUN_ADDRESS.sub("", version.description))
        for version in client.search_model_versions("name = 'nightjar'")
    }
    return {"runs": runs, "versions": versions, "aliases": registry(ws).aliases()}


def files_of(run):
    folder = Path(url2pathname(run.info.artifact_uri.removeprefix("file://")))
    return {path.name: path.stat().st_size for path in folder.glob("*")}


def version_files(ws, number):
    source = mlflow_client(ws).get_model_version_download_uri("nightjar", str(number))
    return Path(url2pathname(source.removeprefix("file://")))


def run_ids(ws):
    return {int(e.model_version): e.run_id for e in history(ws) if e.type == "publication"}


def test_the_next_night_fills_a_lost_mlflow_first(decided):
    ws, run_id = decided
    before, runs = shown(ws), run_ids(ws)
    assert runs.keys() == {1, 2}
    ws = without_mlflow(ws)
    ended = nightly(ws, NIGHTS[2])
    assert (ended.status, ended.model_version) == ("done", "3")
    assert registry(ws).versions() == {**runs, 3: run_id}
    assert registry(ws).aliases() == {"champion": 3, "previous": 2}
    assert run_ids(ws) == {**runs, 3: run_id}
    after = shown(ws)
    assert {number: after["versions"][number] for number in runs} == before["versions"]
    for key, (status, params, metrics, tags, names) in before["runs"].items():
        again = after["runs"][key]
        assert again[:2] == (status, params) and again[3:] == (tags, names)
        assert metrics.items() <= again[2].items()  # the third night adds figures of the second


@pytest.mark.slow
def test_register_all_fills_mlflow_with_the_same_content(copy):
    before = shown(copy)
    assert any(name.startswith("attribution/") for r in before["runs"].values() for name in r[2])
    copy = without_mlflow(copy)
    done = nightjar("register", "--all", "--json", home=copy.home)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == {
        "runs": 2,
        "studies": 0,
        "lost": list(run_ids(copy).values()),
        "versions": {"1": 1, "2": 2},
        "without_files": [],
    }
    assert shown(copy) == before
    assert register_all(copy).lost == ()
    assert shown(copy) == before
    assert "register " in done.stderr
    for wrong in ([], ["--all", "--run", run_ids(copy)[1]]):
        assert nightjar("register", *wrong, home=copy.home).returncode == 2


@pytest.mark.slow
def test_a_model_without_its_files_keeps_its_number(copy):
    runs = run_ids(copy)
    (copy.run(runs[1]).folder / REFIT / "scorer.npz").unlink()
    mlflow_client(copy).delete_registered_model("nightjar")
    shutil.rmtree(copy.home / "mlflow" / "artifacts")
    result = register_all(copy)
    assert (result.versions, result.without_files) == ({1: 1, 2: 2}, (1,))
    assert registry(copy).versions() == runs
    again = shown(copy)["runs"]
    removed = [again[runs[n], "als"][3].get("nightjar.files_removed") for n in (1, 2)]
    assert removed == ["true", None]
    assert (version_files(copy, 2) / "artifacts" / "scorer.npz").stat().st_size
    # Without its run a number is not given to another version.
    shutil.rmtree(copy.run(runs[1]).folder)
    copy = without_mlflow(copy)
    assert register_all(copy).versions == {1: None, 2: 2}
    assert registry(copy).versions() == {2: runs[2]}
    assert registry(copy).aliases() == {"champion": 2}


def test_a_night_goes_on_after_a_user_deleted_the_live_version(decided):
    ws, run_id = decided
    runs = run_ids(ws)
    mlflow_client(ws).delete_model_version("nightjar", "2")
    refit(ws, run_id)
    register(ws, run_id)
    # MLflow never gives a number twice, so the live version comes back under another one.
    assert registry(ws).versions() == {1: runs[1], 3: runs[2], 4: run_id}
    assert registry(ws).aliases() == {"champion": 3, "previous": 1}
    assert ws.run(run_id).read(MlflowFile).version == 4
    assert register_all(ws).versions == {1: 1, 2: 3, 4: 4}
    # An earlier version that a user deleted stays deleted.
    mlflow_client(ws).delete_model_version("nightjar", "1")
    result = register_all(ws)
    assert (result.lost, result.versions) == ((), {1: None, 2: 3, 4: 4})
    assert registry(ws).aliases() == {"champion": 3}


def test_files_that_a_power_cut_emptied_are_written_again(decided, monkeypatch):
    ws, run_id = decided
    refit(ws, run_id)
    page = ws.run(run_ids(ws)[1]).folder / "page.html"
    drawn = page.read_bytes()
    page.write_bytes(b"")

    def reached(name):
        if name == "tagged":
            raise FailpointReached(name)

    monkeypatch.setattr(registry_versions, "failpoint", reached)
    with pytest.raises(FailpointReached):
        register(ws, run_id)
    monkeypatch.undo()
    files = [path for path in version_files(ws, 3).rglob("*") if path.is_file()]
    sizes = {path: path.stat().st_size for path in files}
    assert len(files) > 8
    for path in files:
        path.write_bytes(b"")
    register(ws, run_id)
    assert {path: path.stat().st_size for path in files} == sizes
    assert registry(ws).versions()[3] == run_id
    assert page.read_bytes() == drawn


def test_a_page_that_is_missing_or_empty_is_drawn_again(copy):
    folder = copy.run(run_ids(copy)[2]).folder
    drawn = {name: (folder / name).read_bytes() for name in ("page.html", "page.json")}
    (folder / "page.html").write_bytes(b"")
    (folder / "page.json").unlink()
    assert nightly(copy, NIGHTS[1]).status == "already_done"
    assert {name: (folder / name).read_bytes() for name in drawn} == drawn
    # The copies in MLflow, too: of all files of the run.
    before = shown(copy)
    for path in (copy.home / "mlflow" / "artifacts").glob("*/artifacts/*.*"):
        path.write_bytes(b"")
    assert shown(copy) != before
    assert register_all(copy).lost == tuple(run_ids(copy).values())
    assert shown(copy) == before


@pytest.mark.slow
def test_a_night_of_which_mlflow_was_lost_just_before_its_end(decided, monkeypatch):
    """The publication needs MLflow for the aliases alone; the message names the way back."""
    ws, _ = decided
    point = publish.point_aliases

    def lost_meanwhile(ws):
        shutil.rmtree(ws.home / "mlflow")
        point(ws)

    monkeypatch.setattr(publish, "point_aliases", lost_meanwhile)
    with raises("registry.database_missing") as caught:
        nightly(ws, NIGHTS[2])
    assert "nightjar register --all" in caught.value.sentence
    monkeypatch.undo()
    ws = moved(ws)
    assert register_all(ws).versions == {1: 1, 2: 2, 3: 3}
    assert nightly(ws, NIGHTS[2]).status == "done"
    assert registry(ws).aliases() == {"champion": 3, "previous": 2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["halved", "newer"])
def test_a_database_that_mlflow_cannot_use_is_moved_away(copy, kind):
    database, before = copy.mlflow_database, shown(copy)
    if kind == "halved":
        database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    else:
        with closing(sqlite3.connect(database)) as tables, tables:
            tables.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    done = nightjar("register", "--all", home=copy.home)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (6, "")
    assert str(database) in last and "nightjar register --all" in last
    database.rename(database.with_suffix(".broken"))
    copy = moved(copy)
    assert nightjar("register", "--all", home=copy.home).returncode == 0
    assert shown(copy) == before
