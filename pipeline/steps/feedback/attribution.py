"""Answers as a step: what people did with the lists that they were shown, joined and kept.

Promises: a night counts what happened between the last decided night's as-of and its own, as it
pinned it, so each answer is counted by one night; what was counted of a version is shown at that
version. A replay's answers are kept with it and are no history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline import columns as c
from pipeline.base import Interval, Progress, parse_instant, silent, to_the_second
from pipeline.data.exposure import in_play, lists_for
from pipeline.data.split import between
from pipeline.evaluation.prequential import past_of
from pipeline.monitoring.attribution import Lists, with_window
from pipeline.monitoring.attribution import answers as join
from pipeline.monitoring.rates import EVERYBODY, RATES, VERSION, Answers
from pipeline.report.attribution import answers_table
from pipeline.report.watched import AnswerRow, AnswersTold
from pipeline.stores.registry.client import Registry
from pipeline.stores.runs import Run
from pipeline.workspace.as_of_view import Lately
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace

STEP: Final = "answers"
_EVENTS: Final = (
    c.USER_ID,
    c.ITEM_ID,
    c.KIND,
    c.VALUE,
    c.TIMESTAMP,
    c.PUBLICATION_ID,
    c.POSITION,
)
_LOGGED: Final = ("exposures", "answers", "clicks", "purchases", "ratings", "returned", "revenue")
_TOLD: Final = tuple(AnswerRow.__dataclass_fields__)


@dataclass(frozen=True)
class AnswersResult:
    """The answers of a span, the shape of `answers --json`."""

    answers: Answers

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return self.answers.to_dict()

    def text(self) -> str:
        """As a table for a person."""
        told = told_of(self.to_dict())
        return answers_table(told)


def answers(
    ws: Workspace, start: datetime, end: datetime, *, progress: Progress = silent
) -> AnswersResult:
    """Join what happened in ``[start, end)``, as the lake holds it now."""
    return AnswersResult(joined(Lately.now(ws, end), Interval(start, end), progress))


def lately_answered(
    ws: Workspace, at: datetime, *, progress: Progress = silent
) -> AnswersResult | None:
    """Join what happened since the last night that decided; ``None`` before the first."""
    lately = Lately.now(ws, at)
    decisions = lately.decisions()
    if not decisions:
        return None
    span = Interval(parse_instant(decisions[-1]["as_of"]), lately.at)
    return AnswersResult(joined(lately, span, progress))


def joined(lately: Lately, span: Interval, tell: Progress = silent) -> Answers:
    """Join the events of a span to the lists that were live; one publication's lists at a time."""
    tell("join answers to lists")
    config, window = lately.config.answers, with_window(span, lately.config.answers)
    people = lately.events([c.USER_ID], between(span))[c.USER_ID].unique().to_list()
    events = lately.events(_EVENTS, between(window) & past_of(people, span))
    publications = lately.publications()
    parts = (
        lately.ws.lake.read("recommendations", where=lists_for([name], people))
        for name in in_play(publications, window)
    )
    return join(
        events,
        publications,
        Lists.of(parts, events),
        lately.table("items", [c.ITEM_ID, c.PRICE]),
        lately.table("users", [c.USER_ID, c.SEGMENT]),
        span=span,
        config=config,
    )


def answers_of(ws: Workspace, night: Night, tell: Progress = silent) -> dict[str, Any] | None:
    """Return a night's answers, which it keeps; ``None`` where no night has decided before it."""
    if night.run.committed(STEP) is None:
        lately = Lately.of(ws, night)
        before = lately.decisions()
        found = None
        if before:
            span = Interval(parse_instant(before[-1]["as_of"]), night.as_of)
            found = joined(lately, span, tell)
        with night.run.draft(STEP) as draft:
            draft.json(STEP, None if found is None else found.to_dict())
            draft.rows = 0 if found is None else found.joined
    return read_answers(night.run)


def read_answers(run: Run) -> dict[str, Any] | None:
    """Return what a night kept, ``None`` for nothing."""
    if run.committed(STEP) is None:
        return None
    told: dict[str, Any] | None = run.json(STEP, STEP)
    return told


def answers_summary(run: Run) -> dict[str, Any] | None:
    """Return what a ledger line keeps: the rates with everybody, and what was claimed."""
    told = read_answers(run)
    if told is None:
        return None
    everybody = next((row for row in told["rows"] if row["by"] == EVERYBODY), None)
    kept: dict[str, Any] = {
        name: told[name] for name in ("span", "events", "joined", "late", "claims")
    }
    if everybody is not None:
        names = ("people", "exposures", *RATES, *(f"{name}_se" for name in RATES))
        kept |= {name: everybody[name] for name in names}
    return kept


def show_answers(ws: Workspace, night: Night, registry: Registry) -> None:
    """Show what was counted of each version at that version, by the days since it went live."""
    told = read_answers(night.run)
    publications = ws.lake.read("publications")
    begun = publications.group_by(c.MODEL_VERSION).min()
    since: Mapping[str, datetime] = dict(begun.select(c.MODEL_VERSION, c.LIVE_FROM).iter_rows())
    for row in () if told is None else told["rows"]:
        if row["by"] == VERSION and row["exposures"] is not None:
            days = (night.as_of - since[row["name"]]).days
            registry.add_metrics(int(row["name"]), _metrics(row), at=night.as_of, step=days)


def told_of(answers: Mapping[str, Any]) -> AnswersTold:
    """Return answers as a page and a table take them."""
    rows = tuple(AnswerRow(**{name: row[name] for name in _TOLD}) for row in answers["rows"])
    claims = answers["claims"]
    start, end = (to_the_second(parse_instant(instant)) for instant in answers["span"])
    notes = [
        f"{answers['joined']:,} of {answers['events']:,} events of {answers['people']:,} people "
        f"from {start} to {end} answer a list shown within {answers['window_days']} days"
    ]
    if answers["late"]:
        notes.append(
            f"{answers['late']:,} of these answer a list shown on an earlier day and replaced "
            "since; they are in no rate"
        )
    if answers["unshown"]:
        notes.append(f"{answers['unshown']:,} events are of people to whom nothing was shown then")
    if sum(claims.values()):
        notes.append(
            f"of the lists that events claim to answer, {claims['agree']:,} are those we joined, "
            f"{claims['contradict']:,} are others, {claims['unmatched']:,} were not shown"
        )
    return AnswersTold(rows, tuple(notes))


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    names = [*_LOGGED, *(f"{rate}{end}" for rate in RATES for end in ("", "_lo", "_hi"))]
    named = {f"answers.{name}": row[name] for name in names}
    return {name: float(value) for name, value in named.items() if value is not None} | {
        "answers.people": float(row["people"])
    }
