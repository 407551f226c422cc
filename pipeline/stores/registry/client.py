"""A night in MLflow: one parent run, one child run a recipe, one version of the winner.

Promises: everything shown is copied from files already written, so a registry that was away loses
nothing; runs, the logged model and the version are found again by their tags, so a retry after a
death at any point finishes the night and doubles nothing; the version belongs to the winner's child
run, so that MLflow's comparison of two versions shows their metrics. One writer a night at a time:
the caller holds the run's lock.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.base import format_instant
from pipeline.errors import RegistryError
from pipeline.stores.registry.door import (
    artifacts_beside,
    connect,
    create,
    door,
    sqlite_path,
    without_password,
)
from pipeline.stores.registry.package import save
from pipeline.stores.registry.records import (
    ChildRecord,
    DatasetRecord,
    Mirrored,
    ModelRecord,
    NightRecord,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPION = "champion"
PREVIOUS = "previous"
RUN_TAG = "nightjar.run_id"
RECIPE_TAG = "nightjar.recipe"
AS_OF_TAG = "nightjar.as_of"
_PARENT = "(night)"
"""`RECIPE_TAG` of a parent run; no recipe has brackets in its name."""
_MODEL = "model"
_A_BATCH = 100


class Registry:
    """One experiment and one registered model of one MLflow.

    Parameters
    ----------
    tracking_uri
        ``http(s)://HOST[:PORT]``, or ``sqlite:///FILE`` for the database that `make ui` shows;
        then files lie in ``artifacts`` beside it, and a server decides otherwise.
    """

    def __init__(self, tracking_uri: str, experiment: str, model_name: str) -> None:
        self._file = sqlite_path(tracking_uri)
        self._uri = tracking_uri
        self._experiment = experiment
        self._model_name = model_name

    def prepare(self) -> None:
        """Make the database, the experiment and the registered model, whichever are missing."""
        if self._file is not None:
            self._client = create(self._uri, self._file)
        with door(self._uri):
            self._experiment_id  # noqa: B018 - made where it is looked up first
            self._ensure_registered()

    def check(self) -> None:
        """Raise `RegistryError` within seconds unless the registry answers now."""
        connect(self._uri)

    def mirror_night(self, night: NightRecord) -> Mirrored:
        """Show a night; call it again after any failure, or after success: the result is the same.

        Raises `RegistryError`; what was shown until then is found again by the next call.
        """
        client = self._client
        with door(self._uri):
            note = {"mlflow.note.content": night.sentence}
            parent = self._run(night, _PARENT, night.run_id, note)
            parent_id = parent.info.run_id
            done = self._done(night, parent)
            if done is not None:
                return done
            self._fill(parent, night, night.params, night.metrics, night.tags, night.artifacts)
            client.log_inputs(parent_id, [_dataset(record) for record in night.datasets])
            children: dict[str, str] = {}
            version = None
            for child in night.children:
                run = self._child(night, child, parent_id)
                children[child.recipe] = run.info.run_id
                if night.model is not None and child.recipe == night.winner:
                    version = self._version(night, child, night.model, run)
                self._finish(run, "FAILED" if child.failure else "FINISHED")
            self._finish(parent, "FINISHED")
        return Mirrored(parent_id, children, version)

    def verify(self, version: int, sums: Mapping[str, str]) -> None:
        """Fetch the files of a version and compare their sha256 with `sums` (file name → hex).

        Raises `RegistryError` that names the first file which is missing or differs.
        """
        client = self._client
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        what = f"version {version} of {self._model_name} at {without_password(self._uri)}"
        with door(self._uri), tempfile.TemporaryDirectory() as scratch:
            source = client.get_model_version_download_uri(self._model_name, str(version))
            for name, expected in sorted(sums.items()):
                try:
                    file = download_artifacts(
                        artifact_uri=f"{source}/artifacts/{name}",
                        dst_path=scratch,
                        tracking_uri=self._uri,
                    )
                except (MlflowException, OSError) as fault:
                    raise RegistryError(f"{what}: {name} cannot be fetched") from fault
                with Path(file).open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != expected:
                    raise RegistryError(
                        f"{what}: {name} came back with sha256 {found[:12]}, written was "
                        f"{expected[:12]}"
                    )

    def move_aliases(self, champion: int, previous: int | None) -> None:
        """Point the aliases; MLflow keeps the last write, so the caller says what is true."""
        client = self._client
        with door(self._uri):
            client.set_registered_model_alias(self._model_name, CHAMPION, str(champion))
            if previous is None:
                client.delete_registered_model_alias(self._model_name, PREVIOUS)
            else:
                client.set_registered_model_alias(self._model_name, PREVIOUS, str(previous))

    def aliases(self) -> dict[str, int]:
        """Return where the aliases point now."""
        client = self._client
        with door(self._uri):
            found = client.get_registered_model(self._model_name).aliases
        return {alias: int(version) for alias, version in found.items()}

    @cached_property
    def _client(self) -> MlflowClient:
        return connect(self._uri)

    @cached_property
    def _experiment_id(self) -> str:
        client = self._client
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        place = artifacts_beside(self._file) if self._file is not None else None
        return str(client.create_experiment(self._experiment, artifact_location=place))

    def _ensure_registered(self) -> None:
        if not self._client.search_registered_models(f"name = '{self._model_name}'"):
            self._client.create_registered_model(self._model_name)

    def _run(self, night: NightRecord, recipe: str, name: str, tags: Mapping[str, str]) -> Run:
        """Find the run of a recipe of a night, or make it; its tags are set as it is made."""
        found = self._find(night, recipe)
        if found is not None:
            return found
        marks = {
            RUN_TAG: night.run_id,
            RECIPE_TAG: recipe,
            AS_OF_TAG: format_instant(night.as_of),
            "mlflow.source.name": "nightjar",
            "mlflow.source.type": "JOB",
        }
        return self._client.create_run(
            self._experiment_id, run_name=name, tags={**night.tags, **tags, **marks}
        )

    def _done(self, night: NightRecord, parent: Run) -> Mirrored | None:
        """Return where a finished night is, `None` if anything of it is missing."""
        if parent.info.status != "FINISHED":
            return None
        found = {child.recipe: self._find(night, child.recipe) for child in night.children}
        children = {recipe: run.info.run_id for recipe, run in found.items() if run is not None}
        version = self._find_version(night)
        complete = len(children) == len(found) and (version is None) == (night.model is None)
        return Mirrored(parent.info.run_id, children, version) if complete else None

    def _find(self, night: NightRecord, recipe: str) -> Run | None:
        found = self._client.search_runs(
            [self._experiment_id],
            f"tags.`{RUN_TAG}` = '{night.run_id}' and tags.`{RECIPE_TAG}` = '{recipe}'",
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None

    def _find_version(self, night: NightRecord) -> int | None:
        found = self._client.search_model_versions(
            f"name = '{self._model_name}' and tags.`{RUN_TAG}` = '{night.run_id}'"
        )
        return int(found[0].version) if found else None

    def _child(self, night: NightRecord, child: ChildRecord, parent_id: str) -> Run:
        tags = {**child.tags, "mlflow.parentRunId": parent_id}
        if child.failure:
            tags["mlflow.note.content"] = child.failure
        name = f"{child.recipe} {format_instant(night.as_of)[:10]}"
        run = self._run(night, child.recipe, name, tags)
        self._fill(run, night, child.params, child.metrics, tags, child.artifacts)
        self._client.log_inputs(run.info.run_id, [_dataset(d) for d in night.datasets])
        return run

    def _fill(
        self,
        run: Run,
        night: NightRecord,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Path],
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        at = _millis(night)
        # Equal name, value, step and instant: MLflow keeps one, however often it is told.
        points = [Metric(name, value, at, 0) for name, value in sorted(metrics.items())]
        for few in _batches([Param(name, str(value)) for name, value in sorted(params.items())]):
            self._client.log_batch(run.info.run_id, params=few)
        for few in _batches([RunTag(name, value) for name, value in sorted(tags.items())]):
            self._client.log_batch(run.info.run_id, tags=few)
        for few in _batches(points):
            self._client.log_batch(run.info.run_id, metrics=few)
        for place, file in sorted(artifacts.items()):
            self._upload(run.info.run_id, PurePosixPath(place), file)

    def _upload(self, mlflow_id: str, place: PurePosixPath, file: Path) -> None:
        folder = str(place.parent) if place.parent.name else None
        if file.name == place.name:
            self._client.log_artifact(mlflow_id, str(file), folder)
            return
        with tempfile.TemporaryDirectory() as scratch:
            renamed = Path(scratch, place.name)
            renamed.write_bytes(file.read_bytes())
            self._client.log_artifact(mlflow_id, str(renamed), folder)

    def _finish(self, run: Run, status: str) -> None:
        if run.info.status != status:
            self._client.set_terminated(run.info.run_id, status)

    def _version(self, night: NightRecord, child: ChildRecord, model: ModelRecord, run: Run) -> int:
        found = self._find_version(night)
        if found is not None:
            return found
        model_id, location = self._logged_model(night, child, model, run)
        self._ensure_registered()
        marks = {RUN_TAG: night.run_id, RECIPE_TAG: child.recipe}
        # The location itself as source: MLflow resolves `models:/ID` by a process-wide setting.
        made = self._client.create_model_version(
            self._model_name,
            source=location,
            run_id=run.info.run_id,
            tags={**model.tags, **marks},
            description=model.description,
            model_id=model_id,
        )
        return int(made.version)

    def _logged_model(
        self, night: NightRecord, child: ChildRecord, model: ModelRecord, run: Run
    ) -> tuple[str, str]:
        """Return id and location of the winner's files in MLflow, uploading them if need be."""
        client, run_id = self._client, run.info.run_id
        known = client.search_logged_models(
            [self._experiment_id], f"tags.`{RUN_TAG}` = '{night.run_id}'"
        )
        logged = (
            known[0]
            if known
            else client.create_logged_model(
                self._experiment_id,
                name=_MODEL,
                source_run_id=run_id,
                tags={RUN_TAG: night.run_id, RECIPE_TAG: child.recipe},
                params={name: str(value) for name, value in child.params.items()},
            )
        )
        if str(logged.status) != "READY":
            from mlflow.entities import LoggedModelOutput, Metric

            outputs = client.get_run(run_id).outputs
            if not (outputs and outputs.model_outputs):
                client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            at = _millis(night)
            points = [
                Metric(name, value, at, 0, model_id=logged.model_id)
                for name, value in sorted(child.metrics.items())
            ]
            for few in _batches(points):
                client.log_batch(run_id, metrics=few)
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch, _MODEL)
                save(folder, model, model_id=logged.model_id, run_id=run_id)
                client.log_model_artifacts(logged.model_id, str(folder))
            client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id), str(logged.artifact_location)


def _dataset(record: DatasetRecord) -> Any:
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


def _millis(night: NightRecord) -> int:
    return round(night.as_of.timestamp() * 1000)


def _batches(rows: list[Any]) -> list[list[Any]]:
    return [rows[start : start + _A_BATCH] for start in range(0, len(rows), _A_BATCH)]
