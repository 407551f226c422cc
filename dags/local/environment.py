"""The settings of a single-machine Airflow over one workspace, and its database.

Promises: the runner of `make run` and the servers of `make ui` see the same database, logs and
DAGs, all below `<home>/airflow`; servers bind loopback; nothing is reported to anybody; a
database whose making was killed is made anew. Everything here is set before Airflow is imported.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_HOME = ROOT / "var"


def settings(home: Path, port: int = 8080) -> dict[str, str]:
    """Return the environment of every Airflow process over the workspace `home`.

    `port` is where the API server of `make ui` listens; tasks report to it.
    """
    folder = airflow_home(home)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        "NIGHTJAR_HOME": str(home.resolve()),
        "PYTHONPATH": python_path,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(home)}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # Tasks run side by side: threads that wait for each other must not take their cores.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def airflow_home(home: Path) -> Path:
    """Return Airflow's folder in the workspace `home`."""
    return home.resolve() / "airflow"


def database(home: Path) -> Path:
    """Return Airflow's database in the workspace `home`."""
    return airflow_home(home) / "airflow.db"


def apply(home: Path, port: int = 8080, *, to: MutableMapping[str, str] = os.environ) -> None:
    """Put `settings` into the environment; Airflow must not have been imported yet.

    Raises `StorageError` where Airflow's folder cannot be made.
    """
    try:
        airflow_home(home).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        from pipeline.errors import StorageError

        raise StorageError(f"cannot make {airflow_home(home)}: {error.strerror}") from error
    to.update(settings(home, port))


def set_up(home: Path) -> None:
    """Make or migrate the database and its pools; `apply` comes first. Imports Airflow."""
    path = database(home)
    if path.exists() and not _is_whole(path):
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()

    from airflow.configuration import write_default_airflow_configuration_if_needed
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb

    from dags.common import POOLS

    # Holds the key that Airflow seals connections with; servers that start at once must share it.
    write_default_airflow_configuration_if_needed()
    initdb()
    for name, (slots, description) in POOLS.items():
        Pool.create_or_update_pool(name, slots, description, include_deferred=False)


def _is_whole(path: Path) -> bool:
    """Whether the making of a database came to its end: its version is stamped last."""
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    set_up(Path(os.environ["NIGHTJAR_HOME"]))
