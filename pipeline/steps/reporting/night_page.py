"""Fills the rows of a night's page from what the night committed; lifts are the gate's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.data.split import Split
from pipeline.evaluation.beyond_accuracy import DIVERSITY, GINI, NOVELTY
from pipeline.evaluation.evaluate import COVERAGE, NDCG, metric_name
from pipeline.evaluation.gate import Decision, offers
from pipeline.report.night import (
    CheckRow,
    ColumnRow,
    CostRow,
    NightPage,
    ReasonRow,
    RecipeRow,
    RuleRow,
    TableRow,
    from_json,
)
from pipeline.report.wording import advice
from pipeline.steps.diagnostics.training_cost import read_cost
from pipeline.steps.feedback.attribution import read_answers, told_of
from pipeline.steps.feedback.drift import drift_rows, read_drift
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.reporting.comparison_rows import lift_rows, slice_rows
from pipeline.steps.reporting.page_files import DATA
from pipeline.steps.reporting.past_nights import (
    NOTHING_MADE,
    Made,
    account_rows,
    churn_rows,
    fold_rows,
    live_rows,
    past_rows,
    trust,
)
from pipeline.workspace.chosen_recipes import in_words
from pipeline.workspace.history import decisions_before
from pipeline.workspace.night import Night, read_pinned, train_folder
from pipeline.workspace.run_files import absences, read_split
from pipeline.workspace.workspace import Workspace


def gather(ws: Workspace, night: Night, decision: Decision, made: Made = NOTHING_MADE) -> NightPage:
    """Gather the page of a night."""
    run, k = night.run, night.config.recommend.length
    found = run.json("evaluate", "evaluation")["recipes"]
    metric = metric_name(NDCG, k)
    against = night.champion_name or _best_baseline(night, found, metric)
    challenger = _challenger(night, found, metric, decision, against)
    rules = _rules(decision)
    split = read_split(run)
    before = decisions_before(ws, night.as_of)
    quarantined, reasons = quarantine_rows(ws, night)
    return NightPage(
        run_id=run.run_id,
        as_of=night.as_of,
        kind=decision.kind,
        sentence=decision.sentence,
        metric=metric,
        recipes=_recipes(night, found, metric, k),
        winner=decision.recipe,
        challenger=challenger,
        against=against,
        needed_lift=night.config.gate.min_lift,
        chosen=tuple(in_words(night).items()),
        costs=_costs(night, found, metric),
        lifts=lift_rows(night, against, decision.to_dict()["accounts"]),
        slices=slice_rows(night, challenger, against),
        rules=rules,
        checks=_checks(night),
        tables=_tables(night),
        facts=_facts(split),
        advice=advice(decision.kind, rules, run.run_id, () if night.replay else offers(decision)),
        accounts=account_rows(before, night.as_of, decision.to_dict()["accounts"]),
        trust=trust(ws, night),
        past=past_rows(ws, before, _line(night, split, decision), metric),
        churn=churn_rows(ws, before, (night.as_of, made.churned)),
        folds=fold_rows(ws, before, night, made.folded),
        live=live_rows(before, night),
        answers=None if (told := read_answers(run)) is None else told_of(told),
        drift=() if (seen := read_drift(run)) is None else drift_rows(seen),
        policy="" if (asked := read_policy(run)) is None else asked["reason"],
        quarantined=quarantined,
        reasons=reasons,
        cleaned=cleaned_rows(night),
        origin=(
            ("code", night.facts["commit"]),
            ("settings", night.facts["settings"][:12]),
        ),
    )


def quarantine_rows(ws: Workspace, night: Night) -> tuple[int | None, tuple[ReasonRow, ...]]:
    """Count what the night saw in quarantine: rows, and rows for each reason, most first."""
    if night.run.committed("gate") is not None:  # rows may have left quarantine since
        told = from_json(night.run.bytes("gate", DATA))
        return told.quarantined, told.reasons
    if night.versions["batches"] is None:  # nothing was ever taken in by us
        return None, ()
    found = read_pinned(ws, night, "quarantine", columns=[c.REASONS])[c.REASONS]
    counts = Counter(reason for reasons in found.to_list() for reason in set(reasons or ()))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return len(found), tuple(ReasonRow(reason, rows) for reason, rows in ordered)


def cleaned_rows(night: Night) -> tuple[ColumnRow, ...]:
    """Tell what cleaning found in the columns that have a policy."""
    told = night.run.json("features", "clean")
    tables = (("events", told["train"]), *((t, told[t]) for t in ("items", "users")))
    return tuple(
        ColumnRow(
            table=table,
            column=column["column"],
            rows=report["rows_in"],
            missing=column["missing"],
            filled=column["filled"],
            outliers=column["below"] + column["above"],
            removed=column["quarantined"],
        )
        for table, report in tables
        for column in report["columns"]
    )


def _line(night: Night, split: Split, decision: Decision) -> dict[str, Any]:
    """Return what tonight's line of the ledger will hold, of what the page looks at."""
    return {
        "run_id": night.run.run_id,
        "as_of": format_instant(night.as_of),
        "kind": decision.kind,
        "recipe": decision.recipe,
        "block_days": split.block_days,
        "task": {
            "policy": split.policy,
            "target_kinds": list(split.target_kinds),
            "k": night.config.recommend.length,
        },
        "decision": decision.to_dict(),
    }


def _rules(decision: Decision) -> tuple[RuleRow, ...]:
    return tuple(
        RuleRow(
            name=rule.name,
            subject=rule.subject,
            figure=rule.figure,
            bound=rule.bound,
            verdict={"pass": "passed", "fail": "failed"}.get(rule.verdict, rule.verdict),
            sentence=rule.sentence,
        )
        for rule in decision.rules
    )


def _recipes(night: Night, found: dict[str, Any], metric: str, k: int) -> tuple[RecipeRow, ...]:
    rows = []
    for name, told in found.items():
        metrics = told["metrics"]
        rows.append(
            RecipeRow(
                name=name,
                role=_role(night, name),
                mean=metrics.get(metric),
                lo=metrics.get(f"{metric}_lo"),
                hi=metrics.get(f"{metric}_hi"),
                coverage=metrics.get(metric_name(COVERAGE, k)),
                gini=metrics.get(metric_name(GINI, k)),
                novelty=metrics.get(metric_name(NOVELTY, k)),
                diversity=metrics.get(metric_name(DIVERSITY, k)),
            )
        )
    missing = absences(night).items()
    rows += [RecipeRow(name, _role(night, name), failure=why) for name, why in missing]
    return tuple(rows)


def _costs(night: Night, found: dict[str, Any], metric: str) -> tuple[CostRow, ...]:
    taken = ((name, read_cost(night.run, train_folder(name))) for name in night.recipes)
    best = _best_baseline(night, found, metric)
    level = found[best]["metrics"].get(metric, 0.0) if best else 0.0
    return tuple(
        CostRow(
            name=name,
            seconds=cost.fit_seconds,
            cpu_seconds=cost.fit_cpu_seconds,
            peak_mb=cost.peak_mb,
            parameters=cost.parameters,
            events_per_second=cost.examples_per_second,
            trained_on=cost.trained_on,
            gain=_gain(night, found, name, metric, level),
        )
        for name, cost in taken
        if cost is not None
    )


def _gain(
    night: Night, found: dict[str, Any], name: str, metric: str, level: float
) -> float | None:
    """Return a recipe's lift over the best baseline's mean; None for a baseline."""
    reached = found.get(name, {}).get("metrics", {}).get(metric)
    if reached is None or level <= 0 or night.recipes[name].capabilities.baseline is not None:
        return None
    return float(reached / level - 1)


def _role(night: Night, name: str) -> str:
    if name == night.champion_name:
        return "champion"
    return "candidate" if night.recipes[name].capabilities.baseline is None else "baseline"


def _best_baseline(night: Night, found: dict[str, Any], metric: str) -> str | None:
    rungs = [n for n in found if night.recipes[n].capabilities.baseline is not None]
    return max(rungs, key=lambda n: found[n]["metrics"].get(metric, 0.0), default=None)


def _challenger(
    night: Night, found: dict[str, Any], metric: str, decision: Decision, against: str | None
) -> str | None:
    """Name who stands beside `against` in the slices: the winner, else the best of the others."""
    if decision.recipe in found and decision.recipe != against:
        return decision.recipe
    others = [n for n in found if n != against]
    learned = [n for n in others if night.recipes[n].capabilities.baseline is None] or others
    return max(learned, key=lambda n: found[n]["metrics"].get(metric, 0.0), default=None)


def _checks(night: Night) -> tuple[CheckRow, ...]:
    checks = night.run.json("validate", "validation")["checks"]
    return tuple(
        CheckRow(x["name"], x["status"], x["figure"], x["bound"], x["sentence"]) for x in checks
    )


def _tables(night: Night) -> tuple[TableRow, ...]:
    rows = night.run.json("features", "tables")
    return tuple(
        TableRow(table, version, rows[table])
        for table, version in night.versions.items()
        if version is not None and table in rows
    )


def _facts(split: Split) -> tuple[tuple[str, str], ...]:
    return (
        ("learnt from", f"{format_instant(split.train.start)} to {format_instant(split.cutoff)}"),
        ("judged on", f"the {split.block_days} days from {format_instant(split.cutoff)} on"),
        ("people judged", f"{split.n_users:,}"),
        ("task", split.policy),
        ("what counts", ", ".join(split.target_kinds)),
    )
