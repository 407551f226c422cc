"""Content of the page of a nightly run, read from its artefacts.

Guarantees: a page that is built after the gate has the quarantine counts of the gate's page,
whatever was deleted since.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from pipeline import columns as c
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate import Decision, offers
from pipeline.report.night import NightPage
from pipeline.report.wording import advice
from pipeline.steps.reporting.comparison_rows import lift_rows, slice_rows
from pipeline.steps.reporting.past_nights import (
    e_process_paths,
    past_churn,
    past_live,
    past_parity,
    past_runs,
)
from pipeline.stores.json_files import RootArtifact
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import (
    CleanFile,
    EvaluationFile,
    SplitFile,
    TablesFile,
    ValidationFile,
)
from pipeline.workspace.history import MAX_PAST_NIGHTS
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import (
    AttributionFile,
    ChurnFile,
    DriftFile,
    ParityFile,
    PolicyFile,
)
from pipeline.workspace.run_files import absences, read_split, training_costs

T = TypeVar("T")


def build_page(
    night: Night,
    decision: Decision,
    *,
    churn: ChurnFile | None = None,
    parity: ParityFile | None = None,
) -> NightPage:
    """Build the page of a run.

    Parameters
    ----------
    decision
        The gate's decision.
    churn, parity
        Measured on the refit's lists; None before the cold check, which makes them.
    """
    run, k = night.run, night.config.recommend.length
    evaluations = run.read(EvaluationFile).recipes
    metric = metric_name(NDCG, k)
    means = {name: result.metrics.get(metric, 0.0) for name, result in evaluations.items()}
    ranks = {name: recipe.capabilities.baseline for name, recipe in night.recipes.items()}
    baselines = tuple(name for name, rank in ranks.items() if rank is not None)
    evaluated = (name for name in means if name in baselines)
    # A first run has no champion: lifts are over the best baseline.
    against = night.champion_name or max(evaluated, key=means.__getitem__, default=None)
    challenger = _challenger(means, baselines, decision, against)
    before = night.history.decisions_before(night.as_of)[-MAX_PAST_NIGHTS:]
    quarantined, reasons = _quarantine(night)
    offered = () if night.replay else offers(decision)  # a replay has nothing to override
    return NightPage(
        run_id=night.run_id,
        as_of=night.as_of,
        commit=night.snapshot.commit,
        settings=night.snapshot.settings,
        decision=decision,
        k=k,
        split=run.read(SplitFile),
        users=read_split(run).n_users,
        evaluations=evaluations,
        champion=night.champion_name,
        baselines=baselines,
        failures=absences(night),
        selected={name: recipe.summary for name, recipe in night.selected.items()},
        costs=training_costs(run),
        challenger=challenger,
        against=against,
        needed_lift=night.config.gate.min_lift,
        margin=night.config.gate.refresh_margin,
        lifts=lift_rows(night, against, decision.e_processes),
        slices=slice_rows(night, challenger, against),
        checks=run.read(ValidationFile).checks,
        versions=night.snapshot.versions,
        known=night.snapshot.known,
        tables=run.read(TablesFile),
        cleaning=run.read(CleanFile),
        quarantined=quarantined,
        quarantine_reasons=reasons,
        advice=advice(decision.kind, decision.rules, night.run_id, offered),
        calibration=night.history.last_calibration(night.as_of),
        e_process_paths=e_process_paths(before, night.as_of, decision.e_processes),
        past=past_runs(night, before, decision),
        live=past_live(night, before),
        churn=past_churn(night, before, churn),
        parity=past_parity(night, before, parity),
        attribution=_root(run, AttributionFile),
        drift=_root(run, DriftFile),
        policy=_root(run, PolicyFile),
        answers=run.read(EvaluationFile).answers,
    )


def _root(run: Run, kind: type[RootArtifact[T]]) -> T | None:
    file = run.find(kind)
    return None if file is None else file.root


def _challenger(
    means: dict[str, float], baselines: tuple[str, ...], decision: Decision, against: str | None
) -> str | None:
    """Return the recipe to compare with `against`: the winner, else the best of the others."""
    if decision.recipe in means and decision.recipe != against:
        return decision.recipe
    others = [name for name in means if name != against]
    # A baseline is the challenger only if no learned recipe was evaluated.
    learned = [name for name in others if name not in baselines] or others
    return max(learned, key=lambda name: means[name], default=None)


def _quarantine(night: Night) -> tuple[int | None, dict[str, int]]:
    """Count the rows in quarantine, and by reason; None for a lake without batches."""
    if night.run.committed("gate") is not None:  # quarantine expires: a later count would differ
        page = night.run.read(NightPage)
        return page.quarantined, dict(page.quarantine_reasons)
    if night.snapshot.versions["batches"] is None:  # no file was ingested yet
        return None, {}
    reasons = night.table("quarantine", columns=[c.REASONS])[c.REASONS].to_list()
    return len(reasons), dict(Counter(reason for row in reasons for reason in set(row or ())))
