"""Settings and database of an Airflow on one machine, for one workspace.

Guarantees:

* The runner of `make run` and the servers of `make ui` use the same database, logs and DAGs, all
  of them in `<home>/airflow`.
* Servers listen only on loopback, and no usage data are sent.
* Airflow's page needs a password.
* A server gets only the variables that it needs; the key of the vault and the connections of
  Airflow reach only the scheduler, whose processes run the tasks.
* A database whose creation was killed is created again.

`apply` must be called before Airflow is imported.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, MutableMapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_HOME = ROOT / "var"

_SYSTEM = (
    *("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "PYTHONPATH", "TMPDIR"),
    *("PYTHONUNBUFFERED", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ", "USER", "VIRTUAL_ENV"),
)
_SYSTEM_PREFIXES = ("LC_", "OMP_")
# The schedule is read when a DAG file is parsed (`dags.settings`).
_AIRFLOW_PREFIXES = ("AIRFLOW_HOME", "AIRFLOW__", "NIGHTJAR_HOME", "NIGHTJAR__SCHEDULE__")
# What steps of a run may need: their own settings, those of MLflow's client and of its store of
# artifacts, proxies, and the number of threads.
_TASK_PREFIXES = (
    *("AIRFLOW_", "NIGHTJAR", "MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "REQUESTS_", "CURL_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("CUDA_", "MKL_", "NUMBA_", "OPENBLAS_", "POLARS_", "RAYON_"),
)


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
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "dags" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(login_file(home)),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(home)}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        # Airflow sets these itself, whatever the umask is.
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        # It logs hundreds of lines about itself.
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "great_expectations=WARNING",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        # Lines of logs are sentences, which are longer than a screen is wide.
        "AIRFLOW__API__DEFAULT_WRAP": "True",
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


def login_file(home: Path) -> Path:
    """Return the file from which Airflow's API server reads the password of its page."""
    return airflow_home(home) / "login.json"


def write_login(file: Path, password: str) -> None:
    """Write the file from which Airflow's simple auth manager reads its password; owner only.

    Parameters
    ----------
    file
        File to replace.
    password
        Password of the user ``admin``.
    """
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump({"admin": password}, stream)
    new.replace(file)


def for_airflow(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an Airflow process that runs no tasks."""
    return _chosen(env, _AIRFLOW_PREFIXES)


def for_tasks(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the scheduler, whose children are the processes of the tasks."""
    return _chosen(env, _TASK_PREFIXES)


def for_mlflow(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of MLflow's server, without those of its clients."""
    chosen = _chosen(env, ("MLFLOW_",))
    return {name: text for name, text in chosen.items() if not name.startswith("MLFLOW_TRACKING_")}


def _chosen(env: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {
        name: text
        for name, text in env.items()
        if name in _SYSTEM or name.startswith((*_SYSTEM_PREFIXES, *prefixes))
    }


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
    make_airflow_home(home)
    to.update(settings(home, port))


def make_airflow_home(home: Path) -> None:
    """Create Airflow's folder in the workspace `home`, which only its owner can enter.

    Raises
    ------
    StorageError
        `storage.cannot_write`.
    """
    from pipeline.stores.disk import storage_errors
    from pipeline.workspace.permissions import PRIVATE_FOLDER

    folder = airflow_home(home)
    with storage_errors("storage.cannot_write", f"cannot create {folder}"):
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)


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
