"""Page of two versions: the facts of each beside each other, and comparisons that are given.

Guarantees: only comparisons paired by user are subtracted; equal files give an equal page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.base import Interval, format_instant
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.report.pair import Pair, PairedComparison, Sample, VersionRow, VersionsPage
from pipeline.report.versions import comparison_sentence
from pipeline.steps.reporting.paired_rows import evaluated_on, metrics, same_holdout
from pipeline.workspace.artifacts import (
    REFIT,
    CostFile,
    RecipeFile,
    SplitFile,
    TablesFile,
    train_step,
)
from pipeline.workspace.config import dump, flat
from pipeline.workspace.config_errors import Tree
from pipeline.workspace.versions import Version, hyper_parameters

NONE = "–"


def build_versions_page(
    left: Version,
    right: Version,
    comparisons: Sequence[PairedComparison],
    lists: str,
    samples: Sequence[Sample] = (),
) -> VersionsPage:
    """Return the page of two versions.

    Parameters
    ----------
    left, right
        Lifts are those of `right` over `left`.
    comparisons
        At least one.
    lists, samples
        Text about the sample lists, and the lists.
    """
    page = VersionsPage(
        left=_row(left),
        right=_row(right),
        metric=metric_name(NDCG, right.night.config.recommend.length),
        margin=right.night.config.gate.refresh_margin,
        sentence="",
        weeks=_days(left, right),
        paired_comparisons=tuple(comparisons),
        metrics=metrics(left, right),
        settings=_pairs(_recipe(left), _recipe(right)),
        night_settings=tuple(p for p in _pairs(_config(left), _config(right)) if p.differs),
        data=_pairs(_data(left), _data(right)),
        cost=_pairs(_cost(left), _cost(right)),
        lists=lists,
        samples=tuple(samples),
    )
    # A comparison without rows has no sentence; its reason is in its own section.
    results = [text for c in comparisons if (text := comparison_sentence(page, c))]
    sentence = "; ".join(results) or "no users and ground truth are common to both evaluations"
    return replace(page, sentence=f"{sentence[0].upper()}{sentence[1:]}.")


def _row(version: Version) -> VersionRow:
    night, publication = version.night, version.publication
    if publication is not None:
        since = format_instant(publication.live_from)
        live = f"from {since} on ({publication.publication_id})"
    elif night.replay or not night.snapshot.publish or night.run.committed("publish") is not None:
        live = "not published"
    else:  # `register` makes a page before the lists are published
        live = "not published yet when this page was made"
    return VersionRow(
        number=version.number,
        recipe=version.name,
        as_of=night.as_of,
        decision=version.decision.kind,
        sentence=version.decision.sentence,
        trained_on=night.run.read(RecipeFile, REFIT).trained_on,
        deterministic=night.recipes[version.name].capabilities.deterministic,
        live=live,
        judged=evaluated_on(version),
        run_id=night.run_id,
        commit=night.snapshot.commit[:12],
    )


def _days(left: Version, right: Version) -> str:
    if same_holdout(left, right):
        return "Both were evaluated on the same holdout: their figures can be subtracted."
    return (
        f"Version {left.number} was evaluated on {evaluated_on(left)}, version {right.number} on "
        f"{evaluated_on(right)}: figures of different days must not be subtracted."
    )


def _recipe(version: Version) -> Tree:
    return {"recipe": version.name, **hyper_parameters(version.night.recipes[version.name])}


def _config(version: Version) -> Tree:
    """Return the run's settings without recipes: event weights are the chosen ones."""
    # Recipes have a section of their own; the settings of MLflow and of maintenance change no
    # model.
    config = dump(version.night.config)
    return flat({n: part for n, part in config.items() if n not in ("recipes", "registry", "gc")})


def _data(version: Version) -> Tree:
    night = version.night
    split, tables = night.run.read(SplitFile), Tree()
    for table, count in night.run.read(TablesFile).rows.items():
        tables[f"{table}: lake version"] = night.snapshot.versions[table]
        tables[f"{table}: rows"] = f"{count:,}"
    return {
        **tables,
        "training window": str(Interval(split.train.start, night.as_of)),
        "cutoff of the evaluation": format_instant(split.holdout.start),
        "holdout": str(split.holdout),
        "holdout, days": split.holdout_days,
        "users evaluated": f"{night.run.manifest('evaluate')['rows']:,}",
        "lists may repeat items": "yes" if split.task == "repeat" else "no",
        "target kinds": ", ".join(split.target_kinds),
        "list length": night.config.recommend.length,
    }


def _cost(version: Version) -> Tree:
    steps = {"for the evaluation": train_step(version.name), "for the live lists": REFIT}
    costs = {name: version.night.run.find(CostFile, step) for name, step in steps.items()}
    return {
        f"trained {name}, {label}": text
        for name, cost in costs.items()
        if cost is not None
        for label, text in (
            ("seconds", f"{cost.fit_seconds:,.2f}"),
            ("CPU seconds", f"{cost.fit_cpu_seconds:,.2f}"),
            ("memory, MB", f"{cost.peak_mb:,.0f}"),
            ("parameters", f"{cost.parameters:,}"),
            ("events per second", f"{cost.examples_per_second:,.0f}"),
        )
    }


def _pairs(left: Tree, right: Tree) -> tuple[Pair, ...]:
    """Line up two sets of facts, in the order of the left one, then of the right one."""
    # Recipes of two families have different hyperparameters, and each side must be complete.
    names = dict.fromkeys([*left, *right])
    return tuple(Pair(n, _text(left.get(n)), _text(right.get(n))) for n in names)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return NONE if value is None else str(value)
