"""Statistics of the cleaning policies, and their application to a frame.

In a column with a policy, a value that is not finite counts as missing, and integers become floats.
Outliers are treated before missing values: the fill value is computed from the values after that
treatment, and is not clipped itself.

Guarantees: rows in = rows out + quarantined; the remaining rows keep their order; a row is counted
for each column in which it is an outlier, even if it is removed because of another column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from pipeline.data.clean.policies import MISSING_SUFFIX, ColumnTreatment, Fill, check_column
from pipeline.errors import DataError

_LEARNT: Final = ("mean", "median", "mode")
_MISSING, _BELOW, _ABOVE = "missing", "below", "above"


@dataclass(frozen=True)
class CleaningStatistics:
    """Statistics of one column with a policy.

    Attributes
    ----------
    where
        Place of the policies in the config: ``clean.events``.
    fill
        Replaces a missing value; ``None`` leaves it missing.
    low, high
        Values outside are outliers; ``None``: no bound on that side.
    """

    where: str
    column: str
    treatment: ColumnTreatment
    fill: Fill | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ColumnReport:
    """Treatment of one column, in numbers of rows of the input frame.

    Attributes
    ----------
    missing, filled
        Rows without a finite value, and those of them that were filled with `fill`.
    below, above
        Rows below `low`, and above `high`: clip and winsorise move them to the bound, quarantine
        removes them.
    quarantined
        Rows that this column removed.
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
    """Row counts of one cleaning: rows in = rows out + quarantined."""

    rows_in: int
    rows_out: int
    quarantined: int
    columns: tuple[ColumnReport, ...]


def learn(
    frame: pl.DataFrame, policies: Mapping[str, ColumnTreatment], *, where: str = "clean"
) -> tuple[CleaningStatistics, ...]:
    """Compute fill values and bounds from a training window.

    Parameters
    ----------
    frame
        The training window only: rows of the holdout must not influence the statistics.
    policies
        Column → policy.
    where
        Place of the policies in the config, for errors: ``clean.events``.

    Returns
    -------
    Statistics of the columns whose policy changes anything.

    Raises
    ------
    ConfigError
        Those of `check_column`: a column is absent, or its dtype does not fit the policy.
    DataError
        `clean.no_values`: the column has no value for its mean, median, mode or quantile.
    """
    return tuple(
        _learn_column(frame, column, policy, where)
        for column, policy in policies.items()
        if policy.missing != "none" or policy.outliers != "none"
    )


def apply(
    frame: pl.DataFrame, learnt: Sequence[CleaningStatistics]
) -> tuple[pl.DataFrame, CleanReport]:
    """Clean a frame with statistics that may come from another frame.

    Parameters
    ----------
    frame
        Rows to clean; each column of `learnt` must be there.
    learnt
        Result of `learn`.

    Returns
    -------
    The rows that remain, in their order, and the report.

    Raises
    ------
    ConfigError
        Those of `check_column`: a column is absent, or its dtype does not fit the policy.
    """
    # All columns are marked before rows are removed, so that one row can count for several columns.
    marks = []
    kept = pl.repeat(True, frame.height, eager=True)
    for figures in learnt:
        check_column(frame, figures.column, figures.treatment, figures.where)
        mark = frame.select(_marks(frame.schema, figures))
        marks.append(mark)
        if figures.treatment.outliers == "quarantine":
            kept &= ~(mark[_BELOW] | mark[_ABOVE])
    cleaned = frame.filter(kept).with_columns(
        treated for figures in learnt for treated in _treat(frame.schema, figures)
    )
    return cleaned, CleanReport(
        rows_in=frame.height,
        rows_out=cleaned.height,
        quarantined=frame.height - cleaned.height,
        columns=tuple(
            _report(figures, mark, kept) for figures, mark in zip(learnt, marks, strict=True)
        ),
    )


def _learn_column(
    frame: pl.DataFrame, column: str, policy: ColumnTreatment, where: str
) -> CleaningStatistics:
    check_column(frame, column, policy, where)
    finite = frame.select(_finite(frame.schema, column)).to_series().drop_nulls()
    low, high = policy.minimum, policy.maximum
    # The nearest order statistic: a bound is always a value of the data.
    if policy.lower is not None:
        low = finite.quantile(policy.lower, interpolation="nearest")
    if policy.upper is not None:
        high = finite.quantile(policy.upper, interpolation="nearest")
    fill = _learn_fill(finite, policy, low, high)
    has_quantile = policy.lower is not None or policy.upper is not None
    if (has_quantile and finite.is_empty()) or (policy.missing in _LEARNT and fill is None):
        raise DataError(
            "clean.no_values",
            "the column has no value to learn the policy from; ingest values, or remove the policy",
            where=f"{where}.{column}",
        )
    return CleaningStatistics(where, column, policy, fill, low, high)


def _learn_fill(
    finite: pl.Series, policy: ColumnTreatment, low: float | None, high: float | None
) -> Fill | None:
    if policy.outliers == "quarantine":
        lowest, highest = -math.inf if low is None else low, math.inf if high is None else high
        finite = finite.filter(finite.is_between(lowest, highest))
    elif policy.outliers != "none":
        finite = finite.clip(low, high)
    fill: Any
    match policy.missing:
        case "mean":
            fill = finite.mean()
        case "median":
            fill = finite.median()
        case "mode":
            # The smallest of several modes, so that equal data give equal fills.
            fill = finite.mode().min()
        case _:
            fill = policy.constant
    return fill if fill is None or isinstance(fill, bool | str) else float(fill)


def _finite(schema: pl.Schema, column: str) -> pl.Expr:
    """Return the column with each value that is not finite as null; numbers become floats."""
    if not schema[column].is_numeric():
        return pl.col(column)
    # Float64 in any case: a mean, a median or a quantile of integers need not be an integer.
    number = pl.col(column).cast(pl.Float64)
    return pl.when(number.is_finite()).then(number).otherwise(None).alias(column)


def _marks(schema: pl.Schema, figures: CleaningStatistics) -> list[pl.Expr]:
    """Mark with three booleans the values that are missing, below `low`, above `high`."""
    # A missing value is not an outlier, so a comparison with a bound gives False for it.
    finite, never = _finite(schema, figures.column), pl.lit(False)
    below = never if figures.low is None else (finite < figures.low).fill_null(False)
    above = never if figures.high is None else (finite > figures.high).fill_null(False)
    return [finite.is_null().alias(_MISSING), below.alias(_BELOW), above.alias(_ABOVE)]


def _treat(schema: pl.Schema, figures: CleaningStatistics) -> list[pl.Expr]:
    column, policy = figures.column, figures.treatment
    finite = treated = _finite(schema, column)
    # Clipped before the fill: a constant outside the bounds stays as declared.
    if policy.outliers in ("clip", "winsorise"):
        treated = treated.clip(figures.low, figures.high)
    if figures.fill is not None:
        treated = treated.fill_null(pl.lit(figures.fill))
    expressions = [treated.alias(column)]
    if policy.missing == "indicator":
        expressions.append(finite.is_null().alias(f"{column}{MISSING_SUFFIX}"))
    return expressions


# Rows are counted in the input: a row that another column removed still counts as missing here.
def _report(figures: CleaningStatistics, mark: pl.DataFrame, kept: pl.Series) -> ColumnReport:
    below, above = int(mark[_BELOW].sum()), int(mark[_ABOVE].sum())
    return ColumnReport(
        column=figures.column,
        missing_policy=figures.treatment.missing,
        missing=int(mark[_MISSING].sum()),
        filled=int((mark[_MISSING] & kept).sum()) if figures.fill is not None else 0,
        fill=figures.fill,
        outliers_policy=figures.treatment.outliers,
        low=figures.low,
        high=figures.high,
        below=below,
        above=above,
        quarantined=below + above if figures.treatment.outliers == "quarantine" else 0,
    )
