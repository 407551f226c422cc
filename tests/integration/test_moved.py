"""A workspace that was copied or moved: MLflow, whose database holds
absolute paths of files, must not write into the original workspace."""

import hashlib
import shutil
import sqlite3
from contextlib import closing

import pytest

from pipeline.steps.experiments.comparison.compare import compare
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.registry.connection import relocate_artifact_uris
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import NIGHTS, forget_places, land, purchases


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own():
    forget_places()
    yield
    forget_places()


def everything(home):
    """Every file of a workspace, by the sum of its bytes."""
    paths = (path for path in home.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def mentions(home, text):
    """Name the columns of MLflow's database that hold a text."""
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as tables:
        columns = tables.execute(
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
            " WHERE t.type = 'table'"
        ).fetchall()
        return {
            f"{table}.{column}"
            for table, column in columns
            if tables.execute(
                f'SELECT 1 FROM "{table}" WHERE instr("{column}", ?)', (text,)
            ).fetchone()
        }


def shown(ws, version):
    """Name the files that MLflow finds for a version's run."""
    from mlflow import MlflowClient

    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    run = client.get_model_version("nightjar", str(version)).run_id
    return {file.path for file in client.list_artifacts(run)}


@pytest.mark.slow
def test_a_copy_writes_into_itself_alone(two_nights, tmp_path):
    home, first, _ = two_nights
    before = everything(home)
    shutil.copytree(home, tmp_path / "copy")
    assert "runs.artifact_uri" in mentions(tmp_path / "copy", f"{home}/")
    ws = Workspace.open(tmp_path / "copy")
    comparison = compare(ws, 1, 2)
    assert (comparison.fault, comparison.path) == (None, ws.home / "reports" / "compare-1-2.html")
    pages = list(ws.home.glob("mlflow/artifacts/**/compare-1-2.html"))
    assert [page.read_bytes() for page in pages] == [comparison.path.read_bytes()] * 2
    land(ws.home, purchases(), NIGHTS[2], NIGHTS[1])
    feedback(ws, NIGHTS[2])
    assert nightly(ws, NIGHTS[2]).model_version == "3"
    assert mentions(ws.home, f"{home}/") == set()
    assert everything(home) == before
    # Moved, it finds again what it had written before.
    gone = ws.home.rename(tmp_path / "moved")
    forget_places()
    moved = Workspace.open(gone)
    files = moved.run(first.run_id).manifest("refit")["files"]
    registry(moved).verify(1, {"scorer.npz": files["scorer.npz"]["sha256"]})
    assert "comparisons" in shown(moved, 1)
    assert mentions(gone, f"{tmp_path}/copy/") == set()


def test_a_database_that_is_where_it_was_stays_as_it_is(two_nights, tmp_path, monkeypatch):
    home = two_nights[0]
    path = home / "mlflow" / "mlflow.db"
    was = path.read_bytes()
    registry(Workspace.open(home))
    assert path.read_bytes() == was
    # Nor is one that the settings name: it may belong to another workspace.
    copy = shutil.copytree(home, tmp_path / "copy")
    monkeypatch.setenv("NIGHTJAR__REGISTRY__TRACKING_URI", f"sqlite:///{copy}/mlflow/mlflow.db")
    registry(Workspace.open(copy))
    assert (copy / "mlflow" / "mlflow.db").read_bytes() == was


def test_artifacts_that_lie_elsewhere_on_purpose_stay_there(two_nights, tmp_path):
    copy = shutil.copytree(two_nights[0], tmp_path / "copy")
    elsewhere = "s3://bucket/mlflow/artifacts"
    with closing(sqlite3.connect(copy / "mlflow" / "mlflow.db")) as tables, tables:
        tables.execute("UPDATE experiments SET artifact_location = ?", (elsewhere,))
    registry(Workspace.open(copy))
    assert mentions(copy, elsewhere) == {"experiments.artifact_location"}


def test_a_file_that_is_not_a_database_of_mlflow_is_reported(tmp_path):
    relocate_artifact_uris(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    relocate_artifact_uris(tmp_path / "empty.db")
    (tmp_path / "text.db").write_text("no database" * 200)
    with raises("registry.database_damaged"):
        relocate_artifact_uris(tmp_path / "text.db")


def test_a_damaged_schema_is_reported(tmp_path):
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database)) as tables, tables:
        tables.execute(
            "CREATE TABLE experiments (artifact_location TEXT PRIMARY KEY) WITHOUT ROWID"
        )
    # SQLite's message quotes the schema, and is not UTF-8 then.
    database.write_bytes(database.read_bytes().replace(b"WITHOUT", b"WITH\xe1UT"))
    with raises("registry.database_damaged"):
        relocate_artifact_uris(database)


def test_a_copy_that_cannot_be_written_is_reported(two_nights, tmp_path, monkeypatch):
    copy = shutil.copytree(two_nights[0], tmp_path / "copy")
    monkeypatch.setattr("pipeline.stores.registry.connection._PROBE_SECONDS", 0.1)
    with closing(sqlite3.connect(copy / "mlflow" / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with raises("registry.database_unusable"):
            registry(Workspace.open(copy))
