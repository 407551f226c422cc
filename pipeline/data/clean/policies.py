"""What may be declared for a column, and whether a column can take it."""

from __future__ import annotations

import math
from typing import Final, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.errors import ConfigError

Fill = float | bool | str
"""What can stand in for a missing value."""

MISSING_SUFFIX: Final = "_missing"
_IDENTITY: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
"""Who did what when is never invented."""
_ANY_DTYPE: Final = ("mode", "constant", "indicator", "none")
"""Policies for missing values that need no numbers."""


class ColumnTreatment(Frozen):
    """What to do with the missing values and the outliers of one column."""

    missing: Literal["none", "mean", "median", "mode", "constant", "indicator"] = Field(
        default="none",
        description="What stands in for a missing value; indicator adds a column that marks it.",
    )
    constant: Fill | None = Field(
        default=None,
        description="Value that is filled in; needed by constant, possible with indicator.",
    )
    outliers: Literal["none", "clip", "winsorise", "quarantine"] = Field(
        default="none",
        description="Cut at bounds, cut at quantiles, or take the row out.",
    )
    minimum: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Smallest value that is no outlier.",
    )
    maximum: float | None = Field(
        default=None, allow_inf_nan=False, description="Largest value that is no outlier."
    )
    lower: float | None = Field(
        default=None, ge=0, le=1, description="Quantile below which values are outliers."
    )
    upper: float | None = Field(
        default=None, ge=0, le=1, description="Quantile above which values are outliers."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        bounds = self.minimum is not None or self.maximum is not None
        quantiles = self.lower is not None or self.upper is not None
        takes = {
            "none": not bounds and not quantiles,
            "clip": bounds and not quantiles,
            "winsorise": quantiles and not bounds,
            "quarantine": bounds != quantiles,
        }
        needs = {
            "none": "no minimum, maximum, lower or upper",
            "clip": "minimum, maximum or both, and no quantile",
            "winsorise": "lower, upper or both, and no minimum or maximum",
            "quarantine": "either minimum and maximum or lower and upper, one of them or both",
        }
        if not takes[self.outliers]:
            raise ValueError(f'outliers = "{self.outliers}" takes {needs[self.outliers]}')
        for low, high in (("minimum", "maximum"), ("lower", "upper")):
            below, above = getattr(self, low), getattr(self, high)
            if below is not None and above is not None and below >= above:
                raise ValueError(f"{low} = {below} must be less than {high} = {above}")
        if self.missing == "constant" and self.constant is None:
            raise ValueError('missing = "constant" needs constant = <value>')
        if isinstance(self.constant, float) and not math.isfinite(self.constant):
            raise ValueError(f"constant = {self.constant} must be finite")
        if self.constant is not None and self.missing not in ("constant", "indicator"):
            raise ValueError(f'constant has no meaning with missing = "{self.missing}"')
        return self


class CleanConfig(Frozen):
    """Policies a table and column; a column without one is left as it is.

    No column has a policy by default: a quantile over all kinds of events would cut the few ratings
    or purchases among many views down to the value of a view.
    """

    events: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for columns of the events, such as value."
    )
    items: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for columns of the items, such as price."
    )
    users: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for further columns of the users."
    )


def check_column(frame: pl.DataFrame, column: str, policy: ColumnTreatment, where: str) -> None:
    """Refuse a policy for a column that is not there, or not made of what the policy needs."""
    field = f"{where}.{column}"
    allowed = [name for name in frame.columns if name not in _IDENTITY]
    if column not in allowed:
        raise ConfigError(
            "clean.unknown_column",
            f"{field}: {column!r} is no column that can be cleaned; "
            f"allowed are {', '.join(allowed)}",
        )
    dtype = frame.schema[column]
    if policy.outliers != "none" and not dtype.is_numeric():
        raise ConfigError(
            "clean.outliers_need_numbers",
            f"{field}.outliers = {policy.outliers!r} needs numbers and the column is {dtype}; "
            "allowed is none",
        )
    if policy.missing in ("mean", "median") and not dtype.is_numeric():
        raise ConfigError(
            "clean.missing_needs_numbers",
            f"{field}.missing = {policy.missing!r} needs numbers and the column is {dtype}; "
            f"allowed are {', '.join(_ANY_DTYPE)}",
        )
    if dtype.is_nested() and policy.missing not in ("indicator", "none"):
        raise ConfigError(
            "clean.fill_dtype",
            f"{field}.missing = {policy.missing!r} cannot fill a {dtype}; "
            "allowed are indicator, none",
        )
    _check_constant(field, policy.constant, dtype)
    if policy.missing == "indicator" and f"{column}{MISSING_SUFFIX}" in frame.columns:
        raise ConfigError(
            "clean.indicator_exists",
            f"{field}.missing = 'indicator' would overwrite the column {column}{MISSING_SUFFIX}; "
            "allowed are the other policies",
        )


def _check_constant(field: str, constant: Fill | None, dtype: pl.DataType) -> None:
    if dtype.is_numeric():
        fits, allowed = isinstance(constant, float), "a number"
    elif dtype == pl.Boolean:
        fits, allowed = isinstance(constant, bool), "true or false"
    elif dtype == pl.String:
        fits, allowed = isinstance(constant, str), "a text"
    else:
        fits, allowed = False, "none"
    if constant is not None and not fits:
        raise ConfigError(
            "clean.constant_dtype",
            f"{field}.constant = {constant!r} does not fit a column of {dtype}; "
            f"allowed is {allowed}",
        )
