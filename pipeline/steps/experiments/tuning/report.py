"""A study for people: `study.json`, its figures, and its runs in MLflow.

Promises: the files follow from the study and are written anew as it goes on; MLflow is shown what
the files hold, so it loses nothing by being away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.base import Progress, parse_instant, silent
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.models.search import standing
from pipeline.report.study import AxisRow, StudyRows, TrialRow
from pipeline.report.study_figures import study_figures
from pipeline.steps.experiments.tuning.study import Found, lift_over, measured, recipe_of
from pipeline.stores.registry.records import ChildRecord, StudyRecord
from pipeline.stores.studies.files import StudyFiles
from pipeline.stores.studies.study import Study
from pipeline.stores.studies.trial import COMPLETE, FAILED
from pipeline.workspace.registry import study_registry
from pipeline.workspace.workspace import Workspace

FOLDER = "studies"
_TOLD = "study.json"


def write_files(ws: Workspace, study: Study, found: Found) -> None:
    """Write what a study has found so far."""
    rows = [
        {
            "number": trial.number,
            "state": trial.state,
            "start": trial.start,
            "fields": standing(recipe_of(study, trial), study.axes),
            "windows": trial.notes.get("windows", []),
            "seconds": trial.notes.get("seconds"),
            "failure": trial.notes.get("failure"),
        }
        for trial in measured(study)
    ]
    begun = next(row["windows"] for row in rows if row["start"] and row["state"] == COMPLETE)
    for row in rows:
        row["lift"] = lift_over(row["windows"], begun)
    # Every trial was measured on the first window; those that were given up there count, too.
    first = {row["number"]: row["windows"][0] for row in rows if row["windows"]}
    told = {
        **found.to_dict(),
        "trials": rows,
        "importance": study.importance(first),
        **{name: study.facts[name] for name in ("until", "task", "versions")},
        "start_recipe": study.facts["start"],
    }
    text = json.dumps(told, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    figures = study_figures(_rows(told, study))
    StudyFiles(ws.home / FOLDER, study.study_id).write({_TOLD: text.encode(), **figures})


def mirror(ws: Workspace, study_id: str, *, progress: Progress = silent) -> str:
    """Show a study in MLflow, from its files; returns the id of its run there.

    Call it again after a failure, and when the study has gone on. Raises `RegistryError`.
    """
    progress("register")
    files = StudyFiles(ws.home / FOLDER, study_id)
    told = json.loads(files.read(_TOLD))
    task = {**told["task"], "target_kinds": ",".join(told["task"]["target_kinds"])}
    record = StudyRecord(
        run_id=study_id,
        as_of=parse_instant(told["as_of"]),
        sentence=told["sentence"],
        children=tuple(_child(trial, metric_name(NDCG, task["k"])) for trial in told["trials"]),
        params={"recipe": told["name"], "windows": len(told["windows"]), **task},
        metrics={"start": told["start"], "value": told["best"], "trials": len(told["trials"])},
        tags={"nightjar.until": told["until"]},
        artifacts={name: files.path(name) for name in files.names},
    )
    with ws.lake.lock("register"):
        door = study_registry(ws)
        door.prepare()
        return door.mirror_study(record)


def _child(trial: Mapping[str, Any], metric: str) -> ChildRecord:
    windows = trial["windows"]
    figures = {"value": _mean(windows), **{name: trial[name] for name in ("lift", "seconds")}}
    return ChildRecord(
        recipe=f"trial {trial['number']:04d}",
        params=trial["fields"],
        metrics={name: figure for name, figure in figures.items() if figure is not None},
        series={metric: tuple(windows)},
        tags={"nightjar.state": trial["state"], "nightjar.start": str(trial["start"]).lower()},
        failure=trial["failure"] if trial["state"] == FAILED else None,
    )


def _rows(told: Mapping[str, Any], study: Study) -> StudyRows:
    return StudyRows(
        name=told["name"],
        metric=metric_name(NDCG, told["task"]["k"]),
        candidate=told["candidate"],
        best=told["best"],
        axes=tuple(
            AxisRow(name, axis.low, axis.high, axis.log, told["importance"].get(name))
            for name, axis in study.axes.items()
        ),
        trials=tuple(
            TrialRow(
                number=row["number"],
                state=row["state"],
                start=row["start"],
                value=_mean(row["windows"]),
                lift=row["lift"],
                fields=row["fields"],
            )
            for row in told["trials"]
        ),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
