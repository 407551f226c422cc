from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from dags.local import environment
from pipeline.errors import StorageError
from tests.dags.conftest import Python


def test_servers_bind_loopback_and_send_no_usage_data(tmp_path: Path) -> None:
    settings = environment.settings(tmp_path, port=8099)

    assert settings["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8099/execution/"
    assert settings["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False"


def test_everything_airflow_writes_lies_in_the_workspace(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    given: dict[str, str] = {"AIRFLOW_HOME": "/elsewhere", "OTHER": "kept"}

    environment.apply(home, to=given)

    assert given["OTHER"] == "kept"
    assert given["AIRFLOW_HOME"] == str(home / "airflow")
    assert given["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{home}/airflow/airflow.db"
    assert given["AIRFLOW__LOGGING__BASE_LOG_FOLDER"].startswith(str(home))
    assert given["NIGHTJAR_HOME"] == str(home)


def test_a_server_gets_the_variables_that_it_needs() -> None:
    system = {"PATH": "/bin", "HOME": "/root", "PYTHONPATH": "/src", "LC_ALL": "C"}
    airflow = {
        "AIRFLOW_HOME": "/a",
        "AIRFLOW__CORE__EXECUTOR": "x",
        "NIGHTJAR_HOME_SHOP": "/shop",
        "NIGHTJAR__SCHEDULE__MODE": "both",
    }
    tasks = {
        "NIGHTJAR_VAULT_KEY": "secret",
        "NIGHTJAR__REGISTRY__TRACKING_URI": "http://x",
        "AIRFLOW_CONN_NIGHTJAR_WEBHOOK": "secret",
        "AIRFLOW_VAR_X": "secret",
        "MLFLOW_TRACKING_PASSWORD": "secret",
    }
    mlflow = {"MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY"}
    given = {**system, **airflow, **tasks, **mlflow, "GITHUB_TOKEN": "secret"}

    assert environment.for_airflow(given) == {**system, **airflow}
    assert environment.for_mlflow(given) == {**system, **mlflow}
    assert environment.for_tasks(given) == {**system, **airflow, **tasks, **mlflow}


def test_airflow_has_a_password_and_closed_logs(tmp_path: Path) -> None:
    names = environment.settings(tmp_path)

    assert names["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert names["AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS"] == "0o700"
    assert names["AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS"] == "0o600"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "airflow").write_text("in the way")

    with pytest.raises(StorageError, match=r"cannot create .*airflow: file exists"):
        environment.apply(tmp_path, to={})


@pytest.mark.servers
def test_a_database_whose_making_was_killed_is_made_anew(tmp_path: Path, python: Python) -> None:
    path = environment.database(tmp_path / "home")
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as half:
        half.execute("CREATE TABLE slot_pool (id INTEGER)")

    made = python("-m", "dags.local.environment")

    assert made.returncode == 0, made.stderr
    assert _pools(path) == {"default_pool": 128, "nightjar_heavy": 1}
    assert environment.airflow_home(tmp_path / "home").joinpath("airflow.cfg").is_file()

    with sqlite3.connect(path) as whole:
        whole.execute("UPDATE slot_pool SET description = 'mine' WHERE pool = 'default_pool'")
    assert python("-m", "dags.local.environment").returncode == 0
    with sqlite3.connect(path) as whole:
        kept = whole.execute("SELECT count(*) FROM slot_pool WHERE description = 'mine'")
        assert kept.fetchone()[0] == 1


def _pools(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT pool, slots FROM slot_pool"))


def test_only_the_owner_can_enter_airflows_folder(tmp_path: Path) -> None:
    os.umask(0o022)
    environment.make_airflow_home(tmp_path / "workspace")
    mode = (tmp_path / "workspace" / "airflow").stat().st_mode
    assert stat.S_IMODE(mode) == 0o700
