"""Clients of the workspace's MLflow, and the aliases that follow the ledger."""

from __future__ import annotations

from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import relocate_artifact_uris
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.workspace import Workspace


def registry(ws: Workspace) -> Registry:
    """Return the door to this workspace's MLflow."""
    return _registry(ws, ws.config.registry.experiment)


def study_registry(ws: Workspace) -> Registry:
    """Return the door to the experiment of its studies, whose many runs would bury the nights."""
    return _registry(ws, f"{ws.config.registry.experiment}-tuning")


def _registry(ws: Workspace, experiment: str) -> Registry:
    if ws.config.registry.tracking_uri is None:
        relocate_artifact_uris(ws.mlflow_database)
    return Registry(ws.tracking_uri, experiment, ws.config.registry.model_name)


def point_aliases(ws: Workspace) -> None:
    """Point MLflow's aliases at the live version and the one that was live before it."""
    versions = [int(e.model_version) for e in LedgerHistory.of(ws.ledger).publications[-2:]]
    if versions:
        registry(ws).move_aliases(versions[-1], versions[0] if len(versions) > 1 else None)
