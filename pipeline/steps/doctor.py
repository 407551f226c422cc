"""Checks of what works here, each thing tried for real, with one sentence each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import NightjarError, ResourceError
from pipeline.workspace.workspace import LEARNT_FROM, Workspace

_LIBRARIES: Final = ("polars", "deltalake", "implicit", "mlflow", "apache-airflow")


@dataclass(frozen=True)
class HealthCheck:
    """One thing that was tried."""

    name: str
    ok: bool
    sentence: str


def examine(home: Path) -> tuple[HealthCheck, ...]:
    """Try everything that a night needs, and what it can use."""
    checks = [
        HealthCheck("python", sys.version_info >= (3, 11), sys.version.split()[0]),
        *(_installed(name) for name in _LIBRARIES),
        _gpu(),
        _lightfm(),
    ]
    try:
        ws = Workspace.open(home)
    except NightjarError as error:
        return (*checks, HealthCheck("workspace", False, error.sentence))
    return (*checks, HealthCheck("workspace", True, f"{ws.home}, settings valid"), *_stores(ws))


def _stores(ws: Workspace) -> Iterator[HealthCheck]:
    yield _try("writable", lambda: _write(ws.home))
    yield _try("lake", lambda: _lake(ws))
    yield _try("vault", lambda: f"opens with its key, {len(ws.vault):,} people")
    yield _try("ledger", lambda: f"{len(ws.ledger.entries())} lines, their chain holds")
    yield _try("mlflow store", lambda: _registry(ws))
    yield _airflow_home(ws)


def _try(name: str, attempt: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, True, attempt())
    except NightjarError as error:
        return HealthCheck(name, False, error.sentence)
    except OSError as error:
        return HealthCheck(name, False, f"{error.strerror}: {error.filename}")


def _write(home: Path) -> str:
    with tempfile.NamedTemporaryFile(dir=home):
        return "the workspace can be written"


def _lake(ws: Workspace) -> str:
    versions = ws.current_versions(*LEARNT_FROM, "publications")
    return ", ".join(f"{t} at version {v}" for t, v in versions.items() if v is not None) or "empty"


def _registry(ws: Workspace) -> str:
    from pipeline.workspace.registry import registry

    registry(ws).prepare()
    return "MLflow's store answers"


def _airflow_home(ws: Workspace) -> HealthCheck:
    """Jobs and pages must look into one database, or runs are there and not to be seen."""
    mine = ws.home / "airflow"
    given = os.environ.get("AIRFLOW_HOME")
    if given is None or Path(given).resolve() == mine:
        return HealthCheck("airflow store", True, f"jobs and pages share {mine}")
    return HealthCheck(
        "airflow store", False, f"AIRFLOW_HOME is {given}, but this workspace's jobs use {mine}"
    )


def _installed(name: str) -> HealthCheck:
    try:
        return HealthCheck(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return HealthCheck(name, False, "not installed")


def _gpu() -> HealthCheck:
    """A machine without a GPU is no fault; a GPU that implicit cannot use is told."""
    from pipeline.models.device import cuda_usable

    sentence = "implicit can use it" if cuda_usable() else "none usable; training on cpu"
    return HealthCheck("gpu", True, sentence)


def _lightfm() -> HealthCheck:
    """One family needs it, and nothing else: that it is not there is no fault."""
    from pipeline.models.lightfm import library

    sentence = "not installed; `make lightfm` builds it (family lightfm)"
    with suppress(ResourceError):
        library()
        import lightfm

        sentence = f"installed {lightfm.__version__} (family lightfm)"
    return HealthCheck("lightfm", True, sentence)
