"""What is asked of versions that are there: their files as they were written, further metrics.

Promises: nothing here makes a version or moves an alias; what is told twice is there once.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def check_files(
    client: MlflowClient,
    uri: str,
    model_name: str,
    version: int,
    sums: Mapping[str, str],
    *,
    where: str,
) -> None:
    """Fetch files of a version and compare their sha256; `RegistryError` names the first fault."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    what = f"version {version} of {model_name} at {where}"
    with tempfile.TemporaryDirectory() as scratch:
        source = client.get_model_version_download_uri(model_name, str(version))
        for name, expected in sorted(sums.items()):
            try:
                file = download_artifacts(
                    artifact_uri=f"{source}/artifacts/{name}", dst_path=scratch, tracking_uri=uri
                )
            except (MlflowException, OSError) as fault:
                raise RegistryError(
                    "registry.file_missing", f"{what}: {name} cannot be fetched"
                ) from fault
            with Path(file).open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
            if actual != expected:
                raise RegistryError(
                    "registry.checksum",
                    f"{what}: {name} came back with sha256 {actual[:12]}, written was "
                    f"{expected[:12]}",
                )


def log_metrics(
    client: MlflowClient,
    model_name: str,
    version: int,
    metrics: Mapping[str, float],
    at: datetime,
    step: int,
) -> None:
    """Add metrics to the run of a version, at an instant and step; none where it was deleted."""
    from mlflow.entities import Metric

    millis = round(at.timestamp() * 1000)
    # Equal name, value, step and instant: MLflow keeps one, however often it is told.
    points = [Metric(name, value, millis, step) for name, value in sorted(metrics.items())]
    for model in client.search_model_versions(f"name = '{model_name}'"):
        if int(model.version) == version and model.run_id is not None:
            client.log_batch(model.run_id, metrics=points)
