"""The night in MLflow: everything it committed, gathered as plain records and mirrored.

A kept or blocked night is shown like a promoted one; only a promotion becomes a version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.base import Progress, compact_instant, format_instant, silent
from pipeline.errors import StorageError
from pipeline.steps.diagnostics.churn import churn_metrics
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.diagnostics.live_quality import live_metrics
from pipeline.steps.diagnostics.training_cost import read_cost
from pipeline.steps.feedback.attribution import show_answers
from pipeline.steps.feedback.drift import drift_metrics
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.reporting.page_files import page_files
from pipeline.stores.registry.records import ChildRecord, DatasetRecord, ModelRecord, NightRecord
from pipeline.stores.runs import Ref, Run
from pipeline.workspace.history import PROMOTIONS
from pipeline.workspace.night import Night, decision_of, open_night, register_folder, train_folder
from pipeline.workspace.registry import point_aliases, registry
from pipeline.workspace.run_files import absences, trained
from pipeline.workspace.versions import flat, hyper_parameters
from pipeline.workspace.workspace import Workspace


def register(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Mirror the night into MLflow, whatever it decided; a promotion becomes a version."""
    night = open_night(ws, run_id)
    folder = register_folder(night.run)
    if (ref := night.run.committed(folder)) is not None:
        return ref
    progress("register")
    record = _night_record(night)
    with ws.lake.lock("register"):
        door = registry(ws)
        door.prepare()
        mirrored = door.mirror_night(record)
        if record.model is not None and mirrored.version is not None:
            door.verify(mirrored.version, _sums(night.run, record.model))
        point_aliases(ws)
        if not night.replay:
            show_answers(ws, night, door)
    with night.run.draft(folder) as draft:
        draft.json("mlflow", {"run": mirrored.parent_run_id, "version": mirrored.version})
        draft.rows = len(record.children)
    return night.run.ref(folder)


def _night_record(night: Night) -> NightRecord:
    run, decision = night.run, decision_of(night.run)
    winner = decision["recipe"] if decision["kind"] in PROMOTIONS else None
    tags = {
        "nightjar.as_of": format_instant(night.as_of),
        "nightjar.decision": decision["kind"],
        "nightjar.snapshot": json.dumps(night.versions, sort_keys=True),
        "nightjar.git_commit": night.facts["commit"],
        "nightjar.replay": str(night.replay).lower(),
    }
    split, asked = run.json("features", "split"), read_policy(run)
    if asked is not None:
        tags["nightjar.policy"] = asked["reason"]
    return NightRecord(
        run_id=run.run_id,
        as_of=night.as_of,
        sentence=decision["sentence"],
        why="" if asked is None else asked["reason"],
        children=_children(night, winner),
        datasets=_datasets(night),
        params={
            "holdout_days": split["block_days"],
            "policy": split["policy"],
            "target_kinds": ",".join(split["target_kinds"]),
            # What the gate said: MLflow lets no parameter change when a person decides otherwise.
            "champion": run.json("gate", "decision")["recipe"],
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
        model=None if winner is None else _model(night, winner, decision["sentence"], tags),
    )


def _children(night: Night, winner: str | None) -> tuple[ChildRecord, ...]:
    run, found = night.run, night.run.json("evaluate", "evaluation")["recipes"]
    children = []
    for name in trained(night):
        made = run.json(train_folder(name), "recipe")
        children.append(
            ChildRecord(
                recipe=name,
                params={"recipe": name, **flat(made["recipe"])},
                metrics={**found[name]["metrics"], **_costs(run, name, winner)},
                tags={"nightjar.trained_on": made["trained_on"]},
            )
        )
    failed = {
        n: why for n, why in absences(night).items() if run.committed(train_folder(n)) is None
    }
    children += [
        ChildRecord(
            recipe=name,
            params={"recipe": name, **hyper_parameters(night.recipes[name])},
            failure=why,
        )
        for name, why in failed.items()
    ]
    return tuple(children)


def _costs(run: Run, name: str, winner: str | None) -> dict[str, float]:
    """Name what training took; of the winner, what the refit took as well."""
    cost = read_cost(run, train_folder(name))
    again = read_cost(run, "refit") if name == winner else None
    return {
        **({} if cost is None else cost.metrics()),
        **({} if again is None else again.metrics("refit.")),
    }


def _datasets(night: Night) -> tuple[DatasetRecord, ...]:
    rows = night.run.json("features", "tables")
    contexts = {"events": "training", "items": "catalogue", "users": "segments"}
    return tuple(
        DatasetRecord(
            name=table,
            lake_version=version,
            # The as-of, too: two nights may see different rows of one version.
            digest=f"{table}@{version}-{compact_instant(night.as_of)}",
            rows=rows[table],
            context=context,
        )
        for table, context in contexts.items()
        if (version := night.versions[table]) is not None
    )


def _cleaning(run: Run) -> dict[str, float]:
    """Name the counts of what cleaning did: to the training window, to items and users."""
    told = run.json("features", "clean")
    counts: dict[str, float] = {}
    for table, report in (("events", told["train"]), *((t, told[t]) for t in ("items", "users"))):
        for key in ("rows_in", "rows_out", "quarantined"):
            counts[f"clean.{table}.{key}"] = float(report[key])
        for column in report["columns"]:
            for what in ("missing", "filled", "below", "above"):
                counts[f"clean.{table}.{column['column']}.{what}"] = float(column[what])
    return counts


def _model(night: Night, winner: str, sentence: str, tags: Mapping[str, str]) -> ModelRecord:
    files: tuple[Path, ...] = tuple(
        night.run.path("refit", name) for name in ("scorer.npz", "history.npz", "meta.json")
    )
    recipe = json.dumps(night.recipes[winner].model_dump(mode="json"), sort_keys=True)
    made = {"nightjar.recipe_json": recipe}
    if (cost := read_cost(night.run, "refit")) is not None:
        made["nightjar.parameters"] = str(cost.parameters)
        made["nightjar.trained_on"] = cost.trained_on
    return ModelRecord(files=files, description=sentence, tags={**tags, **made})


def _sums(run: Run, model: ModelRecord) -> dict[str, str]:
    files = run.manifest("refit")["files"]
    missing = [path.name for path in model.files if path.name not in files]
    if missing:
        raise StorageError(f"step refit of run {run.run_id} has no file {missing[0]}")
    return {path.name: files[path.name]["sha256"] for path in model.files}
