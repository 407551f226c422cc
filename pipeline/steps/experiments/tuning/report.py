"""Report of a study: `study.json`, its figures, and its runs in MLflow.

Guarantees: the files follow from the study, and are replaced as it goes on; MLflow is written from
the files alone, so it can be written later if it is unavailable.
"""

from __future__ import annotations

from typing import Final

from pipeline.base import Progress, silent
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.models.search import current_values
from pipeline.report.study import StudyRows
from pipeline.report.study_figures import study_figures
from pipeline.steps.experiments.tuning.study import (
    TuningResult,
    facts_of,
    lift_over,
    measured,
    recipe_of,
)
from pipeline.stores.registry.records import ChildRecord, StudyRecord
from pipeline.stores.studies.files import StudyFiles
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE, FAILED
from pipeline.workspace.experiment_artifacts import StudyFile, TrialRow
from pipeline.workspace.registry import STUDIES, registry
from pipeline.workspace.workspace import Workspace

FOLDER: Final = "studies"
_FILE: Final = f"{StudyFile.FILE}.json"


def write_files(ws: Workspace, study: Study, result: TuningResult) -> None:
    """Write the files of a study.

    Parameters
    ----------
    study
        Its start is measured.
    result
        Result of the latest call.
    """
    facts = facts_of(study)
    trials = _trials(study)
    # Every trial was measured on the first window, also those that were stopped after it.
    first = {trial.number: trial.windows[0] for trial in trials if trial.windows}
    fields = {**dict(result), "candidate": result.candidate, "trials": trials}
    file = StudyFile(
        **fields,
        importance=study.importance(first),
        until=facts.until,
        task=facts.task,
        versions=facts.versions,
        start_recipe=facts.start,
    )
    figures = study_figures(StudyRows(file, study.axes))
    StudyFiles(ws.home / FOLDER, study.study_id).write({_FILE: file.to_bytes(), **figures})


def _trials(study: Study) -> tuple[TrialRow, ...]:
    trials = measured(study)
    # A study without a measured start is `unfinished` and has no files.
    start = next(t.notes["windows"] for t in trials if t.start and t.state == COMPLETE)
    return tuple(
        TrialRow(
            number=trial.number,
            state=trial.state,
            start=trial.start,
            fields=current_values(recipe_of(study, trial), study.axes),
            windows=trial.notes.get("windows", ()),
            seconds=trial.notes.get("seconds"),
            failure=trial.notes.get("failure"),
            lift=lift_over(trial.notes.get("windows", ()), start),
        )
        for trial in trials
    )


def read_study(ws: Workspace, study_id: str) -> StudyFile:
    """Read the result of a study after checking its checksum.

    Parameters
    ----------
    ws
        Workspace.
    study_id
        A study whose files are written.
    """
    files = StudyFiles(ws.home / FOLDER, study_id)
    return StudyFile.parse(files.read(_FILE), files.path(_FILE))


def mirror(ws: Workspace, study_id: str, *, progress: Progress = silent) -> str:
    """Write a study to MLflow, from its files; again after a failure or a resumed search.

    Parameters
    ----------
    study_id
        A study whose files are written.

    Returns
    -------
    Id of its run in MLflow.

    Raises
    ------
    RegistryError
        MLflow is unavailable.
    """
    progress("register")
    files, study = StudyFiles(ws.home / FOLDER, study_id), read_study(ws, study_id)
    plain = study.plain()
    task = {**plain["task"], "target_kinds": ",".join(study.task.target_kinds)}
    metric = metric_name(NDCG, study.task.k)
    record = StudyRecord(
        run_id=study_id,
        as_of=study.as_of,
        sentence=study.sentence,
        children=tuple(_child(trial, metric) for trial in study.trials),
        params={"recipe": study.name, "windows": len(study.windows), **task},
        metrics=_without_none(start=study.start, value=study.best, trials=len(study.trials)),
        tags={"nightjar.until": plain["until"]},
        # `path` checks each file against its checksum before the upload.
        artifacts={name: files.path(name) for name in files.names},
    )
    with ws.lake.lock("register"):
        client = registry(ws, STUDIES)
        client.prepare()
        return client.mirror_study(record)


def mirror_all(ws: Workspace, *, progress: Progress = silent) -> int:
    """Write all studies that have files to MLflow.

    Parameters
    ----------
    progress
        Receives short texts.

    Returns
    -------
    Their number.
    """
    # In the order of their names, which begin with the as-of.
    studies = sorted(path.parent.name for path in (ws.home / FOLDER).glob(f"*/{_FILE}"))
    for study_id in studies:
        mirror(ws, study_id, progress=progress)
    return len(studies)


def _child(trial: TrialRow, metric: str) -> ChildRecord:
    return ChildRecord(
        recipe=f"trial {trial.number:04d}",
        params=trial.fields,
        metrics=_without_none(value=trial.value, lift=trial.lift, seconds=trial.seconds),
        series={metric: trial.windows},
        tags={"nightjar.state": trial.state, "nightjar.start": str(trial.start).lower()},
        failure=trial.failure if trial.state == FAILED else None,
    )


def _without_none(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
