"""Clients of the workspace's MLflow, and the aliases that follow the ledger."""

from __future__ import annotations

from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import come_home
from pipeline.workspace.history import PUBLICATION
from pipeline.workspace.workspace import Workspace


def registry(ws: Workspace) -> Registry:
    """Return the door to this workspace's MLflow."""
    return _registry(ws, ws.config.registry.experiment)


def study_registry(ws: Workspace) -> Registry:
    """Return the door to the experiment of its studies, whose many runs would bury the nights."""
    return _registry(ws, f"{ws.config.registry.experiment}-tuning")


def _registry(ws: Workspace, experiment: str) -> Registry:
    if ws.config.registry.tracking_uri is None:
        come_home(ws.mlflow_database)
    return Registry(ws.tracking_uri, experiment, ws.config.registry.model_name)


def point_aliases(ws: Workspace) -> None:
    """Point MLflow's aliases at what the ledger says is live, and at what was live before it."""
    lines = [entry for entry in ws.ledger.entries() if entry["type"] == PUBLICATION]
    lines.sort(key=lambda entry: int(entry["generation"]))
    versions = [int(entry["model_version"]) for entry in lines]
    if versions:
        registry(ws).move_aliases(versions[-1], versions[-2] if len(versions) > 1 else None)
