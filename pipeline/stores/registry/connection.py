"""Connection to MLflow: its settings, and its failures as `RegistryError`.

Guarantees: importing this module does not import MLflow (2 s); MLflow sends no telemetry and loads
no pickle; a server that is away raises within seconds, one that hangs within a minute; no message
contains a password.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import util
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import url2pathname

from pipeline.errors import ConfigError, RegistryError
from pipeline.stores.disk import fault_text, machine_error, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ALWAYS = {
    # The figures of a shop are confidential.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A pickle can run any code; these models are code and arrays.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # A retry relies on it: data are stored when a logging call returns.
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # Standard output is for the result of a command.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # `package` writes a version's requirements; lock files and variables found nearby stay out.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}
_UNLESS_SET = {
    # With MLflow's defaults (7 retries that back off) a call to a dead server takes minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's database with the absolute places of files."""
_PROBE_SECONDS = 5
_SQLITE = "sqlite:///"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a ``sqlite:///`` URI, or None for a server.

    Raises
    ------
    ConfigError
        ``registry.invalid_uri``
    """
    if uri.startswith(_SQLITE) and len(uri) > len(_SQLITE):
        return Path(uri.removeprefix(_SQLITE))
    if urlsplit(uri).scheme in ("http", "https") and urlsplit(uri).hostname:
        return None
    raise ConfigError(
        "registry.invalid_uri",
        f"the tracking URI {without_password(uri)} is neither sqlite:///FILE nor "
        "http(s)://HOST; correct registry.tracking_uri",
    )


def artifacts_beside(database: Path) -> str:
    """Return the URI of the artifact folder of a local registry."""
    return (database.parent / "artifacts").absolute().as_uri()


def local_folder(uri: str) -> Path | None:
    """Return the folder of a ``file:`` URI; None for files that a server keeps."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def relocate_artifact_uris(database: Path) -> None:
    """Correct the artifact places of a database that was copied or moved with its artifacts.

    MLflow stores absolute places and has no function to change them, so a copied workspace would
    write into the original one. Only places in a folder ``artifacts`` beside the old database are
    changed; an experiment with another place keeps it.

    Raises
    ------
    RegistryError
        ``registry.database_unusable``, ``registry.database_damaged``
    """
    here = artifacts_beside(database)
    folders = here.rsplit("/", 2)[1:]
    with _database_errors(database):
        if not database.is_file():
            return
        with closing(_open(database)) as tables, tables:
            if not _has_table(tables, "experiments"):
                return
            rows = tables.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
            for (old,) in rows:
                if old != here and old.startswith("file:") and old.rsplit("/", 2)[1:] == folders:
                    for table, column in _PLACES:
                        tables.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608
                            f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                        )


def without_password(uri: str) -> str:
    """Return `uri` without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def connect(uri: str) -> MlflowClient:
    """Return a client of a registry that has just responded.

    Raises
    ------
    RegistryError
        ``registry.unavailable``, ``registry.server_version``, ``registry.database_missing``,
        ``registry.database_unusable``, ``registry.database_damaged``, ``registry.database_newer``
    """
    file = sqlite_path(uri)
    # MLflow would create a missing file, and not name it.
    if file is not None and not _probe_file(file):
        raise RegistryError(
            "registry.database_missing",
            f"MLflow's database {file} is missing or empty; run `nightjar register --all`",
        )
    with registry_errors(uri):
        if file is None:
            _probe_server(uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create(uri: str, file: Path) -> MlflowClient:
    """Return a client of a local database; the first call creates its tables, in 2 to 6 s.

    Parameters
    ----------
    uri
        ``sqlite:///FILE``
    file
        The same file.

    Raises
    ------
    RegistryError
        ``registry.failed``, ``registry.database_unusable``, ``registry.database_damaged``,
        ``registry.database_newer``
    """
    _probe_file(file)
    with registry_errors(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise PermissionError(f"cannot write {file}")
        from mlflow import MlflowClient
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        # The client alone would place MLflow's default experiment below the current folder.
        SqlAlchemyStore(uri, artifacts_beside(file))  # type: ignore[no-untyped-call]
        sync(file.parent, file.parent.parent)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """Turn failures of MLflow into a `RegistryError` that names the registry.

    Raises
    ------
    RegistryError
        ``registry.failed``; ``registry.unavailable`` if a server stopped to respond;
        ``registry.database_damaged`` if SQLite cannot read the file
    """
    os.environ.update(_ALWAYS)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # Deprecations in MLflow's use of SQLAlchemy, protobuf and pydantic are MLflow's to fix.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "(?s).*Any type hint is inferred as AnyType")
        from mlflow.exceptions import MlflowException
        from requests.exceptions import ConnectionError, RetryError, Timeout
        from sqlalchemy.exc import SQLAlchemyError

        # MLflow logs a traceback beside the error that is raised here.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        try:
            yield
        except (MlflowException, SQLAlchemyError, UnicodeDecodeError, OSError) as fault:
            if (damage := _sqlite_damage(fault)) is not None:
                raise _damaged(uri.removeprefix(_SQLITE), damage) from fault
            if any(isinstance(x, ConnectionError | RetryError | Timeout) for x in _causes(fault)):
                raise _unavailable(uri) from fault
            reason = f"{_first_line(fault, uri)}; correct the cause and repeat this step"
            if uri.startswith(_SQLITE) and machine_error(fault) is not None:
                reason = fault_text(fault)
            raise RegistryError(
                "registry.failed", f"MLflow at {without_password(uri)} failed: {reason}"
            ) from fault


def _probe_file(file: Path) -> bool:
    """Return whether a database has tables, and raise if MLflow cannot use it."""
    with _database_errors(file):
        if not file.exists() or (file.is_file() and not file.stat().st_size):
            return False
        # MLflow itself retries an unusable file for an hour.
        with closing(_open(file)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            schemas = []
            if _has_table(database, "alembic_version"):
                schemas = database.execute("SELECT version_num FROM alembic_version").fetchall()
            database.execute("ROLLBACK")
    for (schema,) in schemas:
        _refuse_newer(file, schema)
    return bool(tables)


def _has_table(database: sqlite3.Connection, name: str) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    return bool(database.execute(query, (name,)).fetchone()[0])


def _refuse_newer(file: Path, schema: str) -> None:
    """Raise `registry.database_newer` for a schema that is newer than the installed MLflow."""
    # Not asked from alembic, which loads all migrations in a second.
    package = Path(str(util.find_spec("mlflow").origin)).parent  # type: ignore[union-attr]
    known = (package / "store" / "db_migrations" / "versions").iterdir()
    if not any(migration.name.startswith(f"{schema}_") for migration in known):
        # MLflow's own message, that the database is out of date and needs an upgrade, is wrong.
        raise RegistryError(
            "registry.database_newer",
            f"MLflow's database {file} was written by a newer MLflow than the installed "
            f"{version('mlflow')}: its schema {schema} is unknown; install that MLflow, or move "
            "the database away and run `nightjar register --all`",
        )


@contextmanager
def _database_errors(file: Path) -> Iterator[None]:
    """Turn a failure of SQLite into a `RegistryError` that names the file."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, OSError) as fault:
        if _sqlite_damage(fault) is not None:
            raise _damaged(file, fault) from None
        raise RegistryError(
            "registry.database_unusable",
            f"cannot use MLflow's database {file}: {fault}; correct the cause and repeat this step",
        ) from None


def _sqlite_damage(fault: BaseException | None) -> BaseException | None:
    """Return SQLite's error about a damaged file among the causes of an error, or None."""
    # Of this class itself are `malformed` and `not a database`; a lock or permissions are not.
    # The message about a damaged schema quotes it, and may not be UTF-8 then.
    damages = (sqlite3.DatabaseError, UnicodeDecodeError)
    return next((cause for cause in _causes(fault) if type(cause) in damages), None)


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield a fault and those below it."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__


def _unavailable(uri: str) -> RegistryError:
    return RegistryError(
        "registry.unavailable",
        f"MLflow at {without_password(uri)} does not respond; start it, or correct "
        "registry.tracking_uri, then run the same command again",
    )


def _damaged(file: Path | str, fault: BaseException) -> RegistryError:
    return RegistryError(
        "registry.database_damaged",
        f"MLflow's database {file} is damaged: {fault}; move it away, then run `nightjar register "
        "--all`",
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
        response = http_request(  # type: ignore[no-untyped-call]
            credentials, "/health", "GET", timeout=_PROBE_SECONDS, max_retries=0
        )
    except MlflowException as fault:
        raise _unavailable(uri) from fault
    if response.status_code != 200:
        raise OSError(f"the health check returned status {response.status_code}")
    served = http_request(  # type: ignore[no-untyped-call]
        credentials, "/version", "GET", timeout=_PROBE_SECONDS, max_retries=0
    ).text.strip()
    # Logged models and their metrics exist since MLflow 3; a later main version may change them.
    if served.partition(".")[0] != (installed := version("mlflow")).partition(".")[0]:
        raise RegistryError(
            "registry.server_version",
            f"MLflow at {without_password(uri)} has version {served[:20]!r}, the client "
            f"{installed}; use a server of the same main version, or correct registry.tracking_uri",
        )


def _first_line(fault: Exception, uri: str) -> str:
    login = urlsplit(uri).netloc.rpartition("@")[0]
    text = str(fault).replace(f"{login}@", "").strip() if login else str(fault).strip()
    return text.splitlines()[0][:300] if text else type(fault).__name__
