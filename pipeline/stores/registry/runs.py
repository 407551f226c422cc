"""The runs of one night or study in MLflow: found by their tags, made if missing, filled, ended.

Promises: each call leaves the same runs however often it is made; a run is made together with the
tags by which it is found, so a death right after leaves nothing that cannot be found.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.base import format_instant
from pipeline.stores.registry.records import ChildRecord, DatasetRecord, NightRecord, StudyRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

RUN_TAG = "nightjar.run_id"
RECIPE_TAG = "nightjar.recipe"
AS_OF_TAG = "nightjar.as_of"
DECISION_TAG = "nightjar.decision"
NIGHT, STUDY = "(night)", "(study)"
"""`RECIPE_TAG` of a parent run; no recipe has brackets in its name."""
_NOTE = "mlflow.note.content"
_NAME = "mlflow.runName"
_A_BATCH = 100


class NightRuns:
    """Parent and children of one night, or of one study, in one experiment."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, night: NightRecord | StudyRecord
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._night = night
        self._whole = NIGHT if isinstance(night, NightRecord) else STUDY
        self._millis = round(night.as_of.timestamp() * 1000)

    def find(self, recipe: str) -> Run | None:
        """Return the run of a recipe (or `NIGHT`, `STUDY`), ``None`` if there is none."""
        matches = self._client.search_runs(
            [self._experiment_id],
            f"tags.`{RUN_TAG}` = '{self._night.run_id}' and tags.`{RECIPE_TAG}` = '{recipe}'",
            order_by=["attributes.start_time ASC"],
        )
        return matches[0] if matches else None

    def parent(self) -> Run:
        """Return the night's own run."""
        note = {_NOTE: self._note()}
        return self.find(self._whole) or self._make(self._whole, self._title(), note)

    def fill_parent(self, run: Run) -> None:
        """Log what the night as a whole has to show."""
        night = self._night
        # A study that went on says something new; so does a night that a person decided.
        tags = {**night.tags, _NOTE: self._note(), _NAME: self._title()}
        self._fill(run, night.params, night.metrics, tags, night.artifacts)

    def child(self, child: ChildRecord, parent_id: str) -> Run:
        """Return the run of a recipe, filled."""
        tags = {**child.tags, "mlflow.parentRunId": parent_id}
        note = child.failure or self._sentence_for(child)
        if note:
            tags[_NOTE] = note
        name = f"{child.recipe} {self._night.as_of:%Y-%m-%d}"
        run = self.find(child.recipe) or self._make(child.recipe, name, tags)
        self._fill(run, child.params, child.metrics, tags, child.artifacts)
        for name, values in sorted(child.series.items()):
            for step, value in enumerate(values, start=1):
                self.log_metrics(run.info.run_id, {name: value}, None, step)
        return run

    def _note(self) -> str:
        """Say what was decided, and of a night below it what asked for it."""
        night = self._night
        why = night.why if isinstance(night, NightRecord) else ""
        return f"{night.sentence}\n\n{why}" if why else night.sentence

    def _title(self) -> str:
        """Name the parent as a person looks for it: the day of a night, and what was decided."""
        night = self._night
        if not isinstance(night, NightRecord):
            return night.run_id
        decided = night.tags.get(DECISION_TAG)
        day = f"{night.as_of:%Y-%m-%d}"
        return f"{day} {decided}" if decided else day

    def _sentence_for(self, child: ChildRecord) -> str | None:
        """Return what the night says of the recipe that it put before people."""
        night = self._night
        won = isinstance(night, NightRecord) and child.recipe == night.winner
        return night.sentence if won else None

    def log_metrics(
        self, run_id: str, metrics: Mapping[str, float], model_id: str | None, step: int = 0
    ) -> None:
        """Log metrics of a run, or of a logged model of that run, at the night's instant."""
        from mlflow.entities import Metric

        # Equal name, value, step and instant: MLflow keeps one, however often it is told. What is
        # no number (nobody could be judged) stays away: it empties MLflow's charts.
        points = [
            Metric(name, value, self._millis, step, model_id=model_id)
            for name, value in sorted(metrics.items())
            if math.isfinite(value)
        ]
        for few in _batches(points):
            self._client.log_batch(run_id, metrics=few)

    def finish(self, run: Run, status: str) -> None:
        """End a run that has not ended yet."""
        if run.info.status != status:
            self._client.set_terminated(run.info.run_id, status)

    def _make(self, recipe: str, name: str, tags: Mapping[str, str]) -> Run:
        marks = {
            RUN_TAG: self._night.run_id,
            RECIPE_TAG: recipe,
            AS_OF_TAG: format_instant(self._night.as_of),
            "mlflow.source.name": "nightjar",
            "mlflow.source.type": "JOB",
            "mlflow.user": "nightjar",
        }
        return self._client.create_run(
            self._experiment_id, run_name=name, tags={**self._night.tags, **tags, **marks}
        )

    def _fill(
        self,
        run: Run,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Path],
    ) -> None:
        from mlflow.entities import Param, RunTag

        run_id = run.info.run_id
        for few in _batches([Param(name, str(value)) for name, value in sorted(params.items())]):
            self._client.log_batch(run_id, params=few)
        for few in _batches([RunTag(name, value) for name, value in sorted(tags.items())]):
            self._client.log_batch(run_id, tags=few)
        self.log_metrics(run_id, metrics, None)
        if self._night.datasets:
            self._client.log_inputs(run_id, [_dataset(record) for record in self._night.datasets])
        for place, file in sorted(artifacts.items()):
            self._upload(run_id, PurePosixPath(place), file)

    def _upload(self, run_id: str, place: PurePosixPath, file: Path) -> None:
        folder = str(place.parent) if place.parent.name else None
        if file.name == place.name:
            self._client.log_artifact(run_id, str(file), folder)
            return
        with tempfile.TemporaryDirectory() as scratch:
            renamed = Path(scratch, place.name)
            renamed.write_bytes(file.read_bytes())
            self._client.log_artifact(run_id, str(renamed), folder)


def _dataset(record: DatasetRecord) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(
        Dataset(
            name=record.name,
            digest=record.digest[:36],
            source_type="delta_table",
            source=json.dumps(
                {"path": f"lake/{record.name}", "delta_table_version": record.lake_version}
            ),
            profile=json.dumps({"num_rows": record.rows, "lake_version": record.lake_version}),
        ),
        [InputTag("mlflow.data.context", record.context)],
    )


def _batches(rows: list[Any]) -> list[list[Any]]:
    return [rows[start : start + _A_BATCH] for start in range(0, len(rows), _A_BATCH)]
