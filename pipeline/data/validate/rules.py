"""What a good event is: one table of named rules, and the polars predicates it generates.

Promises: a row is good only if every predicate says true (null counts as a failure); the name of a
rule is the reason that quarantine shows; `suite` generates its expectations from this table, so
the two cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import to_utc
from pipeline.data.sources.config import EVENT_COLUMNS
from pipeline.errors import DataError

MAX_ID_BYTES: Final = 256
_CONTROL: Final = r"\p{Cc}"
EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Before this, no shop logged events: it is a zero in disguise, or seconds read as milliseconds."""
LARGEST: Final = 1e12
"""No quantity, rating or price is larger; sums of squares of more would end in infinity."""

JUDGED: Final = tuple(name for name in EVENT_COLUMNS if name != c.PUBLICATION_ID)
"""The columns that a frame of events must have to be judged, in the dtypes of `columns.EVENTS`."""


class CheckKind(StrEnum):
    """What a rule asks of its column. All but PRESENT leave a null to the PRESENT rule."""

    PRESENT = "present"
    BYTES = "bytes"
    PRINTABLE = "printable"
    BETWEEN = "between"
    ONE_OF = "one_of"
    UNIQUE_ON_DAY = "unique_on_day"


@dataclass(frozen=True)
class Rule:
    """One named demand on one column.

    Attributes
    ----------
    name
        Reason shown for a row that breaks it.
    column
        Column of `columns.EVENTS`.
    check
        What is asked.
    minimum, maximum
        Inclusive bounds of the measured quantity; ``None`` where there is no such bound.
    values
        Allowed values of ONE_OF.
    level
        ``row``: judges a row by itself and quarantines it; ``batch``: judges rows together.
    """

    name: str
    column: str
    check: CheckKind
    minimum: float | datetime | None = None
    maximum: float | datetime | None = None
    values: tuple[str, ...] = ()
    level: Literal["row", "batch"] = "row"


def declare(*, at: datetime, kinds: Sequence[str]) -> tuple[Rule, ...]:
    """Return all rules for events that are looked at at the instant `at`.

    Parameters
    ----------
    at
        No event may lie after this.
    kinds
        The kinds of events that are known.
    """
    present = (
        Rule(f"{name}_missing", name, CheckKind.PRESENT) for name in JUDGED if name != c.POSITION
    )
    ids = (
        rule
        for name in (c.EVENT_ID, c.USER_ID, c.ITEM_ID)
        for rule in (
            Rule(f"{name}_empty", name, CheckKind.BYTES, minimum=1),
            Rule(f"{name}_too_long", name, CheckKind.BYTES, maximum=MAX_ID_BYTES),
            Rule(f"{name}_unprintable", name, CheckKind.PRINTABLE, maximum=0),
        )
    )
    return (
        *present,
        *ids,
        Rule("kind_unknown", c.KIND, CheckKind.ONE_OF, values=tuple(kinds)),
        Rule("value_too_large", c.VALUE, CheckKind.BETWEEN, -LARGEST, LARGEST),
        Rule("value_negative", c.VALUE, CheckKind.BETWEEN, minimum=0.0),
        Rule("timestamp_too_early", c.TIMESTAMP, CheckKind.BETWEEN, minimum=EARLIEST),
        Rule("timestamp_in_future", c.TIMESTAMP, CheckKind.BETWEEN, maximum=to_utc(at)),
        Rule("position_below_one", c.POSITION, CheckKind.BETWEEN, minimum=1),
        Rule("event_repeated", c.EVENT_ID, CheckKind.UNIQUE_ON_DAY, level="batch"),
    )


def id_bytes(column: str) -> pl.Expr:
    """Length of an id in UTF-8 bytes: 0 where it holds only white space, null where null."""
    raw = pl.col(column)
    blank = raw.str.strip_chars().str.len_bytes() == 0
    return pl.when(blank).then(pl.lit(0, pl.UInt32)).otherwise(raw.str.len_bytes())


def controls(column: str) -> pl.Expr:
    """Count the control characters of an id: NUL, line feeds, what a terminal would act on."""
    return pl.col(column).str.count_matches(_CONTROL)


def failures(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Return one boolean column a rule, true where a row breaks it.

    Raises `DataError` if a column of `JUDGED` is absent.
    """
    absent = [name for name in JUDGED if name not in frame.columns]
    if absent:
        raise DataError(
            "validate.missing_columns",
            f"cannot be judged without {', '.join(absent)}",
            where="events",
        )
    # A rule that cannot be decided must not let a row pass.
    return frame.select((~_holds(rule).fill_null(False)).alias(rule.name) for rule in rules)


def row_reasons(frame: pl.DataFrame, *, at: datetime, kinds: Sequence[str]) -> pl.Series:
    """Name, for each row, the row rules that it breaks.

    Parameters
    ----------
    frame
        Events with the columns `JUDGED`; what could not be typed is null.
    at
        Instant of the ingest; a later event is refused.
    kinds
        Known kinds of events.

    Returns
    -------
    pl.Series
        ``(n_rows,)`` List(String); an empty list is a good row. Reasons stand in the order of
        `declare`.
    """
    rules = [rule for rule in declare(at=at, kinds=kinds) if rule.level == "row"]
    broken = failures(frame, rules)
    bad = broken.select(pl.any_horizontal(pl.all())).to_series()
    named = names_of(broken.filter(bad))
    # Almost all rows are good and share one empty list: only bad rows pay for a list of their own.
    place = np.full(frame.height, named.len(), dtype=np.uint32)
    place[bad.to_numpy()] = np.arange(named.len(), dtype=np.uint32)
    lists = named.append(pl.Series([[]], dtype=pl.List(pl.String)))
    return lists.gather(place).alias(c.REASONS)


def names_of(flags: pl.DataFrame) -> pl.Series:
    """``(n_rows,)`` List(String): the names of the boolean columns that are true in a row."""
    names = (pl.when(pl.col(name)).then(pl.lit(name)) for name in flags.columns)
    return flags.select(pl.concat_list(names).list.drop_nulls()).to_series().alias(c.REASONS)


def _measure(rule: Rule) -> pl.Expr:
    """Return the quantity that a rule bounds; null where the column is null."""
    if rule.check is CheckKind.BYTES:
        return id_bytes(rule.column)
    if rule.check is CheckKind.PRINTABLE:
        return controls(rule.column)
    column = pl.col(rule.column)
    # NaN is not a number: it counts as missing, like null.
    return column.fill_nan(None) if rule.column == c.VALUE else column


def _holds(rule: Rule) -> pl.Expr:
    """Return the expression that is true where a rule holds; it may be null."""
    measure = _measure(rule)
    if rule.check is CheckKind.PRESENT:
        return measure.is_not_null()
    held = pl.lit(True)
    if rule.check is CheckKind.ONE_OF:
        held = measure.is_in(list(rule.values))
    elif rule.check is CheckKind.UNIQUE_ON_DAY:
        day = pl.col(c.TIMESTAMP).dt.date()
        held = day.is_null() | pl.struct(measure, day).is_unique()
    if rule.minimum is not None:
        held &= measure >= rule.minimum
    if rule.maximum is not None:
        held &= measure <= rule.maximum
    return measure.is_null() | held
