"""Checks of a nightly run's data before a model is trained on it.

Guarantees: every check has a name, a status, a bound and a sentence; a check without its input
blocks; a rule that did not run blocks; the result depends only on the arguments. Days are counted
back from the as-of instant, so every day is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from pydantic import Field

from pipeline import columns as c
from pipeline import number_text
from pipeline.base import Frozen, Interval, Progress, silent, to_utc
from pipeline.data.validate.activity import ActivityConfig, judge_activity
from pipeline.data.validate.checks import DataCheck, Status, verdict
from pipeline.data.validate.returns import ReturnsConfig, judge_returns
from pipeline.data.validate.rules import JUDGED, Rule, declare
from pipeline.data.validate.suite import run_suite
from pipeline.data.validate.volume import DAYS, VolumeConfig, judge_volume, unjudged

_EVENTS: Final = "events"
_ITEMS: Final = "items"


class ValidateConfig(Frozen):
    """Allowed differences between a nightly run's data and earlier data."""

    suite_days: int = Field(
        default=28, ge=1, description="Days before as-of whose events are validated again."
    )
    suite_max_rows: int = Field(
        default=5_000_000,
        ge=1,
        description="Maximum number of these events; the newest ones are validated.",
    )
    quarantine_budget: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Maximum share of quarantined rows among the rows ingested on these days.",
    )
    catalogue_shrink: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Maximum share of available items that may disappear between two accepted "
        "nightly runs.",
    )
    volume: VolumeConfig = Field(
        default=VolumeConfig(), description="Allowed deviations of a day's and a week's volume."
    )
    activity: ActivityConfig = Field(
        default=ActivityConfig(), description="Allowed fall of the share of active items and users."
    )
    returns: ReturnsConfig = Field(
        default=ReturnsConfig(),
        description="Allowed fall of the shares of returning users and of repeated items.",
    )


@dataclass(frozen=True)
class Baseline:
    """Figures of an accepted nightly run, which the next one is compared with.

    Attributes
    ----------
    available_items
        Number of available items in the catalogue.
    schema
        ``(table, column, dtype)`` of the events and the items.
    """

    available_items: int
    schema: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Validation:
    """Results of all checks of a nightly run's data.

    Attributes
    ----------
    as_of
        Exclusive end of the data.
    rows
        Number of events validated by the rules.
    checks
        All checks, in a fixed order.
    baseline
        Figures for the next nightly run, once this one is accepted.
    suite
        Canonical JSON of the Great Expectations result.
    """

    as_of: datetime
    rows: int
    checks: tuple[DataCheck, ...]
    baseline: Baseline
    suite: str

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)


def events_since(as_of: datetime, config: ValidateConfig) -> datetime:
    """Return the start of the events that `validate` needs.

    Parameters
    ----------
    as_of
        As-of instant of the run.
    config
        Source of `suite_days`.
    """
    return to_utc(as_of) - timedelta(days=max(config.suite_days, DAYS))


def validate(
    events: pl.DataFrame,
    items: pl.DataFrame,
    *,
    as_of: datetime,
    kinds: Sequence[str],
    accepted: int | None,
    quarantined: int | None,
    baseline: Baseline | None,
    config: ValidateConfig,
    counted: pl.DataFrame,
    active: pl.DataFrame,
    blocked: Sequence[Interval] = (),
    progress: Progress = silent,
) -> Validation:
    """Check the data of a snapshot.

    Parameters
    ----------
    events
        Events of the snapshot since `events_since` or earlier, with the columns `JUDGED`; rows
        at or after `as_of` are ignored.
    items
        The catalogue of the snapshot with all columns.
    as_of
        Exclusive end; days are ``[as_of - j·24 h, as_of - (j - 1)·24 h)``.
    kinds
        Allowed kinds of events.
    accepted, quarantined
        Rows of events ingested during the last `suite_days`; ``None`` (unknown) blocks.
    baseline
        Figures of the last accepted nightly run; ``None`` for the first one.
    config
        Limits.
    counted
        Those of the events that count as volume (`features.volume`), so that a single user
        cannot block a nightly run.
    active
        `activity.COLUMNS` of the events of the last `returns.DAYS` days.
    blocked
        Holdouts of runs that were blocked.
    progress
        Receives the number of events and rules.

    Returns
    -------
    All checks; a failed one does not raise.
    """
    as_of = to_utc(as_of)
    schema = (*_schema(_EVENTS, events), *_schema(_ITEMS, items))
    rules = declare(at=as_of, kinds=kinds)
    batch, violations, record = events.clear(), dict[str, int](), "null"
    volume = unjudged(Status.MISSING, "the events lack columns that the rules need; see schema")
    # A frame with other columns cannot be validated; then no rule runs, which blocks.
    if set(_NEEDED_EVENTS) <= set(schema):
        batch = _recent(events, as_of, config)
        progress(f"validating {batch.height:,} events by {len(rules)} rules")
        violations, record = run_suite(batch, rules)
        past = counted[c.TIMESTAMP].drop_nulls()
        volume = judge_volume(past.filter(past < as_of), as_of, config.volume)
    available = int(items[c.AVAILABLE].sum()) if set(_NEEDED_ITEMS) <= set(schema) else None
    return Validation(
        as_of=as_of,
        rows=batch.height,
        checks=(
            _judge_completeness(violations, rules, batch.height),
            *(_judge_rule(name, count, batch.height) for name, count in violations.items()),
            _judge_quarantine(accepted, quarantined, config),
            *volume,
            *judge_activity(active, as_of, blocked, config.activity),
            *judge_returns(active, as_of, blocked, config.returns),
            _judge_catalogue(available, baseline, config),
            _judge_schema(schema, baseline),
        ),
        baseline=Baseline(available or 0, schema),
        suite=record,
    )


def _schema(table: str, frame: pl.DataFrame) -> tuple[tuple[str, str, str], ...]:
    return tuple((table, name, str(dtype)) for name, dtype in frame.schema.items())


_NEEDED_EVENTS: Final = tuple((_EVENTS, name, str(c.EVENTS[name])) for name in JUDGED)
_NEEDED_ITEMS: Final = tuple(
    (_ITEMS, name, str(c.ITEMS[name])) for name in (c.ITEM_ID, c.AVAILABLE)
)


def _recent(events: pl.DataFrame, as_of: datetime, config: ValidateConfig) -> pl.DataFrame:
    at = pl.col(c.TIMESTAMP)
    since = as_of - timedelta(days=config.suite_days)
    # An event without a timestamp lies on no day, but must not escape the rules.
    recent = events.filter(((at >= since) & (at < as_of)) | at.is_null())
    if recent.height <= config.suite_max_rows:
        return recent
    # Events without a timestamp come last, so that the limit never drops them.
    return recent.sort(c.TIMESTAMP, nulls_last=True).tail(config.suite_max_rows)


def _judge_completeness(ran: Collection[str], rules: Sequence[Rule], rows: int) -> DataCheck:
    missing = sorted({rule.name for rule in rules}.difference(ran))
    # Without events every rule would pass without having checked anything.
    complete = not missing and len(ran) == len(rules) > 0 and rows > 0
    status = Status.PASSED if complete else Status.RULES_INCOMPLETE
    sentence = f"{len(ran)} of {len(rules)} rules ran over {rows:,} events"
    if missing:
        sentence += f", without {', '.join(missing).replace('_', ' ')}"
    return DataCheck("rules_run", status, len(ran), len(rules), sentence)


def _judge_rule(name: str, broken: int, rows: int) -> DataCheck:
    sentence = f"{broken:,} of {rows:,} events break the rule {name.replace('_', ' ')}"
    return DataCheck(name, verdict(broken == 0), broken, 0, sentence)


def _judge_quarantine(
    accepted: int | None, quarantined: int | None, config: ValidateConfig
) -> DataCheck:
    name, bound = "quarantine_budget", config.quarantine_budget
    if accepted is None or quarantined is None:
        return DataCheck(name, Status.MISSING, None, bound, "the counts of rows are missing")
    rows = accepted + quarantined
    if rows == 0:
        return DataCheck(name, Status.NO_HISTORY, None, bound, "no rows were ingested")
    share = quarantined / rows
    sentence = (
        f"{quarantined:,} of {rows:,} ingested rows are in quarantine: {number_text.share(share)}, "
        f"{number_text.share(bound)} allowed"
    )
    return DataCheck(name, verdict(share <= bound), share, bound, sentence)


def _judge_catalogue(
    available: int | None, baseline: Baseline | None, config: ValidateConfig
) -> DataCheck:
    name, bound = "catalogue", config.catalogue_shrink
    if available is None:
        return DataCheck(name, Status.MISSING, None, bound, "items lack columns; see schema")
    if baseline is None or baseline.available_items == 0:
        sentence = f"{available:,} items are available; no earlier run to compare with"
        return DataCheck(name, Status.NO_HISTORY, None, bound, sentence)
    lost = (baseline.available_items - available) / baseline.available_items
    sentence = (
        f"{available:,} items are available, {baseline.available_items:,} in the last accepted "
        f"run: {number_text.share(max(lost, 0))} fewer, {number_text.share(bound)} allowed"
    )
    return DataCheck(name, verdict(lost <= bound), lost, bound, sentence)


def _judge_schema(schema: Sequence[tuple[str, str, str]], baseline: Baseline | None) -> DataCheck:
    """Compare the columns; new ones pass, a missing one or another dtype blocks."""
    expected = dict.fromkeys((*_NEEDED_EVENTS, *_NEEDED_ITEMS))
    # A dict keeps the order and drops columns that are in both.
    expected |= dict.fromkeys(baseline.schema if baseline else ())
    now = {(table, name): dtype for table, name, dtype in schema}
    changed = [
        f"{table}.{name} is {now.get((table, name), 'gone')}, was {dtype}"
        for table, name, dtype in expected
        if now.get((table, name)) != dtype
    ]
    sentence = "; ".join(changed) or f"all {len(expected)} columns are unchanged"
    return DataCheck("schema", verdict(not changed), len(changed), 0, sentence)
