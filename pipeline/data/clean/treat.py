"""Learning the figures of the policies, and cleaning with them.

In a column with a policy a value that is not finite is missing, and integers become floats.
Outliers come first: what is filled in is learnt from, and never cut by, the values that remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.data.clean.policies import MISSING_SUFFIX, ColumnTreatment, Fill, check_column
from pipeline.errors import DataError

_LEARNT: Final = ("mean", "median", "mode")
_NEVER: Final = "never"
"""A mark that no row has: it keeps the rows of the marks countable where no column has a policy."""


@dataclass(frozen=True)
class CleaningStatistics:
    """What was learnt for one column.

    Attributes
    ----------
    fill
        Stands in for a missing value; ``None`` leaves it missing.
    low, high
        Values outside are outliers; ``None`` where there is no such bound.
    """

    column: str
    treatment: ColumnTreatment
    fill: Fill | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Learnt:
    """Figures of all columns with a policy; `where` names their place in the config."""

    where: str
    columns: tuple[CleaningStatistics, ...]


@dataclass(frozen=True)
class ColumnReport:
    """What was done to one column, in rows of the frame that came in.

    Attributes
    ----------
    missing, filled
        Rows without a finite value, and those of them that were filled with `fill`.
    below, above
        Rows outside `low` and `high`: cut by clip and winsorise, taken out by quarantine.
    quarantined
        Rows that this column took out.
    """

    column: str
    missing_policy: str
    missing: int
    filled: int
    fill: Fill | None
    outliers_policy: str
    low: float | None
    high: float | None
    below: int
    above: int
    quarantined: int


@dataclass(frozen=True)
class CleanReport:
    """What cleaning did: rows in = rows out + quarantined."""

    rows_in: int
    rows_out: int
    quarantined: int
    columns: tuple[ColumnReport, ...]


@dataclass(frozen=True)
class Cleaned:
    """The rows that stay, the rows that were taken out with their `reasons`, and the report."""

    frame: pl.DataFrame
    quarantined: pl.DataFrame
    report: CleanReport


def clean(
    frame: pl.DataFrame, policies: Mapping[str, ColumnTreatment], *, where: str = "clean"
) -> Cleaned:
    """Learn the figures of a frame and clean the same frame with them."""
    return apply(frame, learn(frame, policies, where=where))


def learn(
    frame: pl.DataFrame, policies: Mapping[str, ColumnTreatment], *, where: str = "clean"
) -> Learnt:
    """Learn from a training window what to fill in and where to cut.

    Parameters
    ----------
    frame
        The training window, and nothing that is judged on it.
    policies
        Column → policy.
    where
        Place of the policies in the config, for errors: ``clean.events``.

    Raises
    ------
    ConfigError
        A column is absent, or is not made of what its policy needs.
    DataError
        A mean, median, mode or quantile of no values.
    """
    return Learnt(
        where,
        tuple(
            _learn_column(frame, column, policy, where)
            for column, policy in policies.items()
            if policy.missing != "none" or policy.outliers != "none"
        ),
    )


def apply(frame: pl.DataFrame, learnt: Learnt) -> Cleaned:
    """Clean a frame with figures that were learnt before, perhaps on another frame.

    Rows keep their order. A quarantined row keeps the values it came with, and its `reasons` say
    ``<column>_outlier`` for each column that took it out.
    """
    for figures in learnt.columns:
        check_column(frame, figures.column, figures.treatment, learnt.where)
    marks = frame.select(
        pl.repeat(False, pl.len()).alias(_NEVER),
        *(mark for figures in learnt.columns for mark in _marks(frame.schema, figures)),
    )
    out = marks.select(
        pl.any_horizontal(_NEVER, *(outlier for _, outlier in _quarantining(learnt)))
    ).to_series()
    cleaned = frame.filter(~out).with_columns(
        treated for figures in learnt.columns for treated in _treat(frame.schema, figures)
    )
    quarantined = frame.filter(out)
    return Cleaned(
        frame=cleaned,
        quarantined=quarantined.with_columns(_reasons(marks.filter(out), learnt)),
        report=CleanReport(
            rows_in=frame.height,
            rows_out=cleaned.height,
            quarantined=quarantined.height,
            columns=tuple(_report(figures, marks, ~out) for figures in learnt.columns),
        ),
    )


def _learn_column(
    frame: pl.DataFrame, column: str, policy: ColumnTreatment, where: str
) -> CleaningStatistics:
    check_column(frame, column, policy, where)
    known = frame.select(_known(frame.schema, column)).to_series().drop_nulls()
    low, high = policy.minimum, policy.maximum
    if policy.lower is not None:
        low = _quantile(known, policy.lower)
    if policy.upper is not None:
        high = _quantile(known, policy.upper)
    fill = _learn_fill(known, policy, low, high)
    asked = policy.lower is not None, policy.upper is not None, policy.missing in _LEARNT
    learnt = low is not None, high is not None, fill is not None
    if any(want and not have for want, have in zip(asked, learnt, strict=True)):
        raise DataError(
            "clean.no_values", "no value to learn its policy from", where=f"{where}.{column}"
        )
    return CleaningStatistics(column, policy, fill, low, high)


def _quantile(known: pl.Series, share: float) -> float | None:
    # The nearest order statistic: a cut never invents a value that nobody sent.
    return known.quantile(share, interpolation="nearest")


def _learn_fill(
    known: pl.Series, policy: ColumnTreatment, low: float | None, high: float | None
) -> Fill | None:
    if policy.outliers == "quarantine":
        known = known.filter(~_beyond(known, low, high))
    elif policy.outliers != "none":
        known = known.clip(low, high)
    fill: Any
    match policy.missing:
        case "mean":
            fill = known.mean()
        case "median":
            fill = known.median()
        case "mode":
            fill = known.mode().min()  # the smallest of equals, so that equal data give equal fills
        case _:
            fill = policy.constant
    return fill if fill is None or isinstance(fill, bool | str) else float(fill)


def _beyond(known: pl.Series, low: float | None, high: float | None) -> pl.Series:
    below = known < low if low is not None else pl.repeat(False, len(known), eager=True)
    return below | (known > high) if high is not None else below


def _known(schema: pl.Schema, column: str) -> pl.Expr:
    """Return the column with all that is no finite value as null; numbers become floats."""
    if not schema[column].is_numeric():
        return pl.col(column)
    number = pl.col(column).cast(pl.Float64)
    return pl.when(number.is_finite()).then(number).otherwise(None).alias(column)


def _marks(schema: pl.Schema, figures: CleaningStatistics) -> list[pl.Expr]:
    """Three columns of booleans: a value is missing, below `low`, above `high`."""
    known, never = _known(schema, figures.column), pl.lit(False)
    tests = {
        "missing": known.is_null(),
        "below": never if figures.low is None else (known < figures.low).fill_null(False),
        "above": never if figures.high is None else (known > figures.high).fill_null(False),
    }
    return [test.alias(_mark(figures, name)) for name, test in tests.items()]


def _mark(figures: CleaningStatistics, name: str) -> str:
    return f"{figures.column}/{name}"


def _quarantining(learnt: Learnt) -> list[tuple[str, pl.Expr]]:
    """Return the reason, and the expression over the marks, of each column that takes rows out."""
    return [
        (
            f"{figures.column}_outlier",
            pl.col(_mark(figures, "below")) | pl.col(_mark(figures, "above")),
        )
        for figures in learnt.columns
        if figures.treatment.outliers == "quarantine"
    ]


def _reasons(marks: pl.DataFrame, learnt: Learnt) -> pl.Series:
    named = [(_NEVER, pl.col(_NEVER)), *_quarantining(learnt)]
    return marks.select(
        pl.concat_list(pl.when(test).then(pl.lit(reason)) for reason, test in named)
        .list.drop_nulls()
        .alias(c.REASONS)
    ).to_series()


def _treat(schema: pl.Schema, figures: CleaningStatistics) -> list[pl.Expr]:
    column, policy = figures.column, figures.treatment
    treated = _known(schema, column)
    if policy.outliers in ("clip", "winsorise"):
        treated = treated.clip(figures.low, figures.high)
    if figures.fill is not None:
        treated = treated.fill_null(pl.lit(figures.fill))
    expressions = [treated.alias(column)]
    if policy.missing == "indicator":
        indicator = _known(schema, column).is_null().alias(f"{column}{MISSING_SUFFIX}")
        expressions.append(indicator)
    return expressions


def _report(figures: CleaningStatistics, marks: pl.DataFrame, stays: pl.Series) -> ColumnReport:
    missing = marks[_mark(figures, "missing")]
    below, above = (int(marks[_mark(figures, side)].sum()) for side in ("below", "above"))
    return ColumnReport(
        column=figures.column,
        missing_policy=figures.treatment.missing,
        missing=int(missing.sum()),
        filled=int((missing & stays).sum()) if figures.fill is not None else 0,
        fill=figures.fill,
        outliers_policy=figures.treatment.outliers,
        low=figures.low,
        high=figures.high,
        below=below,
        above=above,
        quarantined=below + above if figures.treatment.outliers == "quarantine" else 0,
    )
