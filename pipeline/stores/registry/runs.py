"""The runs of one nightly run or study in MLflow: found by their tags, or created; filled, ended.

Guarantees: repeated calls leave the same runs; a run is created together with the tags by which it
is found, so a crash leaves no run that cannot be found.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.base import format_instant
from pipeline.stores.registry.records import ChildRecord, DatasetRecord, ParentRecord, RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

RUN_TAG = "nightjar.run_id"
RECIPE_TAG = "nightjar.recipe"
AS_OF_TAG = "nightjar.as_of"
NOTE_TAG = "mlflow.note.content"
_NAME = "mlflow.runName"
_A_BATCH = 100
"""Entities per request: MLflow's limit for params and tags."""


class NightRuns:
    """Parent and children of one record in one experiment."""

    def __init__(self, client: MlflowClient, experiment_id: str, record: ParentRecord) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._record = record

    def find(self, recipe: str, view: int = 1) -> Run | None:
        """Return the run of a recipe or of a parent's `MARK`; None if there is none.

        Parameters
        ----------
        recipe
            Recipe or `MARK`.
        view
            MLflow's `ViewType`; default: runs that are not deleted.
        """
        matches = self._client.search_runs(
            [self._experiment_id],
            f"tags.`{RUN_TAG}` = '{self._record.run_id}' and tags.`{RECIPE_TAG}` = '{recipe}'",
            run_view_type=view,
            order_by=["attributes.start_time ASC"],
        )
        return matches[0] if matches else None

    def _existing(self, recipe: str) -> Run | None:
        """Return the run of a recipe; one that a user deleted is restored."""
        from mlflow.entities import ViewType

        run = self.find(recipe) or self.find(recipe, ViewType.DELETED_ONLY)
        if run is not None and run.info.lifecycle_stage == "deleted":
            self._client.restore_run(run.info.run_id)
        return run

    def parent(self) -> Run:
        """Return the parent run; a new one is empty."""
        record = self._record
        return self._existing(record.MARK) or self._make(
            record.MARK, record.title, {NOTE_TAG: record.note}
        )

    def fill_parent(self, run: Run) -> None:
        """Log the content of the parent run."""
        record = self._record
        # Title and note change when a study grows, or when a user overrides a decision.
        self._fill(run, record, {**record.tags, NOTE_TAG: record.note, _NAME: record.title})

    def child(self, child: ChildRecord, parent_id: str) -> Run:
        """Return the run of a recipe with its content.

        Parameters
        ----------
        child
            The recipe or trial.
        parent_id
            MLflow's id of the parent run.
        """
        name = self._record.title_of(child)
        # The name changes when a user overrides a decision.
        tags = {**child.tags, "mlflow.parentRunId": parent_id, _NAME: name}
        if note := self._record.note_of(child):
            tags[NOTE_TAG] = note
        run = self._existing(child.recipe) or self._make(child.recipe, name, tags)
        self._fill(run, child, tags)
        for name, values in sorted(child.series.items()):
            for step, value in enumerate(values, start=1):
                point, at = {name: value}, self._record.as_of
                log_metrics(self._client, run.info.run_id, point, at, step=step)
        return run

    def finish(self, run: Run, status: str) -> None:
        """End a run.

        Parameters
        ----------
        run
            A run that may have ended already.
        status
            MLflow's status, such as ``FINISHED``.
        """
        if run.info.status != status:
            ended = _millis(self._record.ended)
            self._client.set_terminated(run.info.run_id, status, end_time=ended)

    def _make(self, recipe: str, name: str, tags: Mapping[str, str]) -> Run:
        identity = {
            RUN_TAG: self._record.run_id,
            RECIPE_TAG: recipe,
            AS_OF_TAG: format_instant(self._record.as_of),
            "mlflow.source.name": "nightjar",
            "mlflow.source.type": "JOB",
            "mlflow.user": "nightjar",
        }
        return self._client.create_run(
            self._experiment_id,
            start_time=_millis(self._record.began),
            run_name=name,
            tags={**self._record.tags, **tags, **identity},
        )

    def _fill(self, run: Run, record: RunRecord, tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        run_id = run.info.run_id
        params = [Param(name, str(value)) for name, value in sorted(record.params.items())]
        for batch in _batches(params):
            self._client.log_batch(run_id, params=batch)
        for batch in _batches([RunTag(name, value) for name, value in sorted(tags.items())]):
            self._client.log_batch(run_id, tags=batch)
        log_metrics(self._client, run_id, record.metrics, self._record.as_of)
        if self._record.datasets:
            self._client.log_inputs(run_id, [_dataset(table) for table in self._record.datasets])
        for place, file in sorted(record.artifacts.items()):
            self._upload(run_id, PurePosixPath(place), file)

    def _upload(self, run_id: str, place: PurePosixPath, file: Path | bytes) -> None:
        folder = str(place.parent) if place.parent.name else None
        if isinstance(file, Path) and file.name == place.name:
            self._client.log_artifact(run_id, str(file), folder)
            return
        # MLflow has no argument for the name of an uploaded file.
        with tempfile.TemporaryDirectory() as scratch:
            renamed = Path(scratch, place.name)
            renamed.write_bytes(file if isinstance(file, bytes) else file.read_bytes())
            self._client.log_artifact(run_id, str(renamed), folder)


def _dataset(record: DatasetRecord) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(
        Dataset(
            name=record.name,
            digest=_digest(record),
            source_type="delta_table",
            source=json.dumps(
                {"path": f"lake/{record.name}", "delta_table_version": record.lake_version}
            ),
            profile=json.dumps({"num_rows": record.rows, "lake_version": record.lake_version}),
        ),
        [InputTag("mlflow.data.context", record.context)],
    )


def _digest(record: DatasetRecord) -> str:
    return record.digest[:36]


def log_metrics(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    at: datetime,
    *,
    step: int = 0,
    model_id: str | None = None,
    dataset: DatasetRecord | None = None,
) -> None:
    """Log metrics of a run; a repetition changes nothing.

    Parameters
    ----------
    client
        Client of the registry.
    run_id
        MLflow's id of the run.
    metrics
        Values by name; those that are not finite are skipped.
    at
        Instant of the metrics, with a time zone.
    step
        MLflow's step.
    model_id
        A logged model of the run; the metrics are its metrics.
    dataset
        Input of the run on which the metrics were measured.
    """
    from mlflow.entities import Metric

    # MLflow keeps one metric of equal name, value, step and instant, so a retry adds nothing. A
    # value that is not finite (no user was evaluated) makes MLflow's charts empty.
    millis = round(at.timestamp() * 1000)
    measured_on = {}
    if dataset is not None:
        measured_on = {"dataset_name": dataset.name, "dataset_digest": _digest(dataset)}
    points = [
        Metric(name, value, millis, step, model_id=model_id, **measured_on)
        for name, value in sorted(metrics.items())
        if math.isfinite(value)
    ]
    for batch in _batches(points):
        client.log_batch(run_id, metrics=batch)


def _millis(instant: datetime | None) -> int | None:
    return None if instant is None else round(instant.timestamp() * 1000)


def _batches(rows: list[Any]) -> list[list[Any]]:
    return [rows[start : start + _A_BATCH] for start in range(0, len(rows), _A_BATCH)]
