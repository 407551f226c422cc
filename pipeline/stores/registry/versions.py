"""Versions of a registered model: their files, their numbers and their descriptions.

Guarantees: a retry after a crash creates no second version; a version never gets the number of
another one that the caller knows.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import RegistryError
from pipeline.failpoints import failpoint
from pipeline.stores.disk import sync_tree
from pipeline.stores.registry.connection import local_folder, without_password
from pipeline.stores.registry.package import save
from pipeline.stores.registry.records import (
    DECISION_TAG,
    EVALUATION,
    ChildRecord,
    ModelRecord,
    NightRecord,
)
from pipeline.stores.registry.runs import RECIPE_TAG, RUN_TAG, log_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

TRAINING: Final = "workflowType=machine_learning"
"""Part of an address; without it MLflow opens its pages for chats."""
_MODEL: Final = "model"
_COST: Final = "cost/"


@dataclass(frozen=True)
class Versions:
    """Versions of one registered model.

    Attributes
    ----------
    client, uri
        MLflow's client, and the tracking URI.
    file
        Database file of a local MLflow; None for a server.
    model_name
        Name of the registered model, which exists.
    """

    client: MlflowClient
    uri: str
    file: Path | None
    model_name: str

    def mirror(self, night: NightRecord, child: ChildRecord, model: ModelRecord, run: Run) -> int:
        """Upload the files of a version, create it if it is missing, and return its number.

        Parameters
        ----------
        night, child, model
            Records of the run, of its winner, and of the winner's files.
        run
            MLflow's run of the winner.
        """
        logged = self._logged_model(night, child, run)
        # READY is set after the upload, so any other status means that files may be missing.
        if str(logged.status) != "READY":
            self._upload(night, child, model, run, logged)
            failpoint("artifact_logged")
        # An earlier attempt may have created the version, and MLflow would create a second one.
        version = self.find(night)
        if version is None:
            version = self._create_version(night, model, run, logged)
            failpoint("version_created")
        if self.file is not None:
            # The run's page links to the version by this tag, which only a server sets itself.
            links = json.dumps([{"name": self.model_name, "version": str(version)}])
            self.client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": links})
        failpoint("tagged")
        return version

    def _create_version(
        self, night: NightRecord, model: ModelRecord, run: Run, logged: LoggedModel
    ) -> int:
        """Create the version, and return its number."""
        refused = self._numbers(night)  # of an attempt that was killed before it deleted them
        while True:
            for number in refused:
                # MLflow never gives the number of a deleted version again.
                self.client.delete_model_version(self.model_name, str(number))
            created = self.client.create_model_version(
                self.model_name,
                # The location, not `models:/ID`, which MLflow resolves by a process-wide setting.
                source=logged.artifact_location,
                run_id=run.info.run_id,
                # Three, so that a reader finds them; all others are on the run.
                tags={
                    RUN_TAG: night.run_id,
                    RECIPE_TAG: str(night.winner),
                    DECISION_TAG: night.tags.get(DECISION_TAG, ""),
                },
                description=_description(model, run),
                model_id=logged.model_id,
            )
            number = int(created.version)
            if night.accepts(number):
                return number
            if number in refused:
                raise RegistryError(
                    "registry.number_taken",
                    f"MLflow at {without_password(self.uri)} gives new versions of "
                    f"{self.model_name} the number {number}, with which the ledger has another "
                    "version; delete the registered model, then run `nightjar register --all`",
                )
            refused = [number]

    def write_files(
        self, night: NightRecord, child: ChildRecord, model: ModelRecord, run: Run
    ) -> None:
        """Write the files of a version again.

        Parameters
        ----------
        night, child, model, run
            As for `mirror`.
        """
        self._upload(night, child, model, run, self._logged_model(night, child, run))

    def _logged_model(self, night: NightRecord, child: ChildRecord, run: Run) -> LoggedModel:
        """Return MLflow's entry of the winner's files; a new one has no files yet."""
        models = self.client.search_logged_models(
            [run.info.experiment_id], f"tags.`{RUN_TAG}` = '{night.run_id}'"
        )
        if models:
            return models[0]
        return self.client.create_logged_model(
            run.info.experiment_id,
            name=_MODEL,
            source_run_id=run.info.run_id,
            tags={RUN_TAG: night.run_id, RECIPE_TAG: child.recipe},
            params={name: str(value) for name, value in child.params.items()},
        )

    def _upload(
        self,
        night: NightRecord,
        child: ChildRecord,
        model: ModelRecord,
        run: Run,
        logged: LoggedModel,
    ) -> None:
        from mlflow.entities import LoggedModelOutput

        run_id, model_id = run.info.run_id, logged.model_id
        outputs = self.client.get_run(run_id).outputs
        # MLflow would list the model twice if an earlier attempt has logged it.
        if not (outputs and outputs.model_outputs):
            self.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        evaluated = {n: x for n, x in child.metrics.items() if not n.startswith(_COST)}
        rest = {n: x for n, x in child.metrics.items() if n.startswith(_COST)}
        holdout = next((x for x in night.datasets if x.context == EVALUATION), None)
        at = night.as_of
        log_metrics(self.client, run_id, evaluated, at, model_id=model_id, dataset=holdout)
        log_metrics(self.client, run_id, rest, at, model_id=model_id)
        if model.files:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch, _MODEL)
                save(folder, model, model_id=model_id, run_id=run_id)
                self.client.log_model_artifacts(model_id, str(folder))
            self.sync(logged.artifact_location)
        self.client.finalize_logged_model(model_id, "READY")

    def find(self, night: NightRecord) -> int | None:
        """Return the number of the version of a run, or None if there is none."""
        return min(filter(night.accepts, self._numbers(night)), default=None)

    def _numbers(self, night: NightRecord) -> list[int]:
        versions = self.client.search_model_versions(
            f"name = '{self.model_name}' and tags.`{RUN_TAG}` = '{night.run_id}'"
        )
        return [int(version.version) for version in versions]

    def sync(self, uri: str) -> None:
        """Force the files of a local folder to the disk; MLflow copies them without."""
        folder = local_folder(uri)
        if self.file is not None and folder is not None:
            sync_tree(folder, self.file.parent.absolute())


def _description(model: ModelRecord, run: Run) -> str:
    """Return the description of a version: its figure, the links to its pages, the decision."""
    address = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    links = (f"[{name}]({address}/{path}?{TRAINING})" for name, path in model.pages.items())
    return "\n\n".join((f"{model.figure}.", " · ".join(links), model.description))
