"""Reproduction of a version from its pinned data: the same bytes, or the differences and causes.

Guarantees:

* The steps of the run are repeated, `features` and `refit`, over the workspace's lake and in a
  scratch folder, so that nothing in the workspace changes.
* Recipes and event weights are those of the run; none is selected again.
* All files of the refit are compared, except measured ones (seconds, memory).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pipeline.base import Instant, Progress, format_instant, silent
from pipeline.errors import DataError, LakeError
from pipeline.steps.experiments.reproduction.causes import (
    Cause,
    CauseKind,
    Provenance,
    causes,
    differing,
)
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.refit import refit
from pipeline.stores.json_files import JsonFile
from pipeline.stores.ledger import Ledger
from pipeline.stores.runs import Run, Runs
from pipeline.workspace import provenance
from pipeline.workspace.artifacts import (
    REFIT,
    AbsentFile,
    EvaluationFile,
    RecipeFile,
    TablesFile,
    WeightsFile,
    train_step,
)
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.task_log import task_log
from pipeline.workspace.versions import Version, find
from pipeline.workspace.workspace import LEARNT_FROM, Workspace

SAME: Final = "same"
DIFFERS: Final = "differs"
GONE: Final = "gone"
_FEATURES: Final = "features"


@dataclass(frozen=True)
class FileRow:
    """A file of the refit: its checksums then and now, and its arrays that differ."""

    file: str
    same: bool
    committed: str
    rebuilt: str
    arrays: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduced:
    """Result of a reproduction.

    Attributes
    ----------
    outcome
        ``same``, ``differs``, or ``gone`` where the pinned data cannot be read.
    causes
        The surest first.
    """

    version: int
    recipe: str
    as_of: Instant
    run_id: str
    outcome: str
    rows: tuple[FileRow, ...]
    causes: tuple[Cause, ...]

    @property
    def exit_code(self) -> int:
        """0: the same bytes; 3: others with a cause; 1: others without a cause; 6: no data."""
        differs = DataError.exit_code if self.causes else 1
        return {SAME: 0, DIFFERS: differs, GONE: LakeError.exit_code}[self.outcome]

    def text(self) -> str:
        """Return the result as lines."""
        name = f"version {self.version} ({self.recipe}, as-of {format_instant(self.as_of)})"
        if self.outcome == SAME:
            sums = {row.file: row.committed for row in self.rows}
            return f"same bytes: {name}, {len(sums)} files, scorer {sums['scorer.npz'][:12]}"
        result = "cannot be reproduced" if self.outcome == GONE else "differs"
        files = [
            f"{row.file} differs{': ' if row.arrays else ''}{', '.join(row.arrays)}"
            for row in self.rows
            if not row.same
        ]
        reasons = [f"{cause.kind}: {cause.sentence}" for cause in self.causes]
        unexplained = ["no known cause: a bug, or the files were altered"]
        return "\n  ".join([f"{name} {result}:", *files, *(reasons or unexplained)])


def reproduce(ws: Workspace, number: int, *, progress: Progress = silent) -> Reproduced:
    """Train a version again, and compare the files with those of its run.

    Parameters
    ----------
    number
        The version's number in MLflow.

    Raises
    ------
    ConfigError
        `version.unknown`.
    StorageError
        `version.files_gone`, or a damaged file of its run.
    ResourceError
        A device, an extra or memory of the training is missing.
    """
    version = find(ws, number)
    night = version.night
    with (
        _scratch(ws, version) as again,
        task_log("reproduce", night.as_of, run_id=night.run_id, progress=progress) as log,
    ):
        run = again.runs.open(night.run_id)
        rows: tuple[FileRow, ...] = ()
        reasons: tuple[Cause, ...] = ()
        try:
            features(again, run.run_id, progress=log.progress)
        except LakeError as error:
            sentence = f"the pinned data are gone: {error.sentence}"
            outcome, reasons = GONE, (Cause(CauseKind.SNAPSHOT, sentence),)
        else:
            refit(again, run.run_id, progress=log.progress)
            rows, outcome = _rows(night.run, run), SAME
            if not all(row.same for row in rows):
                outcome, reasons = DIFFERS, _causes(again, version, run)
        log.rows, log.result = len(rows), outcome
    return Reproduced(number, version.name, night.as_of, night.run_id, outcome, rows, reasons)


def _rows(committed: Run, rebuilt: Run) -> tuple[FileRow, ...]:
    was, now = committed.manifest(REFIT), rebuilt.manifest(REFIT)
    rows = []
    # Volatile files hold measured seconds and memory, which differ in every run.
    for file in sorted({*was["files"], *now["files"]} - {*was["volatile"], *now["volatile"]}):
        before, after = (str(x["files"].get(file, {}).get("sha256", "")) for x in (was, now))
        name, arrays = file.removesuffix(".npz"), tuple[str, ...]()
        if before and after and before != after and name != file:
            arrays = differing(committed.arrays(REFIT, name), rebuilt.arrays(REFIT, name))
        rows.append(FileRow(file, before == after, before, after, arrays))
    return tuple(rows)


def _causes(ws: Workspace, version: Version, rebuilt: Run) -> tuple[Cause, ...]:
    night, committed = version.night, version.night.run
    # A window that differs points to the data, also where the numbers of rows are equal.
    window = differing(committed.arrays(_FEATURES, "full"), rebuilt.arrays(_FEATURES, "full"))
    then = _provenance(committed, night.snapshot.libraries, night.snapshot.commit)
    now = _provenance(rebuilt, provenance.libraries(), provenance.commit())
    return causes(
        then,
        now,
        deterministic=night.recipes[version.name].capabilities.deterministic,
        window=window,
        # Only then: checking the files reads all pinned data.
        damage=_damage(ws, version) if window or then.rows != now.rows else None,
    )


def _provenance(run: Run, libraries: Mapping[str, str], commit: str) -> Provenance:
    rows, trained_on = run.read(TablesFile).rows, run.read(RecipeFile, REFIT).trained_on
    return Provenance(rows, trained_on, libraries, commit)


def _damage(ws: Workspace, version: Version) -> str | None:
    """Return the error of the first pinned table whose files differ from their checksums."""
    for table in LEARNT_FROM:
        pinned = version.night.snapshot.versions[table]
        if pinned is not None:
            try:
                ws.lake.verify(table, pinned)
            except LakeError as error:
                return error.sentence
    return None


@dataclass(frozen=True)
class _Elsewhere(Workspace):
    """A workspace with runs and ledger in a scratch folder."""

    scratch: Path

    @cached_property
    def runs(self) -> Runs:
        return Runs(self.scratch)

    @cached_property
    def ledger(self) -> Ledger:
        # `refit` records its output, which may differ from that of the run that is repeated.
        return Ledger(self.scratch / "ledger.jsonl")


@contextmanager
def _scratch(ws: Workspace, version: Version) -> Iterator[Workspace]:
    """Copy the pins, recipes, evaluation and decision of the run into a scratch folder."""
    night, run = version.night, version.night.run
    with tempfile.TemporaryDirectory(prefix="nightjar-reproduce-") as folder:
        again = _Elsewhere(ws.home, ws.composed, Path(folder))
        copy = again.runs.open(run.run_id)
        # Pinned weights: `features` would otherwise choose them again.
        weights = run.read(WeightsFile).root
        _write(copy, "snapshot", night.snapshot.model_copy(update={"weights": weights}))
        # `refit` trains the promoted recipe, so it reads the decision, and whether the features of
        # users without events paid.
        _write(copy, "evaluate", run.read(EvaluationFile))
        _write(copy, "gate", DecisionFile(version.decision))
        for step in map(train_step, night.recipes):
            file = run.find(RecipeFile, step) or run.find(AbsentFile, step)
            if file is not None:
                _write(copy, step, file)
        yield again


def _write(run: Run, step: str, file: JsonFile) -> None:
    with run.draft(step) as draft:
        draft.write(file)
