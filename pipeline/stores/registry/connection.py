"""How MLflow is reached: its settings, one connection, its failures as one sentence.

Promises: importing this module does not import MLflow (2 s); nothing is sent to MLflow's makers; no
pickle is ever loaded; a registry that is not there is told within seconds; no password is shown.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ALWAYS = {
    # A shop's nights are its own business.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A pickle runs whatever its author wants; our models are code and arrays.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # When a call returns, what it logged is stored: a retry relies on it.
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # Standard output belongs to the answer of a command.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A version's requirements are written by us; neither a stray lock file nor variables join.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}
_UNLESS_SET = {
    # By default a dead server is waited for during minutes (7 retries that back off).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database says where files lie: always an absolute place."""
_PROBE_SECONDS = 5
_SQLITE = "sqlite:///"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a ``sqlite:///`` URI, ``None`` for a server; others are refused."""
    if uri.startswith(_SQLITE) and len(uri) > len(_SQLITE):
        return Path(uri.removeprefix(_SQLITE))
    if urlsplit(uri).scheme in ("http", "https") and urlsplit(uri).hostname:
        return None
    raise ConfigError(
        "registry.invalid_uri",
        f"the tracking URI {without_password(uri)} is neither sqlite:///FILE nor http(s)://HOST",
    )


def artifacts_beside(database: Path) -> str:
    """Return the URI of the folder that holds the artifacts of a local registry."""
    return (database.parent / "artifacts").absolute().as_uri()


def relocate_artifact_uris(database: Path) -> None:
    """Let a database that was copied or moved with its artifacts name those beside it.

    MLflow keeps the place of each file as it was, and has no word to change it: a copy would go on
    writing into what it is a copy of. For a database that is ours alone, whose experiments lie in
    ``artifacts`` beside it; one that lies elsewhere on purpose stays there. Raises `RegistryError`.
    """
    here = artifacts_beside(database)
    folders = here.rsplit("/", 2)[1:]
    try:
        if not database.is_file():
            return
        with closing(_open(database)) as tables, tables:
            rows = tables.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
            for (old,) in rows:
                if old != here and old.startswith("file:") and old.rsplit("/", 2)[1:] == folders:
                    for table, column in _PLACES:
                        tables.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608
                            f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                        )
    except (sqlite3.Error, OSError) as fault:
        if "no such table" not in str(fault):  # what has no tables yet knows no place
            raise RegistryError(
                "registry.database_unusable",
                f"MLflow's database {database} cannot be used: {fault}",
            ) from None


def without_password(uri: str) -> str:
    """Return `uri` without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def connect(uri: str) -> MlflowClient:
    """Return a client of a registry that answered just now; `RegistryError` otherwise."""
    file = sqlite_path(uri)
    if file is not None:
        _probe_file(file)
    with registry_errors(uri):
        if file is None:
            _probe_server(uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create(uri: str, file: Path) -> MlflowClient:
    """Return a client of the database in `file`; its tables are made once, in 2 to 6 s."""
    with registry_errors(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise PermissionError(f"{file} cannot be written")
        from mlflow import MlflowClient
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # The client alone would give MLflow's own first experiment a folder under the current one.
        SqlAlchemyStore(uri, artifacts_beside(file))  # type: ignore[no-untyped-call]
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """Turn any failure of MLflow into a `RegistryError` of one sentence that names the registry."""
    os.environ.update(_ALWAYS)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # MLflow's use of SQLAlchemy, protobuf and pydantic is MLflow's to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "(?s).*Any type hint is inferred as AnyType")
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # What fails is raised, as one sentence; MLflow would log a traceback beside it.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as fault:
            raise RegistryError(
                "registry.failed",
                f"MLflow at {without_password(uri)} failed: {_first_line(fault, uri)}",
            ) from fault


def _probe_file(file: Path) -> None:
    # MLflow would create a missing file, and retry an unusable one for an hour.
    try:
        with closing(_open(file)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            database.execute("ROLLBACK")
    except sqlite3.Error as fault:
        raise RegistryError(
            "registry.database_unusable", f"MLflow's database {file} cannot be used: {fault}"
        ) from None
    if not tables:
        raise RegistryError(
            "registry.database_empty",
            f"MLflow's database {file} is empty; `nightjar init` prepares it",
        )


def _open(file: Path) -> sqlite3.Connection:
    location = f"file:{quote(str(file.absolute()))}?mode=rw"
    return sqlite3.connect(location, uri=True, timeout=_PROBE_SECONDS)


def _probe_server(uri: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        answer = http_request(  # type: ignore[no-untyped-call]
            credentials, "/health", "GET", timeout=_PROBE_SECONDS, max_retries=0
        )
    except MlflowException as fault:
        raise RegistryError(
            "registry.unavailable",
            f"MLflow at {without_password(uri)} does not answer; start it, then run this step "
            "again",
        ) from fault
    if answer.status_code != 200:
        raise OSError(f"it answers {answer.status_code} to a health check")


def _first_line(fault: Exception, uri: str) -> str:
    who = urlsplit(uri).netloc.rpartition("@")[0]
    text = str(fault).replace(f"{who}@", "").strip() if who else str(fault).strip()
    return text.splitlines()[0][:300] if text else type(fault).__name__
