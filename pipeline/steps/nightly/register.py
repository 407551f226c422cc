"""Copies the committed results of runs to MLflow, as plain records.

A run that kept or blocked is copied like a promoted one; only a promotion becomes a version. MLflow
is a mirror: runs and versions that it has lost are copied again before a new run.

Guarantees: one process at a time copies runs of a workspace; the files of a version are compared
with their checksums before an alias points to it; versions are copied in the order of their
numbers, and no version gets the number of another one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pipeline.base import Progress, silent
from pipeline.errors import RegistryError
from pipeline.steps.feedback.attribution import show_attribution
from pipeline.steps.nightly.before_page import BEFORE_PAGE, version_before_page
from pipeline.steps.nightly.night_record import night_record, record_names
from pipeline.steps.nightly.registered_check import check_registered
from pipeline.steps.nightly.version_figures import figures_of
from pipeline.steps.reporting.index_page import draw_reports
from pipeline.steps.reporting.page_files import draw_lost_page
from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.records import Mirrored, NightRecord
from pipeline.stores.runs import Ref, Run
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.night import Night, decision_of, register_folder
from pipeline.workspace.registry import point_aliases, registry
from pipeline.workspace.release_artifacts import MlflowFile
from pipeline.workspace.task_log import task_step
from pipeline.workspace.versions import runs_by_version
from pipeline.workspace.workspace import Workspace


def _draw_reports(night: Night) -> None:
    # A promotion is published after this task, which draws the pages then.
    if not decision_of(night.run).promotes:
        draw_reports(night)


@dataclass(frozen=True)
class Registered:
    """A run in MLflow.

    Attributes
    ----------
    mlflow_run
        MLflow's id of the run of the night.
    version
        Number of the registered version; None if the run created none.
    """

    mlflow_run: str
    version: int | None
    ref: Ref


def register(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Registered:
    """Copy a run to MLflow, whatever it decided; a promotion becomes a version.

    Parameters
    ----------
    ws, run_id
        Workspace and run; it must have decided.
    progress
        Receives short texts.

    Raises
    ------
    RegistryError
        MLflow is unavailable; the next call continues.
    GateError
        `register.lists_differ`: the registered model returns other lists than the refit.
    """
    ref = _register(ws, run_id, progress=progress)
    run = ws.run(run_id)
    file = run.read(MlflowFile, register_folder(run))
    return Registered(file.run, file.version, ref)


@task_step("register", folder=lambda night: register_folder(night.run), check=_draw_reports)
def _register(night: Night, progress: Progress) -> str:
    """Mirror the run, and commit the figures of the version."""
    # Runs and versions are found again by tags, which MLflow does not keep unique: two processes
    # at once would create them twice.
    with night.ws.lake.lock("register"):
        mirror = Mirror.of(night.ws)
        for run in mirror.runs:
            draw_lost_page(run)
        # First, because MLflow numbers versions in the order in which they are created.
        mirror.copy(mirror.lost(), progress)
        file = figures_of(night)
        mirrored = mirror.copy_night(night)
        if mirrored.version is not None:
            progress("compare the lists of the registered model")
            check_registered(night, mirrored.version)
        point_aliases(night.ws)
        if not night.replay:  # its events were counted by the run that it repeats
            show_attribution(night, mirror.client)
    with night.run.draft(register_folder(night.run)) as draft:
        draft.write(MlflowFile(run=mirrored.parent_run_id, version=mirrored.version))
        draft.write(file)
        draft.rows = mirrored.children
    return "no version" if mirrored.version is None else f"version {mirrored.version}"


@dataclass(frozen=True)
class Mirror:
    """The registered runs of a workspace, and their copies in MLflow.

    The caller holds the lock `register`.

    Attributes
    ----------
    client
        Client of the experiment of nightly runs.
    known
        Runs by the number of their version, as ledger and runs have them.
    shown
        The same as MLflow had them at first.
    """

    ws: Workspace
    client: Registry
    known: dict[int, str]
    shown: dict[int, str]

    @classmethod
    def of(cls, ws: Workspace) -> Mirror:
        """Connect to MLflow; a missing database, experiment or model is created."""
        client = registry(ws)
        client.prepare()
        known = runs_by_version(ws, LedgerHistory.of(ws.ledger))
        return cls(ws, client, known, client.versions())

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Numbers of versions by run."""
        return {run_id: number for number, run_id in self.known.items()}

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Registered runs by as-of; those with a version by its number."""
        runs = self.ws.runs.starting_with("")
        runs = tuple(run for run in runs if run.committed(register_folder(run)) is not None)
        others = [run for run in runs if run.run_id not in self.numbers]
        versions = [run for run in runs if run.run_id in self.numbers]
        versions.sort(key=lambda run: self.numbers[run.run_id])
        return tuple(heapq.merge(others, versions, key=lambda run: run.run_id))

    def deleted(self, run: Run) -> bool:
        """Return whether a user has deleted the version of a run in MLflow.

        MLflow shows neither deleted nor lost versions. Lost ones are copied again before a later
        version is created, so one that is missing although it has later ones was deleted.
        """
        number = self.numbers.get(run.run_id)
        absent = run.run_id not in self.shown.values()
        return number is not None and absent and number < max(self.shown, default=0)

    def lost(self) -> tuple[Run, ...]:
        """Return the runs that MLflow does not have, or whose version or files are missing."""
        whole = self.client.mirrored({run.run_id: record_names(run) for run in self.runs})
        return tuple(
            run
            for run in self.runs
            if run.run_id not in whole
            or (
                run.run_id in self.numbers
                and run.run_id not in self.shown.values()
                and not self.deleted(run)
            )
        )

    def copy(self, runs: Iterable[Run], progress: Progress) -> tuple[Mirrored, ...]:
        """Copy registered runs, in this order, and store the figures of their versions again.

        Parameters
        ----------
        runs
            Some of `runs`; what MLflow has of them stays as it is.
        progress
            Receives the id of each run.

        Returns
        -------
        The copies.
        """
        copies = []
        for run in runs:
            progress(f"register {run.run_id}")
            copies.append(self.copy_night(Night.read(self.ws, run)))
        # A night stores figures at versions of earlier nights, so all nights are needed again.
        for run in self.runs if copies else ():
            night = Night.read(self.ws, run)
            if not night.replay:
                show_attribution(night, self.client)
        return tuple(copies)

    def copy_night(self, night: Night) -> Mirrored:
        """Copy a run, and compare the files of its version; files that differ are written again.

        Raises
        ------
        RegistryError
            `registry.checksum`, `registry.file_missing`: also the files written again differ.
        """
        number = self.numbers.get(night.run_id)
        taken = frozenset(self.known) - {number}
        deleted = self.deleted(night.run)
        record = night_record(night, version=number, taken=taken, deleted=deleted)
        mirrored = self.client.mirror_night(record)
        if mirrored.version is not None:
            self._check_files(night, record, mirrored.version)
            page = version_before_page(night, number or mirrored.version)
            if page is not None:
                self.client.add_page([night.run_id], BEFORE_PAGE, page)
        return mirrored

    def _check_files(self, night: Night, record: NightRecord, version: int) -> None:
        if record.model is None or not record.model.files:
            return
        files = night.run.manifest(REFIT)["files"]
        sums = {path.name: files[path.name]["sha256"] for path in record.model.files}
        try:
            self.client.verify(version, sums)
        except RegistryError:
            # The upload was cut off, or a power cut took what MLflow had not forced to the disk.
            self.client.write_files(record)
            self.client.verify(version, sums)
