"""Policies for the columns of a table, and the check that a column fits its policy.

Guarantees: a bound or constant that the policy would not use is rejected; no policy applies to the
id, user, item or time of an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.errors import ConfigError

Fill = float | bool | str
"""Type of a value that replaces a missing one."""

MISSING_SUFFIX: Final = "_missing"
_IDENTITY: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
"""Columns that no policy may change, because they identify an event."""
_CONSTANTS: Final[Mapping[pl.DataType, tuple[type, str]]] = {
    pl.Float64(): (float, "write a number"),
    pl.Boolean(): (bool, "write true or false"),
    pl.String(): (str, "write a text"),
}
"""Dtype of a column -> type of its `constant`, and the next step that an error names."""
_Bound = Annotated[float | None, Field(allow_inf_nan=False)]
_Quantile = Annotated[float | None, Field(ge=0, le=1)]


class ColumnTreatment(Frozen):
    """Policy for the missing values and the outliers of one column."""

    missing: Literal["none", "mean", "median", "mode", "constant", "indicator"] = Field(
        default="none",
        description="Replacement of a missing value; `indicator` also adds a column "
        "`<column>_missing`.",
    )
    constant: Fill | None = Field(
        default=None,
        description="Value that replaces a missing one: required with `constant`, optional with "
        "`indicator`.",
    )
    outliers: Literal["none", "clip", "winsorise", "quarantine"] = Field(
        default="none",
        description="`clip` cuts values at minimum and maximum, `winsorise` at quantiles, and "
        "`quarantine` leaves out the rows.",
    )
    minimum: _Bound = Field(default=None, description="Values below it are outliers.")
    maximum: _Bound = Field(default=None, description="Values above it are outliers.")
    lower: _Quantile = Field(default=None, description="Values below this quantile are outliers.")
    upper: _Quantile = Field(default=None, description="Values above this quantile are outliers.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        bounds = self.minimum is not None or self.maximum is not None
        quantiles = self.lower is not None or self.upper is not None
        fits, needs = {
            "none": (not bounds and not quantiles, "no minimum, maximum, lower or upper"),
            "clip": (bounds and not quantiles, "minimum, maximum or both, and no quantile"),
            "winsorise": (quantiles and not bounds, "lower, upper or both, and no other bound"),
            "quarantine": (
                bounds != quantiles,
                "bounds (minimum, maximum) or quantiles (lower, upper), not both",
            ),
        }[self.outliers]
        # Bounds that the policy does not use would be ignored silently.
        if not fits:
            raise ValueError(f'outliers = "{self.outliers}" takes {needs}')
        for low, high in (("minimum", "maximum"), ("lower", "upper")):
            below, above = getattr(self, low), getattr(self, high)
            # Equal bounds would leave a column with one value.
            if below is not None and above is not None and below >= above:
                raise ValueError(f"{low} = {below} must be less than {high} = {above}")
        if self.missing == "constant" and self.constant is None:
            raise ValueError('missing = "constant" needs constant = <value>')
        if self.constant is not None and self.missing not in ("constant", "indicator"):
            raise ValueError(f'constant must be left out with missing = "{self.missing}"')
        return self


class CleanConfig(Frozen):
    """Policies by table and column; a column without a policy is not changed.

    No column has a policy by default: a quantile over all kinds of events would cut the values of
    the few ratings or purchases down to those of the many views.
    """

    events: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for columns of the events, such as `value`."
    )
    items: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for columns of the items, such as `price`."
    )
    users: dict[str, ColumnTreatment] = Field(
        default={}, description="Policies for additional columns of the users, such as `age`."
    )


def check_column(frame: pl.DataFrame, column: str, policy: ColumnTreatment, where: str) -> None:
    """Raise an error if a column is absent, or its dtype does not fit the policy.

    Parameters
    ----------
    frame
        Rows that the policy is for.
    column, policy
        Name of the column, and its policy.
    where
        Place of the policies in the config: ``clean.events``.

    Raises
    ------
    ConfigError
        `clean.unknown_column`, `clean.outliers_need_numbers`, `clean.missing_needs_numbers`,
        `clean.fill_dtype`, `clean.indicator_exists`, `clean.constant_dtype`.
    """
    setting = f"{where}.{column}"
    cleanable = [name for name in frame.columns if name not in _IDENTITY]
    if column not in cleanable:
        raise ConfigError(
            "clean.unknown_column",
            f"{setting}: {column} is not a column that can be cleaned; name one of "
            f"{', '.join(cleanable)}",
        )
    dtype = frame.schema[column]
    if policy.outliers != "none" and not dtype.is_numeric():
        raise ConfigError(
            "clean.outliers_need_numbers",
            f"{setting}.outliers = {policy.outliers!r} needs numbers, and the column is {dtype}; "
            "write none",
        )
    if policy.missing in ("mean", "median") and not dtype.is_numeric():
        raise ConfigError(
            "clean.missing_needs_numbers",
            f"{setting}.missing = {policy.missing!r} needs numbers, and the column is {dtype}; "
            "write mode, constant, indicator or none",
        )
    if policy.missing not in ("indicator", "none") and dtype.is_nested():
        raise ConfigError(
            "clean.fill_dtype",
            f"{setting}.missing = {policy.missing!r} cannot fill a {dtype}; write indicator or "
            "none",
        )
    if policy.missing == "indicator" and f"{column}{MISSING_SUFFIX}" in frame.columns:
        raise ConfigError(
            "clean.indicator_exists",
            f"{setting}.missing = 'indicator' would overwrite the column {column}{MISSING_SUFFIX}; "
            "write another policy",
        )
    # All numeric columns become Float64 when they are cleaned.
    kind, step = _CONSTANTS.get(
        pl.Float64() if dtype.is_numeric() else dtype, (None, "leave it out")
    )
    if policy.constant is not None and type(policy.constant) is not kind:
        raise ConfigError(
            "clean.constant_dtype",
            f"{setting}.constant = {policy.constant!r} does not fit a column of {dtype}; {step}",
        )
