"""Table of named rules for events, and the polars predicates generated from it.

Guarantees: a row is good only if every predicate is true (null counts as false); the name of a rule
is the reason in the quarantine; `suite` generates its expectations from the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import to_utc
from pipeline.data.sources.config import EVENT_COLUMNS
from pipeline.errors import DataError

MAX_ID_BYTES: Final = 256
_CONTROL: Final = r"\p{Cc}"
# Characters without a shape (format characters, variation selectors, fillers) and separators of
# lines: ids with and without one look alike wherever they are shown.
_INVISIBLE: Final = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}]"
EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Earliest valid timestamp; earlier ones are zeros, or seconds that were read as milliseconds."""
LARGEST: Final = 1e12
"""Largest valid quantity, rating or price, so that sums of squares stay finite."""

JUDGED: Final = tuple(name for name in EVENT_COLUMNS if name != c.PUBLICATION_ID)
"""Columns that the rules need, in the dtypes of `columns.EVENTS`."""


class CheckKind(StrEnum):
    """Requirement of a rule on its column; all but PRESENT accept null."""

    PRESENT = "present"
    BYTES = "bytes"
    PRINTABLE = "printable"
    BETWEEN = "between"
    ONE_OF = "one_of"
    UNIQUE_ON_DAY = "unique_on_day"


@dataclass(frozen=True)
class Rule:
    """Named requirement on one column.

    Attributes
    ----------
    name
        Reason of a row that violates it.
    column
        Column of `columns.EVENTS`.
    check
        Kind of requirement.
    minimum, maximum
        Inclusive bounds of the measured quantity; ``None``: no bound.
    values
        Allowed values of ONE_OF.
    level
        ``row``: checked per row, at ingest as well; ``batch``: checked for all rows together.
    """

    name: str
    column: str
    check: CheckKind
    minimum: float | datetime | None = None
    maximum: float | datetime | None = None
    values: tuple[str, ...] = ()
    level: Literal["row", "batch"] = "row"


def declare(*, at: datetime, kinds: Sequence[str]) -> tuple[Rule, ...]:
    """Return all rules for events.

    Parameters
    ----------
    at
        Latest valid timestamp: instant of the ingest, or as-of.
    kinds
        Allowed kinds of events.

    Returns
    -------
    Rules in a fixed order, in which reasons and results are listed.
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
    """Return the length of an id in UTF-8 bytes; 0 for white space only, null for null."""
    raw = pl.col(column)
    blank = raw.str.strip_chars().str.len_bytes() == 0
    return pl.when(blank).then(pl.lit(0, pl.UInt32)).otherwise(raw.str.len_bytes())


def unprintables(column: str) -> pl.Expr:
    """Count the control and invisible characters of an id, such as NUL and zero-width spaces."""
    return pl.col(column).str.count_matches(_INVISIBLE)


def has_controls(column: str) -> pl.Expr:
    """Return whether a text has control characters; format characters belong to some scripts."""
    return pl.col(column).str.contains(_CONTROL)


def failures(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Return one boolean column per rule, true where a row violates it.

    Parameters
    ----------
    frame
        Events with the columns `JUDGED`.
    rules
        From `declare`.

    Raises
    ------
    DataError
        `validate.missing_columns`: a column of `JUDGED` is absent.
    """
    absent = [name for name in JUDGED if name not in frame.columns]
    if absent:
        raise DataError(
            "validate.missing_columns",
            f"cannot be validated without the columns {', '.join(absent)}; this is a defect of "
            "Nightjar: report it",
            where="events",
        )
    # A null means that the rule cannot be evaluated; the row must not pass.
    return frame.select((~_holds(rule).fill_null(False)).alias(rule.name) for rule in rules)


def row_reasons(frame: pl.DataFrame, *, at: datetime, kinds: Sequence[str]) -> pl.Series:
    """List the row rules that each row violates.

    Parameters
    ----------
    frame
        Events with the columns `JUDGED`; values that could not be parsed are null.
    at
        Instant of the ingest; later events are refused.
    kinds
        Allowed kinds of events.

    Returns
    -------
    pl.Series
        ``(n_rows,)`` List(String) in the order of `declare`; empty for a good row.
    """
    rules = [rule for rule in declare(at=at, kinds=kinds) if rule.level == "row"]
    # Ids of visible ASCII alone are the usual ones; their bytes replace three rules.
    usual = {name for name in (c.EVENT_ID, c.USER_ID, c.ITEM_ID) if _all_usual(frame[name])}
    measured = (CheckKind.BYTES, CheckKind.PRINTABLE)
    rules = [rule for rule in rules if not (rule.check in measured and rule.column in usual)]
    broken = failures(frame, rules)
    bad = broken.select(pl.any_horizontal(pl.all())).to_series()
    named = names_of(broken.filter(bad))
    # Almost all rows are good and share one empty list, which saves memory.
    place = np.full(frame.height, named.len(), dtype=np.uint32)
    place[bad.to_numpy()] = np.arange(named.len(), dtype=np.uint32)
    lists = named.append(pl.Series([[]], dtype=pl.List(pl.String)))
    return lists.gather(place).alias(c.REASONS)


def _all_usual(ids: pl.Series) -> bool:
    """Return True if all ids have a valid length, and visible ASCII characters alone."""
    sizes = ids.str.len_bytes().drop_nulls()
    if sizes.is_empty() or not sizes.is_between(1, MAX_ID_BYTES).all():
        return False
    # The smallest and largest byte take a tenth of the time of a search by a regular expression.
    characters = text_bytes(ids)
    return bool(characters.min() >= ord("!") and characters.max() <= ord("~"))


def text_bytes(ids: pl.Series) -> NDArray[np.uint8]:
    """Return the bytes of all ids, one after the other."""
    text = ids.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()[2]
    return np.frombuffer(text or b"", np.uint8)


def names_of(flags: pl.DataFrame) -> pl.Series:
    """Return the names of the boolean columns that are true in each row, as List(String)."""
    names = (pl.when(pl.col(name)).then(pl.lit(name)) for name in flags.columns)
    return flags.select(pl.concat_list(names).list.drop_nulls()).to_series().alias(c.REASONS)


def _measure(rule: Rule) -> pl.Expr:
    """Return the quantity that a rule bounds; null where the column is null."""
    if rule.check is CheckKind.BYTES:
        return id_bytes(rule.column)
    if rule.check is CheckKind.PRINTABLE:
        return unprintables(rule.column)
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
        # A few comparisons take half the time of `is_in`.
        held = pl.any_horizontal(measure == value for value in rule.values)
    elif rule.check is CheckKind.UNIQUE_ON_DAY:
        # The identity of an event is its id and its day.
        day = pl.col(c.TIMESTAMP).dt.date()
        held = day.is_null() | pl.struct(measure, day).is_unique()
    if rule.minimum is not None:
        held &= measure >= rule.minimum
    if rule.maximum is not None:
        held &= measure <= rule.maximum
    return measure.is_null() | held
