"""Settings and database of an Airflow on one machine, for one workspace.

Guarantees:

* The runner of `make run` and the servers of `make ui` use the same database, logs and DAGs, all
  of them in `<home>/airflow`.
* Servers listen only on loopback, and no usage data are sent.
* A database whose creation was killed is created again.

`apply` must be called before Airflow is imported.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_HOME = ROOT / "var"


def settings(home: Path, port: int = 8080) -> dict[str, str]:
    """Return the environment variables of every Airflow process of a workspace.

    Parameters
    ----------
    home
        Folder of the workspace.
    port
        Port of the API server of `make ui`, to which tasks report.

    Returns
    -------
    Values by name of the variable.
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
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # no login: loopback only
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(home)}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # Tasks run in parallel: OpenMP threads that wait must not keep their cores busy.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def airflow_home(home: Path) -> Path:
    """Return Airflow's folder in the workspace `home`."""
    return home.resolve() / "airflow"


def database(home: Path) -> Path:
    """Return Airflow's database in the workspace `home`."""
    return airflow_home(home) / "airflow.db"


def apply(home: Path, port: int = 8080, *, to: MutableMapping[str, str] = os.environ) -> None:
    """Write `settings` into an environment; Airflow must not have been imported yet.

    Parameters
    ----------
    home, port
        As in `settings`.
    to
        Environment to change: by default that of this process.

    Raises
    ------
    StorageError
        `storage.cannot_write`: Airflow's folder cannot be created.
    """
    from pipeline.stores.disk import storage_errors

    with storage_errors("storage.cannot_write", f"cannot create {airflow_home(home)}"):
        airflow_home(home).mkdir(parents=True, exist_ok=True)
    to.update(settings(home, port))


def set_up(home: Path) -> None:
    """Create or migrate the database and its pools; call `apply` first. Imports Airflow."""
    path = database(home)
    if path.exists() and not _is_complete(path):
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    from airflow.configuration import write_default_airflow_configuration_if_needed
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb

    from dags.common import pools

    # It holds the key that encrypts connections, which servers that start together must share.
    write_default_airflow_configuration_if_needed()
    initdb()
    for name, (slots, description) in pools().items():
        Pool.create_or_update_pool(name, slots, description, include_deferred=False)


def _is_complete(path: Path) -> bool:
    """Return whether the creation of a database was finished: its version is written last."""
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    set_up(Path(os.environ["NIGHTJAR_HOME"]))
