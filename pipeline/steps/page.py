"""Fills the night's page and figures from what the night committed; lifts are the gate's own."""

from __future__ import annotations

import math
from typing import Any

from pipeline.base import format_instant
from pipeline.data.split import Split
from pipeline.errors import GateError
from pipeline.evaluation.evaluate import COVERAGE, NDCG, SLICE, USERS, metric_name
from pipeline.evaluation.gate import Decision, compare, is_proved, threshold
from pipeline.report.night import (
    CheckRow,
    CostRow,
    LiftRow,
    NightPage,
    RecipeRow,
    RuleRow,
    SliceRow,
    TableRow,
)
from pipeline.report.page import night_figures, night_page
from pipeline.report.words import advice
from pipeline.steps.cost import read_cost
from pipeline.steps.learn import absences, judged
from pipeline.steps.night import Night, train_folder
from pipeline.steps.settle import in_words

_95 = 1.96


def night_files(night: Night, split: Split, decision: Decision) -> dict[str, bytes]:
    """Return the page and the figures of a night by file name."""
    told = gather(night, split, decision)
    pictures = night_figures(told)
    return {**pictures, "page.html": night_page(told, pictures).encode()}


def gather(night: Night, split: Split, decision: Decision) -> NightPage:
    """Gather the page of a night."""
    run, k = night.run, night.config.recommend.length
    found = run.json("evaluate", "evaluation")["recipes"]
    metric = metric_name(NDCG, k)
    against = night.champion_name or _best_baseline(night, found, metric)
    challenger = _challenger(night, found, metric, decision, against)
    rules = tuple(
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
        costs=_costs(night),
        lifts=lift_rows(night, against),
        slices=_slices(found, challenger, against, k),
        rules=rules,
        checks=_checks(night),
        tables=_tables(night),
        facts=_facts(split),
        advice=advice(decision.kind, rules),
        origin=(
            ("run", run.run_id),
            ("code", night.facts["commit"]),
            ("settings", night.facts["settings"][:12]),
        ),
    )


def lift_rows(night: Night, against: str | None) -> tuple[LiftRow, ...]:
    """Compare every recipe with `against` on the same people, as the gate compares them."""
    config, recipes = night.config.gate, {recipe.name: recipe for recipe in judged(night)}
    if against not in recipes:
        return ()
    bound = threshold(config, len(recipes) - 1)
    rows = []
    for name, recipe in recipes.items():
        if name == against:
            continue
        try:
            found = compare(recipe, recipes[against], config)
        except GateError:  # the decision names what is missing
            continue
        if not math.isfinite(found.v):  # nobody to compare on
            continue
        half = _95 * found.se
        low, high = found.x - half, found.x + half
        proved = is_proved(found, bound, config)
        rows.append(LiftRow(name, found.x, low, high, proved, found.underpowered))
    return tuple(rows)


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
            )
        )
    missing = absences(night).items()
    rows += [RecipeRow(name, _role(night, name), failure=why) for name, why in missing]
    return tuple(rows)


def _costs(night: Night) -> tuple[CostRow, ...]:
    taken = ((name, read_cost(night.run, train_folder(name))) for name in night.recipes)
    return tuple(
        CostRow(
            name=name,
            seconds=cost.fit_seconds,
            cpu_seconds=cost.fit_cpu_seconds,
            peak_mb=cost.peak_mb,
            parameters=cost.parameters,
            events_per_second=cost.examples_per_second,
            trained_on=cost.trained_on,
        )
        for name, cost in taken
        if cost is not None
    )


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


def _slices(
    found: dict[str, Any], challenger: str | None, against: str | None, k: int
) -> tuple[SliceRow, ...]:
    if challenger is None or against is None:
        return ()
    mine, theirs = found[challenger]["metrics"], found[against]["metrics"]
    names = [
        key.removeprefix(SLICE).removesuffix(f".{USERS}")
        for key in mine
        if key.startswith(SLICE) and key.endswith(f".{USERS}")
    ]
    rows = []
    for name in names:
        key = metric_name(NDCG, k, name)
        if key in mine and key in theirs:
            rows.append(
                SliceRow(
                    name,
                    int(mine[f"{SLICE}{name}.{USERS}"]),
                    (mine[key], mine[f"{key}_lo"], mine[f"{key}_hi"]),
                    (theirs[key], theirs[f"{key}_lo"], theirs[f"{key}_hi"]),
                )
            )
    return tuple(rows)


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
