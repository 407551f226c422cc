"""Parsing of instants: ISO 8601, a configured format, or numbers of a configured unit.

Guarantees: rows keep their order; a text that is not a time becomes null; a time without a zone
raises unless the source declares a zone or a unit.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.config import MappingError, Source
from pipeline.data.sources.mapping import AT_LINE

_ISO: Final = (
    r"^(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?)?"
    r"\s?([Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?$"
)
_NAIVE: Final = pl.Datetime("us")
_TO_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


def read_times(text: pl.DataFrame, column: str, source: Source, name: str) -> pl.Series:
    """Parse a String column as its source declares it.

    A local time that a clock change repeats is the first of both; one that it skips is null.

    Parameters
    ----------
    text
        `AT_LINE` and the column.
    column
        Name of the column.
    source
        Config of the source: time zone, unit or format.
    name
        The file's name, for errors.

    Returns
    -------
    ``(n_rows,)`` Datetime (us, UTC), named like the column; null for a text that is not a time.

    Raises
    ------
    MappingError
        `ingest.naive_times`: times lack the zone or unit that the source does not declare.
    """
    trimmed = text[column].str.strip_chars()
    form = source.timestamp_format
    if source.timestamp_unit is not None:
        return _numbers(trimmed, _TO_MICROSECONDS[source.timestamp_unit])
    if form is not None and any(code in form for code in ("%z", "%:z", "%#z", "%Z")):
        read = trimmed.str.to_datetime(form, time_unit="us", strict=False)
        return read.dt.convert_time_zone("UTC").cast(c.INSTANT)
    no_instant = pl.repeat(None, text.height, dtype=c.INSTANT, eager=True)
    local, aware = (
        _iso(trimmed, no_instant) if form is None else (_declared(trimmed, form), no_instant)
    )
    naive = local.is_not_null() & (source.timezone is None)
    # A number among times is one bad row; a column of numbers alone lacks a unit in the config.
    if local.null_count() == aware.null_count() == text.height:
        naive = trimmed.str.contains(r"^\d{9,17}(?:\.\d+)?$").fill_null(False)
    if naive.any():
        raise MappingError(
            "ingest.naive_times",
            f"{column} has times without a time zone; set timezone in the source's config "
            "(or timestamp_unit, if they are numbers)",
            where=name,
            count=int(naive.sum()),
            positions=text[AT_LINE].filter(naive).head(5).to_list(),
        )
    zoned = local.dt.replace_time_zone(
        source.timezone or "UTC", ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC")
    return pl.select(pl.coalesce(aware, zoned).cast(c.INSTANT).alias(column)).to_series()


def _numbers(text: pl.Series, factor: int) -> pl.Series:
    # Float64 is exact to the microsecond until the year 2255.
    number = (text.cast(pl.Float64, strict=False).fill_nan(None) * factor).round()
    bound = float(1 << 62)  # a cast of larger numbers would overflow
    return number.clip(-bound, bound).cast(pl.Int64).cast(c.INSTANT)


def _declared(text: pl.Series, form: str) -> pl.Series:
    read = text.str.to_datetime(form, time_unit="us", strict=False)
    if read.null_count() == read.len():
        # polars parses a format without a time of day only as a date.
        return text.str.to_date(form, strict=False).cast(_NAIVE)
    return read


def _iso(text: pl.Series, no_instant: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return (local times, instants with a zone); each is null where the other one applies."""
    # The most common form is tried first, since the pattern below is slower.
    usual = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    if usual.null_count() == text.null_count():
        return usual, no_instant
    day, minute, second, fraction, zone = (
        text.str.extract_groups(_ISO).struct.unnest().get_columns()
    )
    parts = pl.select(
        pl.when(day.is_not_null()).then(
            pl.concat_str(
                day,
                pl.lit(" "),
                minute.fill_null("00:00"),
                second.fill_null(":00"),
                fraction.fill_null("").str.replace(",", ".", literal=True),
            )
        )
    ).to_series()
    local = parts.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    # The zone is its own group: the end of a date such as 2024-03-01 is not an offset.
    offset = _offset(zone)
    aware = (local - offset).dt.replace_time_zone("UTC")
    return pl.select(pl.when(zone.is_null()).then(local)).to_series(), aware


def _offset(zone: pl.Series) -> pl.Series:
    digits = zone.str.replace_all(r"[^0-9]", "")
    hours = digits.str.slice(0, 2).cast(pl.Int64, strict=False).fill_null(0)
    minutes = digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    sound = zone.is_not_null() & (hours < 24) & (minutes < 60)
    return pl.select(
        pl.when(sound).then(pl.duration(minutes=sign * (hours * 60 + minutes)))
    ).to_series()
