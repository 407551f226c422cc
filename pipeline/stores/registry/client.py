"""Nightly runs in MLflow: one parent run, one child run per recipe, one version of the winner.

Guarantees:

* All content is copied from written files, so an unavailable registry loses nothing.
* Runs, the logged model and the version are found again by their tags, so a retry after a crash
  completes the mirror without duplicates.
* Files that MLflow copies to a local folder survive a power cut: they are synced before the version
  is created or the run is finished.
* The version belongs to the winner's child run, so MLflow's comparison of two versions shows their
  metrics.

The caller holds the run's lock: one process at a time mirrors a run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RegistryError
from pipeline.stores.disk import sha256
from pipeline.stores.registry import texts
from pipeline.stores.registry.connection import (
    artifacts_beside,
    connect,
    create,
    local_folder,
    registry_errors,
    sqlite_path,
    without_password,
)
from pipeline.stores.registry.records import (
    Mirrored,
    NightRecord,
    StudyRecord,
)
from pipeline.stores.registry.runs import (
    NOTE_TAG,
    RECIPE_TAG,
    RUN_TAG,
    NightRuns,
    log_metrics,
)
from pipeline.stores.registry.versions import TRAINING, Versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
PREVIOUS = "previous"
WORKSPACE_TAG = "nightjar.workspace"
_NAME_TAG = "nightjar.experiment"
"""Tag of an experiment with its first name."""
PAGES = "comparisons"
"""Folder of pages that are added to the run of a version."""
_VIEW = f"viewStateShareKey={texts.VIEW_TAG.rpartition('.')[2]}"


class Registry:
    """One experiment and one registered model of an MLflow.

    Parameters
    ----------
    tracking_uri
        ``http(s)://HOST[:PORT]``, or ``sqlite:///FILE`` for the database of `make ui`. Artifacts
        are in the folder ``artifacts`` beside that database; a server chooses their place itself.
    experiment
        Name of the experiment.
    model_name
        Name of the registered model.
    workspace
        Id of the workspace to which both belong; "" if it has none yet.
    about
        Description of a new experiment.
    columns
        Metrics in the table of its runs.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        model_name: str,
        workspace: str = "",
        *,
        about: str = texts.NIGHTS,
        columns: Sequence[str] = (),
    ) -> None:
        self._file = sqlite_path(tracking_uri)
        self._uri = tracking_uri
        self._experiment = experiment
        self._model_name = model_name
        self._workspace = workspace
        self._about = about
        self._columns = tuple(columns)

    def prepare(self, *, restores: bool = True) -> None:
        """Create the database, the experiment and the registered model if they are missing.

        Parameters
        ----------
        restores
            Whether an experiment that a user has deleted is restored, instead of an error.

        Raises
        ------
        RegistryError
            ``registry.experiment_deleted``; ``registry.other_workspace``: the experiment or the
            model belongs to another workspace.
            ``registry.model_renamed``, ``registry.experiment_renamed``: one of the two has another
            name in MLflow.
        """
        # A server has created its database itself.
        if self._file is not None:
            self._client = create(self._uri, self._file)
        with registry_errors(self._uri):
            self._ensure_experiment(restores=restores)
            self._ensure_registered()

    def mirror_night(self, night: NightRecord) -> Mirrored:
        """Mirror a nightly run. A repetition, also after a failure, has the same result.

        Raises
        ------
        RegistryError
            The next call continues from the runs that exist.
        """
        with registry_errors(self._uri):
            runs = NightRuns(self._client, self._ensure_experiment(), night)
            parent = runs.parent()
            done = self._done(runs, night, parent)
            if done is not None:
                return done
            runs.fill_parent(parent)
            self._versions.sync(parent.info.artifact_uri)
            version = None
            for child in night.children:
                run = runs.child(child, parent.info.run_id)
                if night.model is not None and child.recipe == night.winner:
                    self._ensure_registered()
                    version = self._versions.mirror(night, child, night.model, run)
                runs.finish(run, child.status)
            # The parent last: `_done` reads its status, so after a crash before this line the next
            # call completes the mirror.
            runs.finish(parent, "FINISHED")
        return Mirrored(parent.info.run_id, version, len(night.children))

    def mirror_study(self, study: StudyRecord) -> str:
        """Mirror a study, and return MLflow's id of its run. Call it again once it has grown.

        Raises
        ------
        RegistryError
            The next call continues; mirrored trials stay as they are.
        """
        with registry_errors(self._uri):
            runs = NightRuns(self._client, self._ensure_experiment(), study)
            parent = runs.parent()
            runs.fill_parent(parent)
            self._versions.sync(parent.info.artifact_uri)
            for child in study.children:
                shown = runs.find(child.recipe)
                # A crash leaves the run of a trial in status RUNNING; mirrored ones stay.
                if shown is None or shown.info.status == "RUNNING":
                    runs.finish(runs.child(child, parent.info.run_id), child.status)
            runs.finish(parent, "FINISHED")
        return str(parent.info.run_id)

    def mirrored(self, files: Mapping[str, Collection[str]]) -> set[str]:
        """Return the nightly runs that are mirrored, or that a user has deleted.

        Parameters
        ----------
        files
            Names of the files of each run, by its id. In a local folder none may be missing or
            empty; a server is not asked.
        """
        from mlflow.entities import ViewType

        complete, token = set[str](), None
        with registry_errors(self._uri):
            place = [self._ensure_experiment()]
            while token != "":
                page = self._client.search_runs(
                    place,
                    f"tags.`{RECIPE_TAG}` = '{NightRecord.MARK}'",
                    run_view_type=ViewType.ALL,
                    page_token=token,
                )
                for run in page:
                    run_id = run.data.tags[RUN_TAG]
                    deleted = run.info.lifecycle_stage == "deleted"
                    whole = run_id in files and self._has_files(run, files[run_id])
                    if deleted or (whole and run.info.status == "FINISHED"):
                        complete.add(run_id)
                token = page.token or ""
        return complete

    def versions(self) -> dict[int, str]:
        """Return the run of each registered version by number; deleted versions are absent."""
        with registry_errors(self._uri):
            return {int(v.version): str(v.tags.get(RUN_TAG)) for v in self._registered()}

    def write_files(self, night: NightRecord) -> None:
        """Write the files of a mirrored version again.

        Parameters
        ----------
        night
            A record with a model whose files are there.
        """
        with registry_errors(self._uri):
            runs = NightRuns(self._client, self._ensure_experiment(), night)
            [child] = [child for child in night.children if child.recipe == night.winner]
            run = runs.find(child.recipe)
            if run is not None and night.model is not None:
                self._versions.write_files(night, child, night.model, run)

    def verify(self, version: int, sums: Mapping[str, str]) -> None:
        """Download files of a version and compare their checksums.

        Parameters
        ----------
        version
            Number of the registered version.
        sums
            SHA-256 in hex by file name.

        Raises
        ------
        RegistryError
            ``registry.file_missing``, ``registry.checksum``: the first such file.
        """
        subject = f"version {version} of {self._model_name} at {without_password(self._uri)}"
        with registry_errors(self._uri), tempfile.TemporaryDirectory() as scratch:
            from mlflow.artifacts import download_artifacts
            from mlflow.exceptions import MlflowException

            source = self._client.get_model_version_download_uri(self._model_name, str(version))
            for name, expected in sorted(sums.items()):
                uri = f"{source}/artifacts/{name}"
                try:
                    # Without the URI MLflow uses the server of a process-wide setting.
                    file = download_artifacts(
                        artifact_uri=uri, dst_path=scratch, tracking_uri=self._uri
                    )
                except (MlflowException, OSError) as fault:
                    raise RegistryError(
                        "registry.file_missing",
                        f"{subject}: cannot download {name}; run `nightjar register --all`, which "
                        "writes it again",
                    ) from fault
                if (actual := sha256(Path(file))) != expected:
                    raise RegistryError(
                        "registry.checksum",
                        f"{subject}: {name} has sha256 {actual[:12]}, not {expected[:12]}; "
                        "run `nightjar register --all`, which writes it again",
                    )

    def move_aliases(self, champion: int | None, previous: int | None) -> None:
        """Set the aliases. MLflow keeps the last write, so the versions must be current.

        Parameters
        ----------
        champion
            The live version; None removes the alias.
        previous
            The version before it; None removes the alias.
        """
        with registry_errors(self._uri):
            for alias, version in ((CHAMPION, champion), (PREVIOUS, previous)):
                if version is None:
                    self._client.delete_registered_model_alias(self._model_name, alias)
                else:
                    self._client.set_registered_model_alias(self._model_name, alias, str(version))

    def pages(self) -> tuple[str, str]:
        """Return the addresses of the model and of the runs, relative to the server.

        Without the part ``workflowType`` MLflow opens its pages for chats.
        """
        with registry_errors(self._uri):
            runs = f"#/experiments/{self._ensure_experiment()}/runs?{TRAINING}&{_VIEW}"
            return f"#/models/{self._model_name}?{TRAINING}", runs

    def aliases(self) -> dict[str, int]:
        """Return the current version of each alias."""
        with registry_errors(self._uri):
            by_alias = self._client.get_registered_model(self._model_name).aliases
        return {alias: int(version) for alias, version in by_alias.items()}

    def shown(self) -> list[tuple[str, str]]:
        """Return each version, logged model and run with its tag or status, unordered."""
        with registry_errors(self._uri):
            place = [self._ensure_experiment()]
            names = [(f"version {v.version}", str(v.tags.get(RUN_TAG))) for v in self._registered()]
            names += [(m.name, str(m.status)) for m in self._client.search_logged_models(place)]
            names += [
                (str(r.info.run_name), r.info.status) for r in self._client.search_runs(place)
            ]
        return names

    def run_page(self, run_id: str) -> str:
        """Return the address of the page of a run of MLflow, relative to the server."""
        with registry_errors(self._uri):
            return f"#/experiments/{self._ensure_experiment()}/runs/{run_id}"

    def add_page(self, runs: Collection[str], name: str, page: bytes) -> None:
        """Attach a page to the versions of nightly runs.

        Parameters
        ----------
        runs
            Ids of nightly runs.
        name
            File name; an existing page with this name is replaced.
        page
            Content of the page.

        Raises
        ------
        RegistryError
            ``registry.version_missing``: a run has no version; the others have got the page.
            ``registry.model_renamed``: the model has another name in MLflow.
        """
        with registry_errors(self._uri), tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, name)
            file.write_bytes(page)
            owners = {str(v.tags.get(RUN_TAG)): v.run_id for v in self._registered()}
            if not owners:
                self._refuse_renamed()
            for run in owners.keys() & {*runs}:
                self._client.log_artifact(owners[run], str(file), PAGES)
        if missing := sorted({*runs} - owners.keys()):
            raise RegistryError(
                "registry.version_missing",
                f"the model {self._model_name} of MLflow at {without_password(self._uri)} has no "
                f"version of run {', '.join(missing)}: it was deleted there; `nightjar register "
                "--all` copies it again if it is the newest one, or if MLflow has lost it",
            )

    def add_metrics(
        self, run: str, metrics: Mapping[str, float], *, at: datetime, step: int
    ) -> None:
        """Add metrics to the version of a nightly run. A repetition changes nothing.

        Parameters
        ----------
        run
            Id of the nightly run; nothing happens if a user deleted its version or its run.
        metrics
            Values by name; those that are not finite are skipped.
        at
            Instant of the metrics, with a time zone.
        step
            MLflow's step.
        """
        with registry_errors(self._uri):
            for version in self._registered():
                if version.tags.get(RUN_TAG) == run and version.run_id is not None:
                    owner = self._client.get_run(version.run_id).info
                    # MLflow refuses metrics of a deleted run.
                    if owner.lifecycle_stage == "active":
                        log_metrics(self._client, owner.run_id, metrics, at, step=step)

    def _registered(self) -> Iterator[ModelVersion]:
        token = None
        while token != "":
            page = self._client.search_model_versions(
                f"name = '{self._model_name}'", page_token=token
            )
            yield from page
            token = page.token or ""

    @cached_property
    def _client(self) -> MlflowClient:
        return connect(self._uri)

    @cached_property
    def _versions(self) -> Versions:
        return Versions(self._client, self._uri, self._file, self._model_name)

    def _ensure_experiment(self, *, restores: bool = True) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is not None:
            unowned = self._is_unowned("experiment", self._experiment, experiment.tags)
            # MLflow changes no experiment that a user has deleted.
            if experiment.lifecycle_stage == "deleted":
                if not restores:
                    raise RegistryError(
                        "registry.experiment_deleted",
                        f"the experiment {self._experiment} was deleted in MLflow; restore it with "
                        "`nightjar register --all`, as the next nightly run does",
                    )
                self._client.restore_experiment(experiment.experiment_id)
            if unowned:
                self._client.set_experiment_tag(
                    experiment.experiment_id, WORKSPACE_TAG, self._workspace
                )
            return str(experiment.experiment_id)
        self._refuse_renamed_experiment()
        place = artifacts_beside(self._file) if self._file is not None else None
        # MLflow's pages show either training runs or chats; this tag selects training runs.
        tags = {"mlflow.experimentKind": "custom_model_development", NOTE_TAG: self._about}
        tags |= {texts.VIEW_TAG: texts.runs_view(self._columns), **self._owner}
        tags[_NAME_TAG] = self._experiment
        return str(
            self._client.create_experiment(self._experiment, artifact_location=place, tags=tags)
        )

    def _ensure_registered(self) -> None:
        models = self._client.search_registered_models(f"name = '{self._model_name}'")
        if not models:
            self._refuse_renamed()
            self._client.create_registered_model(
                self._model_name, description=texts.MODEL, tags=self._owner
            )
        elif self._is_unowned("model", self._model_name, models[0].tags):
            self._client.set_registered_model_tag(self._model_name, WORKSPACE_TAG, self._workspace)

    def _refuse_renamed_experiment(self) -> None:
        """Raise if the experiment has got another name in MLflow."""
        # A new experiment would get copies of all runs.
        own = f"tags.`{WORKSPACE_TAG}` = '{self._workspace}'"
        for experiment in self._client.search_experiments(filter_string=own):
            if experiment.tags.get(_NAME_TAG) == self._experiment:
                raise RegistryError(
                    "registry.experiment_renamed",
                    f"MLflow at {without_password(self._uri)} has no experiment "
                    f"{self._experiment}, but {experiment.name} with its runs; rename it to "
                    f"{self._experiment} in MLflow, or set registry.experiment = "
                    f"{experiment.name!r} in nightjar.toml",
                )

    def _refuse_renamed(self) -> None:
        """Raise if the registered model of this experiment has got another name in MLflow."""
        # A new model would get copies of all versions, and the aliases would be at both.
        own = f"tags.`{WORKSPACE_TAG}` = '{self._workspace}'"
        for model in self._client.search_registered_models(own) if self._workspace else ():
            runs = [self._client.get_run(version.run_id).info for version in model.latest_versions]
            if self._ensure_experiment() in {run.experiment_id for run in runs}:
                raise RegistryError(
                    "registry.model_renamed",
                    f"MLflow at {without_password(self._uri)} has no model {self._model_name}, but "
                    f"{model.name} with its versions; rename it to {self._model_name} in MLflow, "
                    f"or set registry.model_name = {model.name!r} in nightjar.toml",
                )

    @property
    def _owner(self) -> dict[str, str]:
        return {WORKSPACE_TAG: self._workspace} if self._workspace else {}

    def _is_unowned(self, kind: str, name: str, tags: Mapping[str, str]) -> bool:
        """Return whether the workspace has to be noted; raise if it is another one."""
        owner = tags.get(WORKSPACE_TAG, "")
        # Runs of two workspaces can have one id, and only one of them can have the aliases.
        if owner and self._workspace and owner != self._workspace:
            raise RegistryError(
                "registry.other_workspace",
                f"the {kind} {name} of MLflow at {without_password(self._uri)} belongs to another "
                "workspace; set registry.experiment and registry.model_name in nightjar.toml to "
                "names of its own for each workspace",
            )
        return bool(self._workspace) and not owner

    def _done(self, runs: NightRuns, night: NightRecord, parent: Run) -> Mirrored | None:
        """Return the mirror of a finished run; None if a part of it is missing."""
        if parent.info.status != "FINISHED":
            return None
        version = self._versions.find(night)
        complete = all(runs.find(child.recipe) is not None for child in night.children)
        if not complete or (version is None) != (night.model is None):
            return None
        if not self._has_files(parent, night.artifacts):
            return None
        return Mirrored(parent.info.run_id, version, len(night.children))

    @staticmethod
    def _has_files(run: Run, names: Collection[str]) -> bool:
        """Return whether no file of a run in a local folder is missing or empty."""
        folder = local_folder(run.info.artifact_uri)
        paths = [] if folder is None else [folder / name for name in names]
        return all(path.is_file() and path.stat().st_size for path in paths)
