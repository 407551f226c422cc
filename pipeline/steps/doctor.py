"""Checks of the installation and the workspace; each check tries one thing and has a sentence.

Guarantees: an expected error is the result of its check and does not prevent the others; only the
stores of a workspace that cannot be opened are left out. A missing GPU or LightFM is never a
failure.
"""

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

from pipeline.errors import ConfigError, NightjarError, ResourceError
from pipeline.models.device import usable_gpu
from pipeline.models.gpu_driver import GpuError
from pipeline.stores.vault import verify_vault
from pipeline.workspace.agreement import compare_vault, refuse_cut_ledger
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.permissions import corrections
from pipeline.workspace.workspace import LEARNT_FROM, Workspace

_LIBRARIES: Final = ("polars", "deltalake", "implicit", "mlflow", "apache-airflow")
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class HealthCheck:
    """Result of one check."""

    name: str
    ok: bool
    sentence: str


def examine(home: Path) -> tuple[HealthCheck, ...]:
    """Check everything that a nightly run needs or can use."""
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
    yield _permissions(ws)
    yield _try("writable", lambda: _write(ws.home))
    yield _try("landing", lambda: _landing(ws.home))
    yield _try("lake", lambda: _lake(ws))
    yield _try("vault", lambda: _vault(ws))
    yield _try("ledger", lambda: f"{len(ws.ledger.entries())} lines, checksums valid")
    yield _try("agreement", lambda: _agreement(ws))
    yield _try("live model", lambda: _live_model(ws))
    yield _try("mlflow store", lambda: _registry(ws))
    yield _airflow_home(ws)


def _try(name: str, attempt: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(name, True, attempt())
    except NightjarError as error:
        return HealthCheck(name, False, error.sentence)
    except OSError as error:
        return HealthCheck(name, False, f"{error.strerror}: {error.filename}")


def _permissions(ws: Workspace) -> HealthCheck:
    """Check that all paths belong to the owner, and are accessible to the intended users only."""
    name, group = "permissions", ws.config.workspace.group
    try:
        commands = corrections(ws.home, group)
    except ConfigError as error:
        return HealthCheck(name, False, error.sentence)
    if not commands:
        users = f"its owner and the group {group}" if group else "its owner"
        return HealthCheck(name, True, f"only {users} can read the workspace")
    more = len(commands) - _EXAMPLES
    listed = "; ".join(f"`{command}`" for command in commands[:_EXAMPLES])
    number = "1 path has" if len(commands) == 1 else f"{len(commands):,} paths have"
    return HealthCheck(
        name,
        False,
        f"{number} another owner, group or mode than intended, which gives other users access; run "
        + listed
        + (f", and run doctor again for {more:,} more" if more > 0 else ""),
    )


def _write(home: Path) -> str:
    # Permission bits do not show a mount that is read-only.
    with tempfile.NamedTemporaryFile(dir=home):
        return "the workspace is writable"


def _landing(home: Path) -> str:
    """Report mounted landing folders: their files are copied, so the check never fails for them."""
    folders = (home / "landing", *((home / "landing" / table) for table in LEARNT_FROM))
    apart = [str(folder) for folder in folders if folder.stat().st_dev != home.stat().st_dev]
    if apart:
        return f"{', '.join(apart)}: another file system, so files are copied to archive/"
    return "on the file system of the workspace"


def _lake(ws: Workspace) -> str:
    versions = ws.current_versions(*LEARNT_FROM, "publications")
    return ", ".join(f"{t} at version {v}" for t, v in versions.items() if v is not None) or "empty"


def _vault(ws: Workspace) -> str:
    if not ws.vault_file.exists():
        compare_vault(ws.lake, ws.vault_file)
        return f"its key has {len(ws.vault_key)} bytes; the first ingest creates it"
    verify_vault(ws.vault_file)
    return f"opens with its key, {len(ws.vault):,} users"


def _agreement(ws: Workspace) -> str:
    ws.compare_stores()
    refuse_cut_ledger(ws.damaged_ledger)
    return "no store is older than another one, or comes from another workspace"


def _live_model(ws: Workspace) -> str:
    """Verify the files of the live model, which fold-in and `register` read."""
    live = LedgerHistory.of(ws.ledger).live
    if live is None:
        return "no lists are live yet"
    run = ws.runs.open(live.run_id)
    for name in run.manifest(REFIT)["files"]:
        run.path(REFIT, name)
    return f"all files of version {live.model_version} are there, checksums valid"


def _registry(ws: Workspace) -> str:
    from pipeline.workspace.registry import registry  # imports MLflow, which takes seconds

    registry(ws).prepare(restores=False)
    return "the store of MLflow is available"


def _airflow_home(ws: Workspace) -> HealthCheck:
    """Check that jobs and pages use one database: pages of another one show no runs."""
    folder, given = ws.home / "airflow", os.environ.get("AIRFLOW_HOME")
    if given is None or Path(given).resolve() == folder:
        return HealthCheck("airflow store", True, f"jobs and pages share {folder}")
    sentence = f"AIRFLOW_HOME is {given}; set it to {folder}, which this workspace's jobs use"
    return HealthCheck("airflow store", False, sentence)


def _installed(name: str) -> HealthCheck:
    try:
        # Metadata give the version without an import, which takes seconds for some libraries.
        return HealthCheck(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return HealthCheck(name, False, "not installed")


def _gpu() -> HealthCheck:
    """Report the GPU; without one, training runs on the CPU, so the check never fails."""
    try:
        gpu = usable_gpu()
    except GpuError as cause:
        return HealthCheck("gpu", True, f"not used ({cause.id}): {cause.sentence}")
    major, minor = gpu.capability
    return HealthCheck("gpu", True, f"{gpu.name}, compute capability {major}.{minor}, is used")


def _lightfm() -> HealthCheck:
    """Report LightFM; only the family `lightfm` needs it, so the check never fails."""
    from pipeline.models.lightfm import library

    sentence = "not installed; `make lightfm` builds it (family lightfm)"
    with suppress(ResourceError):
        library()
        import lightfm

        sentence = f"installed {lightfm.__version__} (family lightfm)"
    return HealthCheck("lightfm", True, sentence)
