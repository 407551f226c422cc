"""Client of the workspace's MLflow, and the aliases that follow the ledger.

Guarantees: without a publication no alias moves; `champion` is the version of the newest
publication of the ledger, `previous` that of the one before.
"""

from __future__ import annotations

from typing import Final

from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import relocate_artifact_uris
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.workspace import Workspace

STUDIES: Final = "-tuning"
"""Suffix of the experiment of tuning studies, whose many runs would hide the nightly ones."""


def registry(ws: Workspace, suffix: str = "") -> Registry:
    """Return the client of an experiment of the workspace's MLflow.

    Parameters
    ----------
    suffix
        ``""`` for the experiment of nightly runs, `STUDIES` for that of studies.
    """
    # MLflow stores absolute paths: those of a copied or moved workspace are corrected first.
    if ws.config.registry.tracking_uri is None:
        relocate_artifact_uris(ws.mlflow_database)
    experiment = f"{ws.config.registry.experiment}{suffix}"
    return Registry(ws.tracking_uri, experiment, ws.config.registry.model_name)


def point_aliases(ws: Workspace) -> None:
    """Point the aliases ``champion`` and ``previous`` at the newest two publications."""
    versions = [int(e.model_version) for e in LedgerHistory.of(ws.ledger).publications[-2:]]
    if versions:
        registry(ws).move_aliases(versions[-1], versions[0] if len(versions) > 1 else None)
