"""Results of earlier runs for a page: the champion's metrics, e-values, lists.

Guarantees: a page reads the ledger as of its run, so building it later gives the same page; an
earlier run without files leaves a gap.

In all functions `before` holds the decisions of earlier runs, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from pipeline.errors import StorageError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate import Decision
from pipeline.evaluation.gate.e_process_status import EProcessStatus
from pipeline.evaluation.prequential import LiveFigures
from pipeline.report.night import Dated, PastParity, PastRun
from pipeline.stores.json_files import JsonFile
from pipeline.workspace.artifacts import EvaluationFile, FollowedParityFile, LiveFile, SplitFile
from pipeline.workspace.ledger import DecisionEntry
from pipeline.workspace.lifts import over_baseline, registered_figures
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import ChurnFile, ParityFile

A = TypeVar("A", bound=JsonFile)


def past_runs(
    night: Night, before: Sequence[DecisionEntry], decision: Decision
) -> tuple[PastRun, ...]:
    """Return the champion's metrics in this run and in comparable earlier ones.

    Runs are comparable if task, target kinds and list length are equal.

    Parameters
    ----------
    before
        Decisions of earlier runs.
    decision
        Of this run.
    """
    split = night.run.read(SplitFile)
    key = split.comparison_key(night.config)
    runs = [
        (entry.as_of, entry.run_id, entry.holdout_days, entry.decision)
        for entry in before
        if entry.comparison_key == key
    ]
    runs.append((night.as_of, night.run_id, split.holdout_days, decision))
    rows = (_past_run(night, *run) for run in runs)
    return tuple(row for row in rows if row is not None)


def e_process_paths(
    before: Sequence[DecisionEntry], as_of: datetime, e_processes: Sequence[EProcessStatus]
) -> dict[str, tuple[Dated[float], ...]]:
    """Follow the e-processes of this run back to their start.

    Parameters
    ----------
    before
        Decisions of earlier runs.
    as_of, e_processes
        Of this run.

    Returns
    -------
    Natural logarithm of the e-value by run, by the candidate's hash.
    """
    paths: dict[tuple[str, str], list[Dated[float]]] = {}
    runs = [(entry.as_of, entry.decision.e_processes) for entry in before]
    for instant, statuses in (*runs, (as_of, tuple(e_processes))):
        champions = {status.champion_hash for status in statuses}
        # A new champion ends all e-processes; a recipe that returns starts a new one.
        # A run whose figures must not count has no e-processes: it ends no path.
        paths = {key: path for key, path in paths.items() if not statuses or key[0] in champions}
        for status in statuses:
            point = Dated(instant, status.log_e)
            paths.setdefault(_key(status), []).append(point)
    return {status.recipe_hash: tuple(paths[_key(status)]) for status in e_processes}


def past_live(night: Night, before: Sequence[DecisionEntry]) -> tuple[Dated[LiveFigures], ...]:
    """Return the prequential scores of this run and earlier ones.

    Parameters
    ----------
    before
        Decisions of earlier runs, which hold their scores.
    """
    rows = [Dated(entry.as_of, row) for entry in before for row in entry.live]
    live = night.run.find(LiveFile)
    rows += [] if live is None else [Dated(night.as_of, row.summary) for row in live.rows]
    return tuple(rows)


def past_churn(
    night: Night, before: Sequence[DecisionEntry], churn: ChurnFile | None
) -> tuple[Dated[ChurnFile], ...]:
    """Return the churn of each promotion.

    Parameters
    ----------
    before
        Decisions of earlier runs.
    churn
        Of this run, or None.
    """
    files = [(entry.as_of, _find(night, entry.run_id, ChurnFile)) for entry in before]
    return tuple(
        Dated(as_of, file) for as_of, file in (*files, (night.as_of, churn)) if file is not None
    )


def past_parity(
    night: Night, before: Sequence[DecisionEntry], parity: ParityFile | None
) -> tuple[PastParity, ...]:
    """Return the fold-in parity of each promotion, and the scores of its lists afterwards.

    Parameters
    ----------
    before
        Decisions of earlier runs.
    parity
        Of this run, or None.
    """
    run_ids = (*(entry.run_id for entry in before), night.run_id)
    followed = [_find(night, run_id, FollowedParityFile) for run_id in run_ids]
    since = {file.run_id: file for file in followed if file is not None}
    files = [(e.as_of, e.run_id, _find(night, e.run_id, ParityFile)) for e in before]
    return tuple(
        PastParity(as_of, file, since.get(run_id))
        for as_of, run_id, file in (*files, (night.as_of, night.run_id, parity))
        if file is not None
    )


def _key(status: EProcessStatus) -> tuple[str, str]:
    return status.champion_hash, status.recipe_hash


def _past_run(
    night: Night, as_of: datetime, run_id: str, holdout_days: int, decision: Decision
) -> PastRun | None:
    if decision.recipe is None:
        return None
    run, evaluation = night.ws.runs.open(run_id), _find(night, run_id, EvaluationFile)
    recipe = None if evaluation is None else evaluation.recipes.get(decision.recipe)
    metric = metric_name(NDCG, night.config.recommend.length)
    mean, lo, hi = (None, None, None) if recipe is None else recipe.interval(metric)
    figures = registered_figures(run)
    lift = None if figures is None else figures.over_baseline
    if run_id == night.run_id:
        tonight = over_baseline(run, night.snapshot, decision.recipe)
        lift = None if isinstance(tonight, str) else tonight
    level = (mean, lo, hi, *(() if lift is None else lift.interval))
    return PastRun(as_of, decision.kind, decision.recipe, holdout_days, *level)


def _find(night: Night, run_id: str, kind: type[A]) -> A | None:
    """Read a file of a run; None without the file or without the run's folder."""
    try:
        return night.ws.runs.open(run_id).find(kind)
    except StorageError:
        return None
