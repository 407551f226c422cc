"""The night's judgement of its data: is there anything that a model must not learn from?

Promises: every check has a name, a figure, a bound and a sentence; a figure that is missing blocks
under its own name; the rules that ran are the rules that are declared; the judgement depends on
nothing but its arguments. Days are counted back from the as-of, so no day is half full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen, Progress, silent, to_utc
from pipeline.data.validate.checks import DataCheck, Status, verdict
from pipeline.data.validate.rules import JUDGED, Rule, declare
from pipeline.data.validate.suite import SuiteResult, run_suite
from pipeline.data.validate.volume import DAYS, VolumeConfig, judge_volume, unjudged

_EVENTS: Final = "events"
_ITEMS: Final = "items"


class ValidateConfig(Frozen):
    """How much a night's data may differ from what came before."""

    suite_days: int = Field(
        default=28, ge=1, description="Days before the as-of whose events the rules judge again."
    )
    suite_max_rows: int = Field(
        default=5_000_000,
        ge=1,
        description="Of these days, at most so many newest events are judged by the rules.",
    )
    quarantine_budget: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the rows taken in that may be in quarantine.",
    )
    catalogue_shrink: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the available items that may vanish between two accepted nights.",
    )
    volume: VolumeConfig = Field(
        default=VolumeConfig(), description="How far a day's or a week's volume may lie off."
    )


@dataclass(frozen=True)
class Baseline:
    """What an accepted night saw, for the next one to compare with.

    Attributes
    ----------
    available_items
        Items of the catalogue that could be recommended.
    schema
        ``(table, column, dtype)`` of the events and the items.
    """

    available_items: int
    schema: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Validation:
    """The judgement: passed only if every check did.

    Attributes
    ----------
    as_of
        End of what was judged, exclusive.
    rows
        Events that the rules judged.
    checks
        All checks, in a fixed order.
    baseline
        What the next night compares with, once this one is accepted.
    suite
        Canonical JSON of the result of Great Expectations.
    """

    as_of: datetime
    rows: int
    checks: tuple[DataCheck, ...]
    baseline: Baseline
    suite: str

    @property
    def passed(self) -> bool:
        """Whether the night may go on."""
        return all(check.passed for check in self.checks)


def events_since(as_of: datetime, config: ValidateConfig) -> datetime:
    """Return the instant from which on `validate` needs the events."""
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
    progress: Progress = silent,
) -> Validation:
    """Judge the data of a snapshot before anything learns from it.

    Parameters
    ----------
    events
        Events of the snapshot since `events_since` or earlier, with the columns `JUDGED`; what
        lies at or after `as_of` is left out here.
    items
        The catalogue of the snapshot, all its columns.
    as_of
        Exclusive end; days are ``[as_of - j·24 h, as_of - (j - 1)·24 h)``.
    kinds
        Known kinds of events.
    accepted, quarantined
        Rows of the batches of events taken in during the last `suite_days`; ``None`` if nobody
        knows, which blocks.
    baseline
        What the last accepted night saw; ``None`` only for the first night.
    counted
        Those of the events that count as volume, so that no single person stops a night.
    """
    as_of = to_utc(as_of)
    schema = (*_schema(_EVENTS, events), *_schema(_ITEMS, items))
    rules = declare(at=as_of, kinds=kinds)
    batch, suite = events.clear(), SuiteResult((), "null")
    volume = unjudged(Status.MISSING, "the events have not the columns by which days are counted")
    # A frame of another shape cannot be judged: then nothing ran, and that blocks.
    if set(_NEEDED_EVENTS) <= set(schema):
        batch = _recent(events, as_of, config)
        progress(f"judging {batch.height:,} events by {len(rules)} rules")
        suite = run_suite(batch, rules)
        past = counted[c.TIMESTAMP].drop_nulls()
        volume = judge_volume(past.filter(past < as_of), as_of, config.volume)
    available = int(items[c.AVAILABLE].sum()) if set(_NEEDED_ITEMS) <= set(schema) else None
    return Validation(
        as_of=as_of,
        rows=batch.height,
        checks=(
            _judge_completeness(suite, rules, batch.height),
            *(_judge_rule(name, count, batch.height) for name, count in suite.broken),
            _judge_quarantine(accepted, quarantined, config),
            *volume,
            _judge_catalogue(available, baseline, config),
            _judge_schema(schema, baseline),
        ),
        baseline=Baseline(available or 0, schema),
        suite=suite.record,
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
    # An event without an instant belongs to no day: it must not escape the rules by that.
    recent = events.filter(((at >= since) & (at < as_of)) | at.is_null())
    if recent.height <= config.suite_max_rows:
        return recent
    return recent.sort(c.TIMESTAMP, nulls_last=True).tail(config.suite_max_rows)


def _judge_completeness(suite: SuiteResult, rules: Sequence[Rule], rows: int) -> DataCheck:
    missing = sorted({rule.name for rule in rules} - {name for name, _ in suite.broken})
    complete = not missing and len(suite.broken) == len(rules) > 0 and rows > 0
    sentence = f"{len(suite.broken)} of {len(rules)} rules ran over {rows:,} events"
    if missing:
        sentence += f", without {', '.join(missing)}"
    return DataCheck(
        "rules_run",
        Status.PASSED if complete else Status.RULES_INCOMPLETE,
        len(suite.broken),
        len(rules),
        sentence,
    )


def _judge_rule(name: str, broken: int, rows: int) -> DataCheck:
    sentence = f"{broken:,} of {rows:,} events break the rule {name}"
    return DataCheck(name, verdict(broken == 0), broken, 0, sentence)


def _judge_quarantine(
    accepted: int | None, quarantined: int | None, config: ValidateConfig
) -> DataCheck:
    name, bound = "quarantine_budget", config.quarantine_budget
    if accepted is None or quarantined is None:
        return DataCheck(
            name, Status.MISSING, None, bound, "nobody knows how many rows were taken in"
        )
    rows = accepted + quarantined
    if rows == 0:
        return DataCheck(name, Status.NO_HISTORY, None, bound, "no rows were taken in")
    share = quarantined / rows
    return DataCheck(
        name,
        verdict(share <= bound),
        share,
        bound,
        f"{quarantined:,} of {rows:,} rows taken in are in quarantine: {share:.2%}, "
        f"{bound:.2%} is allowed",
    )


def _judge_catalogue(
    available: int | None, baseline: Baseline | None, config: ValidateConfig
) -> DataCheck:
    name, bound = "catalogue", config.catalogue_shrink
    if available is None:
        return DataCheck(
            name, Status.MISSING, None, bound, "nobody knows which items are available"
        )
    if baseline is None or baseline.available_items == 0:
        sentence = f"{available:,} items are available; no night before tells how many are usual"
        return DataCheck(name, Status.NO_HISTORY, None, bound, sentence)
    lost = (baseline.available_items - available) / baseline.available_items
    return DataCheck(
        name,
        verdict(lost <= bound),
        lost,
        bound,
        f"{available:,} items are available after {baseline.available_items:,} at the last "
        f"accepted night: {max(lost, 0):.1%} are gone, {bound:.1%} is allowed",
    )


def _judge_schema(schema: Sequence[tuple[str, str, str]], baseline: Baseline | None) -> DataCheck:
    """Columns may be added; one that is gone or has another dtype blocks."""
    expected = dict.fromkeys((*_NEEDED_EVENTS, *_NEEDED_ITEMS))
    expected |= dict.fromkeys(baseline.schema if baseline else ())
    now = {(table, name): dtype for table, name, dtype in schema}
    changed = [
        f"{table}.{name} is {now.get((table, name), 'gone')}, was {dtype}"
        for table, name, dtype in expected
        if now.get((table, name)) != dtype
    ]
    sentence = "; ".join(changed) or f"all {len(expected)} columns are as they were"
    return DataCheck("schema", verdict(not changed), len(changed), 0, sentence)
