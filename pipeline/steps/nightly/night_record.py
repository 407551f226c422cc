"""The record of a nightly run for MLflow, made from the committed files of the run alone.

A run that kept or blocked has a record like a promoted one; only a promotion has a model.

Guarantees: equal files give equal records, whenever they are read. If a file of the refit was
removed, the model has no files, and a tag names that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from pipeline.base import compact_instant, format_instant
from pipeline.evaluation.gate.decision import LiftWithoutAnswers
from pipeline.steps.diagnostics.churn import churn_metrics
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.diagnostics.live_quality import live_metrics
from pipeline.steps.feedback.attribution import effect_metrics
from pipeline.steps.feedback.drift import drift_metrics
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.reporting.page_files import page_files, page_names
from pipeline.stores.registry.records import (
    FILES_REMOVED_TAG,
    ChildRecord,
    DatasetRecord,
    ModelRecord,
    NightRecord,
)
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import (
    REFIT,
    CleanFile,
    CostFile,
    DecisionFile,
    EvaluationFile,
    RecipeFile,
    SplitFile,
    TablesFile,
    train_step,
)
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.run_files import absences, trained
from pipeline.workspace.versions import hyper_parameters

_CONTEXTS = {"events": "training", "items": "catalogue", "users": "segments"}
"""Tables that MLflow shows as datasets -> their contexts."""
_COPIED: Final = {
    "decision.json": ("gate", "decision.json"),
    "validation.json": ("validate", "validation.json"),
    "cleaning.json": ("features", "clean.json"),
}
"""Files of a run that MLflow shows beside its page: name -> step and file."""
# Arrays and JSON only: a version is code that reads them, and nothing is pickled (ADR 4).
_FILES: Final = ("scorer.npz", "history.npz", "meta.json")


def record_names(run: Run) -> frozenset[str]:
    """Return the names of the files that MLflow shows for a run."""
    return frozenset((*_COPIED, *page_names(run)))


def has_model_files(run: Run) -> bool:
    """Return whether the refit of a promoted run still has all files of a version."""
    return all((run.folder / REFIT / name).is_file() for name in _FILES)


def night_record(
    night: Night, *, version: int | None, taken: frozenset[int], deleted: bool = False
) -> NightRecord:
    """Return the record of a run.

    Parameters
    ----------
    version
        Number of its version in the ledger; None for a version that is new.
    taken
        Numbers of the versions of other runs.
    deleted
        True if a user deleted the version in MLflow: the record has no model then.
    """
    run, decision, policy = night.run, decision_of(night.run), read_policy(night.run)
    winner = decision.recipe if decision.promotes and not deleted else None
    tags = {
        "nightjar.as_of": format_instant(night.as_of),
        "nightjar.decision": decision.kind,
        "nightjar.known_by": night.snapshot.known.text,
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
            **effect_metrics(run),
            **_answers(night),
        },
        tags=tags,
        artifacts={
            **{name: run.path(*source) for name, source in _COPIED.items()},
            **page_files(run),
        },
        winner=winner,
        model=None if winner is None else _model(night, winner, decision.sentence, tags),
        version=version,
        taken=taken,
    )


def _children(night: Night, winner: str | None) -> Iterator[ChildRecord]:
    """Yield the recipes of the run: those that were trained, then those that failed."""
    run, evaluations = night.run, night.run.read(EvaluationFile).recipes
    lifts = {
        row.recipe: _lift("lift_without_answers", row)
        for row in decision_of(run).without_answers
        if row.recipe != night.champion_name
    }
    for name in trained(night):
        step = train_step(name)
        file, cost = run.read(RecipeFile, step), run.read(CostFile, step).metrics()
        if name == winner and (refit := run.find(CostFile, REFIT)) is not None:
            cost |= refit.metrics("refit.")
        yield ChildRecord(
            recipe=name,
            params={"recipe": name, **hyper_parameters(file.recipe)},
            metrics={**evaluations[name].metrics, **cost, **lifts.get(name, {})},
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


def _answers(night: Night) -> dict[str, float]:
    """Return the share of answers, and the champion's lift over the last scorer without them."""
    answers = night.run.read(EvaluationFile).answers
    if answers is None or not answers.targets:
        return {}
    values = {"answers.share": answers.answered / answers.targets}
    for row in decision_of(night.run).without_answers:
        if row.recipe == night.champion_name:
            values |= _lift("refresh.lift_without_answers", row)
    return values


def _lift(name: str, row: LiftWithoutAnswers) -> dict[str, float]:
    ends = {"": row.lift_without, "_lo": row.lo_without, "_hi": row.hi_without}
    return {f"{name}{end}": value for end, value in ends.items() if value is not None}


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
    cost = night.run.find(CostFile, REFIT)
    there = has_model_files(night.run)
    recipe = night.recipes[winner].model_dump(mode="json")
    return ModelRecord(
        files=tuple(night.run.path(REFIT, name) for name in _FILES) if there else (),
        description=sentence,
        tags={
            **tags,
            "nightjar.recipe_json": json.dumps(recipe, sort_keys=True),
            **({} if there else {FILES_REMOVED_TAG: "true"}),
            **({} if cost is None else _cost_tags(cost)),
        },
    )


def _cost_tags(cost: CostFile) -> dict[str, str]:
    return {
        "nightjar.parameters": str(cost.parameters),
        "nightjar.trained_on": cost.trained_on,
    }
