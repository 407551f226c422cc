"""The record of a nightly run for MLflow, made from the committed files of the run alone.

A run that kept or blocked has a record like a promoted one; only a promotion has a model.

Guarantees: equal files give equal records, whenever they are read. If a file of the refit was
removed, the model has no files, and a tag names that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pipeline.base import compact_instant, format_instant
from pipeline.evaluation.gate import EvaluatedRecipe
from pipeline.evaluation.gate.decision import LiftWithoutAnswers
from pipeline.evaluation.lift import over_best_baseline
from pipeline.steps.diagnostics.churn import churn_metrics
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.diagnostics.live_quality import live_metrics
from pipeline.steps.feedback.attribution import effect_metrics
from pipeline.steps.feedback.drift import drift_metrics
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.nightly.before_page import BEFORE_PAGE
from pipeline.steps.nightly.version_figures import (
    ShownFigures,
    figures_of,
    level_metrics,
    shown_figures,
)
from pipeline.steps.reporting.page_files import PAGE, page_files, page_names
from pipeline.stores.registry.client import PAGES
from pipeline.stores.registry.records import (
    AIRFLOW_TAG,
    EVALUATION,
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
    EvaluationFile,
    RecipeFile,
    SplitFile,
    TablesFile,
    train_step,
)
from pipeline.workspace.mlflow_names import OVER_BASELINE, bounds, in_folders, lift_metrics
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.run_files import absences, read_evaluated_recipes, trained
from pipeline.workspace.versions import hyper_parameters

_CONTEXTS = {"events": "training", "items": "catalogue", "users": "segments"}
"""Tables that MLflow shows as datasets -> their contexts."""
_COPIED: Final = {
    "decision.json": ("gate", "decision.json"),
    "validation.json": ("validate", "validation.json"),
    "cleaning.json": ("features", "clean.json"),
    "attribution.json": ("attribution", "attribution.json"),
}
"""Files of a run that MLflow shows beside its page: name -> step and file."""
_VERSION_FIGURES: Final = "version_figures.json"
_BOUNDS: Final = "bounds.json"
"""Bounds of the 95 % intervals of metrics, by name."""
# Arrays and JSON only: a version is code that reads them, and nothing is pickled (ADR 4).
_FILES: Final = ("scorer.npz", "history.npz", "described.npz", "meta.json")


def record_names(run: Run) -> frozenset[str]:
    """Return the names of the files that MLflow shows for a run."""
    return frozenset((*_COPIED, _VERSION_FIGURES, _BOUNDS, *page_names(run)))


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
    run, decision, policy = night.run, decision_of(night.run), _policy_text(night)
    winner = decision.recipe if decision.promotes and not deleted else None
    file = figures_of(night)
    shown, figures = shown_figures(night, file), _figures(night)
    split = run.read(SplitFile)
    tags = {
        "nightjar.decision": decision.kind,
        "nightjar.known_by": night.snapshot.known.text,
        "nightjar.snapshot": json.dumps(dict(night.snapshot.versions), sort_keys=True),
        "nightjar.replay": str(night.replay).lower(),
        "mlflow.source.git.commit": night.snapshot.commit,
    }
    if policy:
        tags["nightjar.policy"] = policy
    if night.snapshot.airflow_run is not None:
        tags[AIRFLOW_TAG] = night.snapshot.airflow_run
    page = page_files(run)
    artifacts: dict[str, Path | bytes] = {_VERSION_FIGURES: file.to_bytes(), PAGE: page[PAGE]}
    began, ended = night.span
    return NightRecord(
        run_id=run.run_id,
        as_of=night.as_of,
        sentence=decision.sentence,
        why=policy,
        figure=shown.text,
        began=began,
        ended=ended,
        children=tuple(_children(night, winner, shown, artifacts)),
        datasets=_datasets(night, split),
        params={
            **_parameters(night, split),
            # That of the gate: MLflow rejects a changed parameter after an override.
            "champion": run.read(DecisionFile).root.recipe,
        },
        metrics={**shown.metrics, **in_folders(figures, "")},
        tags={**tags, **shown.reasons},
        artifacts={
            **{name: run.path(*source) for name, source in _COPIED.items()},
            **page,
            _VERSION_FIGURES: file.to_bytes(),
            _BOUNDS: _json(bounds(figures, "")),
        },
        winner=winner,
        model=None if winner is None else _model(night, shown, decision.sentence),
        version=version,
        taken=taken,
    )


def _policy_text(night: Night) -> str:
    """Return the policy's decision, marked if it did not start the night; empty before it."""
    policy = read_policy(night.run)
    if policy is None or night.snapshot.trigger is not None:
        return "" if policy is None else policy.reason
    return f"started without a request of the retrain policy; its decision: {policy.reason}"


def _parameters(night: Night, split: SplitFile) -> dict[str, str | int]:
    """Return the facts of a run that *Compare* shows beside hyperparameters; it hides tags."""
    holdout = split.holdout
    return {
        "as_of": format_instant(night.as_of),
        "holdout": f"{holdout.start:%Y-%m-%d} to {holdout.end:%Y-%m-%d}",
        "holdout_days": split.holdout_days,
        "list_length": night.config.recommend.length,
        "target_kinds": ",".join(split.target_kinds),
        "task": split.task,
    }


def _figures(night: Night) -> dict[str, float]:
    """Return the metrics of a run besides those of its version, by their names in files."""
    run = night.run
    return {
        **_cleaning(run),
        **live_metrics(run),
        **churn_metrics(run),
        **parity_metrics(run),
        **drift_metrics(run),
        **effect_metrics(run),
        **_answers(night),
    }


def _children(
    night: Night, winner: str | None, shown: ShownFigures, artifacts: Mapping[str, Path | bytes]
) -> Iterator[ChildRecord]:
    """Yield the recipes of the run: those that were trained, then those that failed."""
    run, evaluations = night.run, night.run.read(EvaluationFile).recipes
    shared = _parameters(night, run.read(SplitFile))
    judged = {recipe.name: recipe for recipe in read_evaluated_recipes(night.run, night.snapshot)}
    lifts = {
        row.recipe: _lift("attribution.lift_without_answers", row)
        for row in decision_of(run).without_answers
        if row.recipe != night.champion_name
    }
    for name in trained(night):
        step = train_step(name)
        file, measured = run.read(RecipeFile, step), run.read(CostFile, step)
        cost, cause = measured.metrics(), measured.gpu_cause
        if name == winner and (refit := run.find(CostFile, REFIT)) is not None:
            cost |= refit.metrics("refit_")
            cause = cause or refit.gpu_cause
        figures = {**evaluations[name].metrics, **lifts.get(name, {})}
        # The winner's run owns the version, so *Compare* shows the metrics of this run.
        own = name == winner
        yield ChildRecord(
            recipe=name,
            params={
                "recipe": name,
                **shared,
                "trained_on": file.trained_on,
                "deterministic": str(file.recipe.capabilities.deterministic).lower(),
                **hyper_parameters(file.recipe),
            },
            metrics={
                **(shown.metrics if own else _recipe_metrics(night, judged, name)),
                **in_folders(figures, "slice/all."),
                **in_folders(cost, "cost/"),
            },
            tags={
                **({**shown.reasons, **_model_tags(night, name)} if own else {}),
                **({} if cause is None else {"nightjar.gpu_not_used": cause}),
            },
            artifacts={
                _BOUNDS: _json(bounds(figures, "slice/all.")),
                **(artifacts if own else {}),
            },
        )
    for name, reason in absences(night).items():
        if run.committed(train_step(name)) is None:
            parameters = {"recipe": name, **shared, **hyper_parameters(night.recipes[name])}
            yield ChildRecord(recipe=name, params=parameters, failure=reason)


def _recipe_metrics(
    night: Night, judged: Mapping[str, EvaluatedRecipe], name: str
) -> dict[str, float]:
    lift = over_best_baseline(judged[name], [*judged.values()], night.config.gate)
    over = {} if isinstance(lift, str) else lift_metrics(OVER_BASELINE, lift.interval)
    return {**over, **level_metrics(night, name)}


def _datasets(night: Night, split: SplitFile) -> tuple[DatasetRecord, ...]:
    rows = night.run.read(TablesFile).rows
    holdout, events = split.holdout, night.snapshot.versions["events"]
    tables = tuple(
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
    return (
        *tables,
        DatasetRecord(
            name="holdout",
            lake_version=events or 0,
            digest=f"{holdout.start:%Y%m%d}-{holdout.end:%Y%m%d}@{events}-{compact_instant(night.as_of)}",
            rows=night.run.frame("features", "truth").height,
            context=EVALUATION,
        ),
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


def _model(night: Night, shown: ShownFigures, sentence: str) -> ModelRecord:
    there = has_model_files(night.run)
    pages = {"Page of the night": PAGE}
    if night.champion is not None:
        before = f"Comparison with version {night.champion.model_version}"
        pages[before] = f"{PAGES}/{BEFORE_PAGE}"
    return ModelRecord(
        files=tuple(night.run.path(REFIT, name) for name in _FILES) if there else (),
        figure=shown.sentence,
        description=sentence,
        pages=pages,
    )


def _model_tags(night: Night, winner: str) -> dict[str, str]:
    """Return the tags of the run that owns the version."""
    recipe = night.recipes[winner].model_dump(mode="json")
    removed = {} if has_model_files(night.run) else {FILES_REMOVED_TAG: "true"}
    return {"nightjar.recipe_json": json.dumps(recipe, sort_keys=True), **removed}


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1).encode()
