"""Attribution of events to the lists that were shown to their users.

Guarantees: a run attributes the events between the as-of of the last decision and its own, as it
pinned them, so each event is counted by one run. Figures of a model version are stored in MLflow at
that version. Attribution of a replay stays in its run and is not part of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Interval, Progress, silent
from pipeline.data.exposure import active_publications, lists_for, of_publications
from pipeline.data.features import WEIGHED
from pipeline.data.split import between
from pipeline.evaluation.prequential import past_of
from pipeline.monitoring.attribution import ShownLists, answered_pairs, with_window
from pipeline.monitoring.attribution import attribute_events as join
from pipeline.monitoring.rates import ALL_USERS, RATES, VERSION, Attribution, AttributionRow
from pipeline.monitoring.shown_effect import EDGE
from pipeline.serving.publish import publication_rows, spare_entries, unavailable
from pipeline.stores.registry.client import Registry
from pipeline.stores.runs import Run
from pipeline.workspace.as_of_view import AsOfView
from pipeline.workspace.ledger import AttributionSummary
from pipeline.workspace.mlflow_names import in_folders
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import AttributionFile
from pipeline.workspace.task_log import TaskLog, task_log
from pipeline.workspace.workspace import Workspace

_EVENTS: Final = (*WEIGHED, c.PUBLICATION_ID, c.POSITION)
_COUNTS: Final = ("exposures", "responses", "clicks", "purchases", "ratings", "returned", "revenue")
_OF_SPAN: Final = ("span", "events", "joined", "late", "claims")
_OF_ALL_USERS: Final = ("users", "exposures", *RATES, *(f"{rate}_se" for rate in RATES))


def run_attribution(
    ws: Workspace, start: datetime, end: AsOf, *, progress: Progress = silent
) -> Attribution:
    """Attribute the events of a span, as the lake holds them now.

    Parameters
    ----------
    ws
        Workspace.
    start, end
        Half-open span, UTC.
    progress
        Receives short texts.

    Returns
    -------
    Rates of all users and by group.

    Raises
    ------
    ConfigError
        `interval.reversed`: `end` lies before `start`.
    """
    with task_log("attribution", end, progress=progress) as log:
        return _logged(AsOfView.now(ws, end), Interval(start, end), log, spare=True)


def last_attribution(ws: Workspace, at: AsOf, *, progress: Progress = silent) -> Attribution | None:
    """Attribute the events since the last decision, as the lake holds them now.

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
    Rates of all users and by group, without the effect of showing an item, for which the files of
    runs are read; ``None`` before the first decision.
    """
    view = AsOfView.now(ws, at)
    with task_log("attribution", at, progress=progress) as log:
        span = _since_last_decision(view)
        if span is None:
            log.result = "no run has decided yet"
            return None
        return _logged(view, span, log, spare=False)


def _logged(view: AsOfView, span: Interval, log: TaskLog, *, spare: bool) -> Attribution:
    attribution = attribute_span(view, span, log.progress, spare=spare)
    log.rows = attribution.joined
    log.result = f"{attribution.joined:,} of {attribution.events:,} events are attributed"
    return attribution


def _since_last_decision(view: AsOfView) -> Interval | None:
    decisions = view.decisions()
    return Interval(decisions[-1].as_of, view.at) if decisions else None


def attribute_span(
    view: AsOfView, span: Interval, progress: Progress = silent, *, spare: bool = False
) -> Attribution:
    """Join the events of a span to the lists that were live.

    Parameters
    ----------
    view
        As-of view of the workspace.
    span
        Half-open span of the events, UTC.
    progress
        Receives short texts.
    spare
        Read the spare entries of the lists as well, for the effect of showing an item.

    Returns
    -------
    Rates of all users and by group.
    """
    progress("join events to lists")
    config = view.config.attribution
    users = view.events([c.USER_ID], between(span))[c.USER_ID].unique().to_list()
    events, publications, lists = _shown_lists(view, span, users, spare=spare)
    return join(
        events,
        publications,
        lists,
        view.table("items", [c.ITEM_ID, c.PRICE]),
        view.table("users", [c.USER_ID, c.SEGMENT]),
        span=span,
        config=config,
    )


def answered_targets(
    view: AsOfView, span: Interval, pairs: pl.DataFrame, wanted: pl.Expr
) -> pl.DataFrame:
    """Select the target items of a span that answer a shown list.

    Parameters
    ----------
    view
        As-of view of the workspace.
    span
        Half-open span of the events, UTC.
    pairs
        `user_id`, `item_id` of the targets.
    wanted
        Condition of a target event.

    Returns
    -------
    Rows of `pairs` of which every target event responds to a list, by the rules of attribution.
    """
    users = pairs[c.USER_ID].unique().to_list()
    read = _shown_lists(view, span, users, spare=False)
    answered = answered_pairs(*read, wanted, span=span, config=view.config.attribution)
    return pairs.join(answered, on=[c.USER_ID, c.ITEM_ID], how="semi")


def _shown_lists(
    view: AsOfView, span: Interval, users: list[str], *, spare: bool
) -> tuple[pl.DataFrame, pl.DataFrame, ShownLists]:
    """Read the events of users, the publications, and the lists that these users were shown."""
    # A response may follow an exposure before the span, so the lists of those days count, too.
    window = with_window(span, view.config.attribution)
    events = view.events(_EVENTS, between(window) & past_of(users, span))
    publications = view.publications()
    active = set(active_publications(publications, window))
    # A generator: only the lists of one publication are in memory at a time.
    parts = (
        _lists_of(view, row, users, spare=spare)
        for row in publications.sort(c.PUBLICATION_ID).iter_rows(named=True)
        if row[c.PUBLICATION_ID] in active
    )
    return events, publications, ShownLists.of(parts, events)


def _lists_of(
    view: AsOfView, publication: Mapping[str, Any], users: list[str], *, spare: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the shown entries of a publication's lists, and the first spare ones behind them."""
    name = publication[c.PUBLICATION_ID]
    where = lists_for([name], users)
    shown = view.ws.lake.read("recommendations", partitions=of_publications([name]), where=where)
    run = view.ws.runs.open(publication[c.RUN_ID])
    # Patches have no spare entries, nor have runs whose files were deleted.
    if not spare or publication[c.BASE] is not None or run.committed("recommend") is None:
        return shown, shown.clear()
    made = publication_rows(run.frame("recommend", "lists"), name)
    gone = unavailable(view.table("items", [c.ITEM_ID, c.AVAILABLE]))
    return shown, spare_entries(made.filter(where), shown, gone, EDGE)


def attribution_of(night: Night, progress: Progress = silent) -> Attribution | None:
    """Return the attribution of a run.

    Parameters
    ----------
    night
        The run; the first call computes its attribution and stores it.
    progress
        Receives short texts.

    Returns
    -------
    Rates of all users and by group; ``None`` without an earlier decision.
    """
    if not night.run.has(AttributionFile):
        view = AsOfView.of(night)
        span = _since_last_decision(view)
        attribution = None
        if span is not None:
            attribution = attribute_span(view, span, progress, spare=True)
        with night.run.draft(AttributionFile.STEP) as draft:
            draft.write(AttributionFile(attribution))
            draft.rows = 0 if attribution is None else attribution.joined
    return read_attribution(night.run)


def read_attribution(run: Run) -> Attribution | None:
    """Return the attribution that a run stored."""
    file = run.find(AttributionFile)
    return None if file is None else file.root


def attribution_summary(run: Run) -> AttributionSummary | None:
    """Return the figures for the ledger: rates of all users, and claims; None without any."""
    attribution = read_attribution(run)
    if attribution is None:
        return None
    kept = {name: getattr(attribution, name) for name in _OF_SPAN}
    for row in attribution.rows:
        if row.by == ALL_USERS:
            kept |= {name: getattr(row, name) for name in _OF_ALL_USERS}
    return AttributionSummary(**kept)


def effect_metrics(run: Run) -> dict[str, float]:
    """Return the effect of showing an item on each rate as metrics; empty without spare entries."""
    attribution = read_attribution(run)
    return {
        f"attribution.added_{effect.rate}{end}": value
        for effect in (() if attribution is None else attribution.shown_effects)
        for end in ("", "_lo", "_hi")
        if (value := getattr(effect, f"added{end}")) is not None
    }


def show_attribution(night: Night, registry: Registry) -> None:
    """Store the figures of each model version at that version in MLflow.

    Parameters
    ----------
    night
        Run whose attribution is stored; the step of a metric is the days since the version went
        live.
    registry
        Client of MLflow.
    """
    attribution = read_attribution(night.run)
    publications = night.ws.lake.read("publications")
    # A version goes live again with each patch; its age counts from the first row.
    first = publications.group_by(c.MODEL_VERSION).min()
    live_from: dict[str, datetime] = dict(first.select(c.MODEL_VERSION, c.LIVE_FROM).iter_rows())
    runs = dict(publications.select(c.MODEL_VERSION, c.RUN_ID).iter_rows())
    for row in () if attribution is None else attribution.rows:
        # Small groups have no figures.
        if row.by == VERSION and row.exposures is not None:
            days = (night.snapshot.as_of - live_from[row.name]).days
            shown = in_folders(_metrics(row), "")
            registry.add_metrics(runs[row.name], shown, at=night.as_of, step=days)


def _metrics(row: AttributionRow) -> dict[str, float]:
    rates = (f"{rate}{end}" for rate in RATES for end in ("", "_lo", "_hi"))
    values = {name: getattr(row, name) for name in ("users", *_COUNTS, *rates)}
    return {f"attribution.{name}": float(x) for name, x in values.items() if x is not None}
