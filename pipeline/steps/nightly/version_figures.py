"""Figures of a version, as MLflow shows them first.

The lifts over the best baseline and over the version before are those of `workspace.lifts`; that
over version 1 is the product of the lifts over the version before, back to version 1.

Guarantees: a figure that does not exist is absent, with the reason; NDCG of different holdouts is
never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.evaluation.evaluate import NDCG, evaluate_stored, metric_name
from pipeline.evaluation.lift import Lift, chained, verdict
from pipeline.number_text import change
from pipeline.stores.runs import Draft
from pipeline.workspace import lifts
from pipeline.workspace.artifacts import EvaluationFile, SplitFile, train_step
from pipeline.workspace.mlflow_names import (
    DAYS,
    MINUTES,
    OVER_BASELINE,
    OVER_BEFORE,
    OVER_FIRST,
    USERS,
    level_name,
    lift_metrics,
)
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.release_artifacts import VersionFiguresFile
from pipeline.workspace.run_files import (
    FALLBACK,
    read_history,
    read_scorer,
    read_split,
    trained,
)

_FIRST = "1"


def figures_of(night: Night) -> VersionFiguresFile:
    """Return the figures of the version that is live after a decided run.

    Those that `register` committed; before it, they are computed from the run and its champion's.
    """
    return lifts.registered_figures(night.run) or _measure(night)


def _measure(night: Night) -> VersionFiguresFile:
    run, snapshot, name = night.run, night.snapshot, decision_of(night.run).recipe
    over_baseline = lifts.over_baseline(run, snapshot, name)
    over_before = lifts.over_version_before(run, snapshot, name)
    links = over_before if isinstance(over_before, str) else _links(night, over_before)
    figures = {OVER_FIRST: links, OVER_BEFORE: over_before, OVER_BASELINE: over_baseline}
    return VersionFiguresFile(
        recipe=name if name in run.read(EvaluationFile).recipes else None,
        over_baseline=None if isinstance(over_baseline, str) else over_baseline,
        over_before=None if isinstance(over_before, str) else over_before,
        links=() if isinstance(links, str) else links,
        absent={name: text for name, text in figures.items() if isinstance(text, str)},
    )


def _links(night: Night, over_before: Lift) -> tuple[Lift, ...] | str:
    """Return the lifts from version 1 up to this run, each over the version before."""
    run = night.ws.runs.open(str(night.champion and night.champion.run_id))
    number = over_before.against
    if run.committed("gate") is None:
        return f"the files of version {number} are gone"
    before = Night.read(night.ws, run)
    if before.champion is None:
        return (over_before,) if number == _FIRST else f"the first version was {number}, not 1"
    earlier = figures_of(before)
    if not earlier.links:
        return f"version {number} has none: {earlier.absent[OVER_FIRST]}"
    links = (*earlier.links, over_before)
    return links if chained(links) is not None else f"version {number} has a lift of −100 %"


def write_replaced(night: Night, name: str, draft: Draft, progress: Progress) -> None:
    """Write the values of tonight's scorer and of the one that a switch replaces, per user.

    Nothing is written for another decision, or if the stored scorer has seen the holdout.

    Parameters
    ----------
    name
        The promoted recipe.
    draft
        Of the refit.
    """
    champion, run = night.champion, night.run
    if champion is None or name == night.champion_name:
        return
    stored, split = night.ws.runs.open(champion.run_id), read_split(run)
    if stored.read(SplitFile).holdout.start > split.cutoff:
        return
    progress(f"compare with the scorer of version {champion.model_version}")
    fallback = read_scorer(run, train_step(FALLBACK)) if FALLBACK in trained(night) else None
    users = run.frame("features", "users").select(c.USER_ID, c.SEGMENT)
    pair = evaluate_stored(
        read_scorer(stored, train_step(champion.name)),
        read_history(stored, "train"),
        read_scorer(run, train_step(name)),
        read_history(run, "train"),
        split,
        k=night.config.recommend.length,
        fallback=fallback,
        segments=users if users.height else None,
    )
    draft.frame(f"{lifts.REPLACED}-tonight", pair.tonight)
    draft.frame(f"{lifts.REPLACED}-stored", pair.stored)


@dataclass(frozen=True)
class ShownFigures:
    """Figures of a version in the forms in which MLflow shows them.

    Attributes
    ----------
    metrics
        By name, in the order in which *Compare* sorts them.
    reasons
        Tag -> reason, for each figure that is absent.
    text
        Lift over the version before for names of runs; empty without one.
    sentence
        The lifts with intervals, references and verdicts; that over the version before, or a note
        of the first version, comes first.
    """

    metrics: Mapping[str, float]
    reasons: Mapping[str, str]
    text: str
    sentence: str


def shown_figures(night: Night, file: VersionFiguresFile) -> ShownFigures:
    """Return the figures of a version as MLflow shows them.

    Parameters
    ----------
    night
        The run.
    file
        Its figures.
    """
    shown = _shown_lifts(file)
    metrics: dict[str, float] = {}
    for name, (_, interval) in shown.items():
        metrics |= lift_metrics(name, interval)
    if file.recipe is not None:
        metrics |= level_metrics(night, file.recipe)
    began, ended = night.span
    metrics[MINUTES] = round((ended - began).total_seconds() / 60, 1)
    ranked = [shown[name] for name in (OVER_BEFORE, OVER_FIRST, OVER_BASELINE) if name in shown]
    # In this order, because MLflow's table of versions cuts the text after some 25 characters.
    parts = [
        f"{change(lift)} ({change(low).removesuffix(' %')} to {change(high).removesuffix(' %')}) "
        f"over {reference}: {verdict(low, high, night.config.gate.refresh_margin)}"
        for reference, (lift, low, high) in dict(ranked).items()
    ]
    if night.champion is None:
        parts.insert(0, "First version")
    return ShownFigures(
        metrics=metrics,
        reasons={f"nightjar.no_{_tag(name)}": text for name, text in file.absent.items()},
        text="" if file.over_before is None else change(file.over_before.lift),
        sentence="; ".join(parts) or "No lift was measured",
    )


def _shown_lifts(file: VersionFiguresFile) -> dict[str, tuple[str, tuple[float, float, float]]]:
    """Return the reference and the interval of each lift that exists, by its name in MLflow."""
    shown = {}
    if (over := file.over_baseline) is not None:
        shown[OVER_BASELINE] = f"the best baseline {over.against}", over.interval
    if (over := file.over_before) is not None:
        shown[OVER_BEFORE] = f"version {over.against}", over.interval
    if file.links and (product := chained(file.links)) is not None:
        shown[OVER_FIRST] = f"version {_FIRST}", product
    return shown


def level_metrics(night: Night, name: str) -> dict[str, float]:
    """Return NDCG of a recipe, number of users and days of its holdout, as MLflow shows them first.

    Parameters
    ----------
    name
        An evaluated recipe.
    """
    k = night.config.recommend.length
    figures = night.run.read(EvaluationFile).recipes[name].metrics
    level = figures.get(metric_name(NDCG, k))
    return {
        **({} if level is None else {level_name(k): round(level, 4)}),
        USERS: float(night.run.manifest("evaluate")["rows"]),
        DAYS: float(night.run.read(SplitFile).holdout_days),
    }


def _tag(name: str) -> str:
    return name.removesuffix(" pct").partition(" ")[2].replace(" ", "_")
