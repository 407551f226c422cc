"""Copies the committed results of a run to MLflow, as plain records.

A run that kept or blocked is copied like a promoted one; only a promotion becomes a version.

Guarantees: one process at a time copies a run of a workspace; the files of a version are compared
with their checksums before an alias points to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pipeline.base import Progress, compact_instant, format_instant
from pipeline.steps.diagnostics.churn import churn_metrics
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.diagnostics.live_quality import live_metrics
from pipeline.steps.feedback.attribution import show_attribution
from pipeline.steps.feedback.drift import drift_metrics
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.reporting.page_files import page_files
from pipeline.stores.registry.records import ChildRecord, DatasetRecord, ModelRecord, NightRecord
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import (
    REFIT,
    CleanFile,
    CostFile,
    DecisionFile,
    EvaluationFile,
    MlflowFile,
    RecipeFile,
    SplitFile,
    TablesFile,
    train_step,
)
from pipeline.workspace.night import Night, decision_of, register_folder
from pipeline.workspace.registry import point_aliases, registry
from pipeline.workspace.run_files import absences, trained
from pipeline.workspace.task_log import task_step
from pipeline.workspace.versions import hyper_parameters

_CONTEXTS = {"events": "training", "items": "catalogue", "users": "segments"}
"""Tables that MLflow shows as datasets -> their contexts."""


@task_step("register", folder=lambda night: register_folder(night.run))
def register(night: Night, _: Progress) -> str:
    """Copy the run to MLflow, whatever it decided; a promotion becomes a version.

    Parameters
    ----------
    night
        The run; `task_step` passes it.

    Returns
    -------
    The result in one sentence.
    """
    record = _night_record(night)
    # Runs and versions are found again by tags, which MLflow does not keep unique: two processes
    # at once would create them twice.
    with night.ws.lake.lock("register"):
        mlflow = registry(night.ws)
        mlflow.prepare()
        mirrored = mlflow.mirror_night(record)
        if record.model is not None and mirrored.version is not None:
            files = night.run.manifest(REFIT)["files"]
            sums = {path.name: files[path.name]["sha256"] for path in record.model.files}
            # Before the aliases point to the version: its upload may have been cut off.
            mlflow.verify(mirrored.version, sums)
        point_aliases(night.ws)
        if not night.replay:  # its events were counted by the run that it repeats
            show_attribution(night, mlflow)
    with night.run.draft(register_folder(night.run)) as draft:
        draft.write(MlflowFile(run=mirrored.parent_run_id, version=mirrored.version))
        draft.rows = len(record.children)
    return "no version" if mirrored.version is None else f"version {mirrored.version}"


def _night_record(night: Night) -> NightRecord:
    run, decision, policy = night.run, decision_of(night.run), read_policy(night.run)
    winner = decision.recipe if decision.promotes else None
    tags = {
        "nightjar.as_of": format_instant(night.as_of),
        "nightjar.decision": decision.kind,
        "nightjar.snapshot": json.dumps(dict(night.snapshot.versions), sort_keys=True),
        "nightjar.git_commit": night.snapshot.commit,
        "nightjar.replay": str(night.replay).lower(),
    }
    if policy is not None:
        tags["nightjar.policy"] = policy.reason
    split = run.read(SplitFile)
    return NightRecord(
        run_id=run.run_id,
        as_of=night.as_of,
        sentence=decision.sentence,
        why="" if policy is None else policy.reason,
        children=tuple(_children(night, winner)),
        datasets=_datasets(night),
        params={
            "holdout_days": split.holdout_days,
            "task": split.task,
            "target_kinds": ",".join(split.target_kinds),
            # That of the gate: MLflow rejects a changed parameter after an override.
            "champion": run.read(DecisionFile).root.recipe,
        },
        metrics={
            **_cleaning(run),
            **live_metrics(run),
            **churn_metrics(run),
            **parity_metrics(run),
            **drift_metrics(run),
        },
        tags=tags,
        artifacts={
            "decision.json": run.path("gate", "decision.json"),
            "validation.json": run.path("validate", "validation.json"),
            "cleaning.json": run.path("features", "clean.json"),
            **page_files(run),
        },
        winner=winner,
        model=None if winner is None else _model(night, winner, decision.sentence, tags),
    )


def _children(night: Night, winner: str | None) -> Iterator[ChildRecord]:
    """Yield the recipes of the run: those that were trained, then those that failed."""
    run, evaluations = night.run, night.run.read(EvaluationFile).recipes
    for name in trained(night):
        step = train_step(name)
        file, cost = run.read(RecipeFile, step), run.read(CostFile, step).metrics()
        if name == winner:
            cost |= run.read(CostFile, REFIT).metrics("refit.")
        yield ChildRecord(
            recipe=name,
            params={"recipe": name, **hyper_parameters(file.recipe)},
            metrics={**evaluations[name].metrics, **cost},
            tags={"nightjar.trained_on": file.trained_on},
        )
    for name, reason in absences(night).items():
        if run.committed(train_step(name)) is None:
            parameters = {"recipe": name, **hyper_parameters(night.recipes[name])}
            yield ChildRecord(recipe=name, params=parameters, failure=reason)


def _datasets(night: Night) -> tuple[DatasetRecord, ...]:
    rows = night.run.read(TablesFile).rows
    return tuple(
        DatasetRecord(
            name=table,
            lake_version=version,
            # With the as-of: two runs may read different rows of one version.
            digest=f"{table}@{version}-{compact_instant(night.as_of)}",
            rows=rows[table],
            context=context,
        )
        for table, context in _CONTEXTS.items()
        if (version := night.snapshot.versions[table]) is not None
    )


def _cleaning(run: Run) -> dict[str, float]:
    """Return the counts of cleaning, by table and column."""
    counts: dict[str, float] = {}
    for table, report in run.read(CleanFile).tables.items():
        for name in ("rows_in", "rows_out", "quarantined"):
            counts[f"clean.{table}.{name}"] = float(getattr(report, name))
        for column in report.columns:
            for name in ("missing", "filled", "below", "above"):
                counts[f"clean.{table}.{column.column}.{name}"] = float(getattr(column, name))
    return counts


def _model(night: Night, winner: str, sentence: str, tags: Mapping[str, str]) -> ModelRecord:
    # Arrays and JSON only: a version is code that reads them, and nothing is pickled (ADR 4).
    files = ("scorer.npz", "history.npz", "meta.json")
    cost = night.run.read(CostFile, REFIT)
    recipe = night.recipes[winner].model_dump(mode="json")
    return ModelRecord(
        files=tuple(night.run.path(REFIT, name) for name in files),
        description=sentence,
        tags={
            **tags,
            "nightjar.recipe_json": json.dumps(recipe, sort_keys=True),
            "nightjar.parameters": str(cost.parameters),
            "nightjar.trained_on": cost.trained_on,
        },
    )
