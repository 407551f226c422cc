"""Drift in the days before an instant.

Guarantees: a feedback pass evaluates whole days that end at the hour of the last run's as-of, so
its result is the same all day, and the run that it requests computes the same. A drift in the
ledger resets the reference period of its signal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf, Interval, Progress, silent
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.data.features import WEIGHED
from pipeline.data.split import before, between
from pipeline.evaluation.prequential import ALL, Prequential
from pipeline.monitoring.drift import Quality, QualityMean, windows_at
from pipeline.monitoring.drift import drift as measure
from pipeline.monitoring.drift_windows import DriftWindows
from pipeline.monitoring.rates import ALL_USERS, AttributionRow
from pipeline.monitoring.signals import Known
from pipeline.monitoring.verdicts import Drift, DriftStatus
from pipeline.steps.diagnostics.live_quality import score_span
from pipeline.steps.feedback.attribution import attribute_span
from pipeline.stores.runs import Run
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.ledger import AttributionSummary, DecisionEntry, DriftSummary
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import DriftFile
from pipeline.workspace.run_files import read_split
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

NIGHTS: Final = timedelta(days=90)
"""Time for which the live quality of a run serves as a reference."""
_DAY: Final = timedelta(days=1)


def drift(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> Drift:
    """Measure drift in the days before an instant, as the lake holds them now.

    Parameters
    ----------
    ws
        Workspace.
    at
        Exclusive end of the events.
    progress
        Receives short texts.

    Returns
    -------
    Status of each signal, and of all together.
    """
    with task_log("drift", at, progress=progress) as log:
        result = measure_drift(AsOfView.now(ws, at), log.progress)
        log.rows, log.result = len(result.signals), result.sentence
    return result


def drift_of(night: Night, progress: Progress = silent) -> Drift:
    """Return the drift in the days before a run.

    Parameters
    ----------
    night
        The run; the first call computes its drift and stores it.
    progress
        Receives short texts.

    Returns
    -------
    Status of each signal, and of all together.
    """
    if not night.run.has(DriftFile):
        # The drift that requested this run is its drift: it is pinned with the snapshot.
        trigger = night.snapshot.trigger
        result = trigger.drift if trigger else measure_drift(AsOfView.of(night), progress)
        with night.run.draft(DriftFile.STEP) as draft:
            draft.write(DriftFile(result))
            draft.rows = len(result.signals)
    return night.run.read(DriftFile).root


def read_drift(run: Run) -> Drift | None:
    """Return the drift that a run stored."""
    file = run.find(DriftFile)
    return None if file is None else file.root


def drift_summary(run: Run) -> DriftSummary | None:
    """Return the drift for the ledger: the status, and the start of each signal's drift."""
    result = read_drift(run)
    if result is None:
        return None
    since = {x.name: x.since for x in result.signals if x.status == DriftStatus.DRIFT and x.since}
    return DriftSummary(status=result.status, sentence=result.sentence, since=since)


def drift_metrics(run: Run) -> dict[str, float]:
    """Return the figure of each signal as a metric of the run."""
    result = read_drift(run)
    signals = () if result is None else result.signals
    return {f"drift.{x.name}": x.figure for x in signals if x.figure is not None}


def measure_drift(view: AsOfView, progress: Progress = silent) -> Drift:
    """Measure drift in the whole days before the instant of a view.

    Parameters
    ----------
    view
        As-of view of the workspace.
    progress
        Receives short texts.

    Returns
    -------
    Status of each signal, and of all together.
    """
    progress("measure drift")
    config, decisions = view.config.drift, view.decisions()
    end = _end(view, decisions)
    windows = windows_at(end, config)
    # Users and items with events before the windows are not new in them.
    past = before(windows.span.start)
    items = view.table("items", [c.ITEM_ID, c.PRICE, c.CATEGORIES])
    resets: dict[str, datetime] = {}
    for entry in decisions:
        resets |= {} if entry.drift is None else entry.drift.since
    return measure(
        view.events(WEIGHED, between(windows.span)),
        items,
        Known(
            view.events([c.USER_ID], past)[c.USER_ID].unique(),
            view.events([c.ITEM_ID], past)[c.ITEM_ID].unique(),
        ),
        tuple(_qualities(view, windows, decisions)),
        resets,
        end=end,
        config=config,
    )


def _end(view: AsOfView, decisions: Sequence[DecisionEntry]) -> datetime:
    """Return the end of the latest day: the as-of of a run, or for a pass the last one's hour."""
    at: datetime = view.at
    if view.night is not None or not decisions:
        return at
    last = decisions[-1].as_of
    return last + (at - last) // _DAY * _DAY


def _qualities(
    view: AsOfView, windows: DriftWindows, decisions: Sequence[DecisionEntry]
) -> Iterator[Quality]:
    """Yield the quality of live lists: their NDCG, and the share of entries with a response."""
    if not decisions:
        return
    last, oldest = decisions[-1], windows.start(windows.recent - 1)
    past = [
        entry
        for entry in decisions
        if oldest - NIGHTS < entry.as_of <= oldest and entry.comparison_key == last.comparison_key
    ]
    spans = [Interval(windows.start(at), windows.start(at) + _DAY) for at in range(windows.recent)]
    if windows.recent > 1:  # all scored days together, after each of them
        spans.append(Interval(oldest, windows.end))
    enough = view.config.drift.least_nights
    # Without enough reference runs the signal has no result, so its days are not scored.
    recent: list[QualityMean | None] = [None for _ in spans]
    reference = _present(_past_ndcg(entry) for entry in past)
    if len(reference) >= enough:
        split = read_split(view.ws.runs.open(last.run_id))
        recent = [_ndcg(score_span(view.ws, view.events, split, view.config, x)) for x in spans]
    yield _quality("ndcg", recent, reference, windows)
    reference = _present(_rate(entry.attribution) for entry in past)
    if len(reference) >= enough:
        groups = (attribute_span(view, span).rows for span in spans)
        recent = [_rate(next((x for x in rows if x.by == ALL_USERS), None)) for rows in groups]
    yield _quality("responses", recent, reference, windows)


def _quality(
    name: str,
    spans: Sequence[QualityMean | None],
    reference: tuple[QualityMean, ...],
    windows: DriftWindows,
) -> Quality:
    days, together = spans[: windows.recent], spans[windows.recent :]
    return Quality(name, tuple(days), reference, together[0] if together else None)


def _ndcg(scores: Prequential) -> QualityMean | None:
    """Return the mean over all versions of a day; ``None`` for too few users."""
    rows = [row for row in scores.rows if row.slice == ALL and row.ndcg.se is not None]
    if sum(row.users for row in rows) < MIN_GROUP_SIZE:
        return None
    return _pooled(QualityMean(x.ndcg.mean, x.ndcg.se, x.user_days, x.users) for x in rows)


def _past_ndcg(entry: DecisionEntry) -> QualityMean | None:
    return _pooled(
        QualityMean(row.ndcg, row.ndcg_se, row.user_days, row.users)
        for row in entry.live
        if row.slice == ALL and row.ndcg is not None
    )


def _rate(group: AttributionRow | AttributionSummary | None) -> QualityMean | None:
    """Return the share of exposures with a response; ``None`` for too few users."""
    if group is None or group.response_rate is None:
        return None
    return QualityMean(
        group.response_rate, group.response_rate_se, group.exposures or 0, group.users or 0
    )


def _pooled(versions: Iterable[QualityMean]) -> QualityMean | None:
    """Return the mean over versions, weighted by the user-days of each."""
    parts = list(versions)
    total = sum(part.of for part in parts)
    if not total:
        return None
    mean = sum(part.mean * part.of for part in parts) / total
    # The root of the summed squares treats the versions as independent.
    errors = [part.se * part.of for part in parts if part.se is not None]
    se = math.hypot(*errors) / total if len(errors) == len(parts) else None
    return QualityMean(mean, se, total, sum(part.users for part in parts))


def _present(values: Iterable[QualityMean | None]) -> tuple[QualityMean, ...]:
    return tuple(value for value in values if value is not None)
