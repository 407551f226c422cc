"""Client of the workspace's MLflow, and the aliases that follow the ledger.

Guarantees: without a publication no alias moves; `champion` is the version of the newest
publication of the ledger, `previous` that of the one before. An alias of a version that MLflow does
not have is removed, because it would name another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.stores.registry import texts
from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import relocate_artifact_uris
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import PublicationEntry
from pipeline.workspace.mlflow_names import columns_of_runs
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
    model_name, k = ws.config.registry.model_name, ws.config.recommend.length
    nights = suffix != STUDIES
    return Registry(
        ws.tracking_uri,
        experiment,
        model_name,
        ws.lake.id,
        about=texts.NIGHTS if nights else texts.STUDIES,
        columns=columns_of_runs(k) if nights else (),
    )


def point_aliases(ws: Workspace) -> None:
    """Point the aliases ``champion`` and ``previous`` at the newest two publications."""
    publications = LedgerHistory.of(ws.ledger).publications
    if publications:
        mlflow = registry(ws)
        shown = mlflow.versions()
        newest = [_number(shown, entry) for entry in reversed(publications[-2:])]
        mlflow.move_aliases(*newest, *[None] * (2 - len(newest)))


def _number(shown: Mapping[int, str], entry: PublicationEntry) -> int | None:
    """Return the number of a published version in MLflow, or None."""
    number = int(entry.model_version)
    if shown.get(number) == entry.run_id:
        return number
    # A version that a user deleted in MLflow cannot be made again under its own number.
    return next((other for other, run in shown.items() if run == entry.run_id), None)
