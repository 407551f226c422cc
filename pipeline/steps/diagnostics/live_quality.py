"""Live quality: prequential scores of the live lists since the run before.

Guarantees: a run scores the pinned events between the as-of of the last decision and its own, so
one run scores an event, and none scores an event that is ingested after its run. The scores of a
replay stay in its run; the ledger does not get them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress
from pipeline.data.exposure import active_publications, lists_for, of_publications
from pipeline.data.split import Split, between
from pipeline.data.targets import is_target
from pipeline.evaluation.evaluate import metric_name
from pipeline.evaluation.prequential import (
    ALL,
    LiveFigures,
    Prequential,
    PrequentialFigures,
    past_of,
    prequential,
)
from pipeline.report.live import LiveRun
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.artifacts import LiveFile
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.config import Config
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace

ReadEvents = Callable[[Sequence[str], pl.Expr], pl.DataFrame]


def write_live(night: Night, split: Split, draft: Draft, progress: Progress) -> None:
    """Score the new events and store the scores; none in the first run of a workspace.

    Parameters
    ----------
    split
        Its target kinds and task select the events.
    draft
        Step that stores the scores.
    """
    scores = score(night, split, progress)
    if scores is not None:
        # The other fields of the file and of the scores are equal.
        fields = {**vars(scores), "rows": tuple(PrequentialFigures.of(row) for row in scores.rows)}
        draft.write(LiveFile(**fields))


def score(night: Night, split: Split, progress: Progress) -> Prequential | None:
    """Score the target events since the last decision.

    Parameters
    ----------
    split
        Its target kinds and task select the events.

    Returns
    -------
    Scores by version and user group; None before the first decision.
    """
    view = AsOfView.of(night)
    decisions = view.decisions()
    if not decisions:
        return None
    progress("score what was live")
    span = Interval(decisions[-1].as_of, night.as_of)
    return score_span(night.ws, view.events, split, night.config, span)


def score_span(
    ws: Workspace, read: ReadEvents, split: Split, config: Config, span: Interval
) -> Prequential:
    """Score the target events of a span against the lists that were live.

    Parameters
    ----------
    read
        Returns columns of the events that match an expression.
    split
        Its target kinds and task select the events.
    config
        List length and rating threshold.
    span
        Timestamps of the scored events.
    """
    wanted = is_target(split.target_kinds, config.features.rating_threshold)
    columns = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
    events = read(columns, between(span) & wanted)
    users = events[c.USER_ID].unique().to_list()
    # The table holds all lists of all publications: only the lists of these users are read.
    publications = ws.lake.read("publications")
    active = active_publications(publications, span)
    return prequential(
        events,
        read(columns, past_of(users, span)),
        publications,
        ws.lake.read(
            "recommendations", partitions=of_publications(active), where=lists_for(active, users)
        ),
        span=span,
        k=config.recommend.length,
        task=split.task,
    )


def live_summary(night: Night) -> tuple[LiveFigures, ...]:
    """Return the scores for the ledger, by version and user group."""
    file = night.run.find(LiveFile)
    return () if file is None else tuple(row.summary for row in file.rows)


def live_metrics(run: Run) -> dict[str, float]:
    """Return the scores of the newest version over all users as metrics."""
    file = run.find(LiveFile)
    rows = [] if file is None else [row for row in file.rows if row.slice == ALL]
    if file is None or not rows:
        return {}
    values = {"live.users": float(rows[-1].users)}
    for metric in ("hit_rate", "ndcg"):
        for end in ("", "_lo", "_hi"):
            if (value := getattr(rows[-1], f"{metric}{end}")) is not None:
                values[f"live.{metric_name(metric, file.k)}{end}"] = value
    return values


def live_history(ws: Workspace) -> tuple[LiveRun, ...]:
    """Return the scores of all decided runs, oldest first; of two with one as-of the later one."""
    runs = ((entry, ws.runs.open(entry.run_id)) for entry in LedgerHistory.of(ws.ledger).decisions)
    files = ((entry, run.find(LiveFile)) for entry, run in runs)
    return tuple(
        LiveRun(as_of=entry.as_of, run_id=entry.run_id, **dict(file))
        for entry, file in files
        if file is not None
    )
