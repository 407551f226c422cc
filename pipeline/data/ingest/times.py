"""Parsing of instants: ISO 8601, a configured format, or numbers of a configured unit.

Guarantees: rows keep their order; a text that is not a time becomes null, and so does a time that
lacks the zone or unit of its source, with the cause beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.config import Source
from pipeline.data.validate.rules import EARLIEST

_ISO: Final = (
    r"^(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?)?"
    r"\s?([Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?$"
)
_NAIVE: Final = pl.Datetime("us")
_TO_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Up to this instant, no number is a time in two units."""
WITHOUT_ZONE: Final = "without_zone"
UNIT: Final = "unit_"
"""Begins the cause of a number that is a time in another unit, such as ``unit_ms``."""


def read_times(text: pl.Series, source: Source) -> tuple[pl.Series, pl.Series]:
    """Parse a String column as its source declares it.

    A local time that a clock change repeats is the first of both; one that it skips is null.

    Parameters
    ----------
    text
        String column.
    source
        Config of the source: time zone, unit or format.

    Returns
    -------
    times
        ``(n_rows,)`` Datetime (us, UTC), named like the column; null for a text that is not a time.
    causes
        ``(n_rows,)`` String: `WITHOUT_ZONE`, or `UNIT` with a unit, where another config of the
        source would give a time; such a row has no time. Null for all others.
    """
    trimmed = text.str.strip_chars()
    times, naive = _read(trimmed, source)
    odd = (times.is_null() & text.is_not_null()) | ~times.is_between(EARLIEST, _LATEST)
    causes = pl.select(
        pl.when(naive).then(pl.lit(WITHOUT_ZONE)).otherwise(_other_unit(trimmed, odd))
    ).to_series()
    known = pl.select(pl.when(causes.is_null()).then(times).alias(text.name)).to_series()
    return known, causes


def _other_unit(text: pl.Series, odd: pl.Series) -> pl.Expr:
    """Return the cause of a number that is a time in some unit."""
    if not odd.any():
        return pl.lit(None, pl.String)
    number = text.cast(pl.Float64, strict=False)
    first, last = EARLIEST.timestamp() * 1e6, _LATEST.timestamp() * 1e6
    return pl.coalesce(
        pl.when(odd & (number * factor).is_between(first, last)).then(pl.lit(f"{UNIT}{unit}"))
        for unit, factor in _TO_MICROSECONDS.items()
    )


def _read(trimmed: pl.Series, source: Source) -> tuple[pl.Series, pl.Series]:
    """Return times, and whether each lacks a zone."""
    no_instant = pl.repeat(None, trimmed.len(), dtype=c.INSTANT, eager=True)
    complete = no_instant.is_not_null()
    form = source.timestamp_format
    if source.timestamp_unit is not None:
        return _numbers(trimmed, _TO_MICROSECONDS[source.timestamp_unit]), complete
    if form is not None and any(code in form for code in ("%z", "%:z", "%#z", "%Z")):
        read = trimmed.str.to_datetime(form, time_unit="us", strict=False)
        return read.dt.convert_time_zone("UTC").cast(c.INSTANT), complete
    local, aware = (
        _iso(trimmed, no_instant) if form is None else (_declared(trimmed, form), no_instant)
    )
    zoned = local.dt.replace_time_zone(
        source.timezone or "UTC", ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC")
    times = pl.select(pl.coalesce(aware, zoned).cast(c.INSTANT)).to_series()
    return times, local.is_not_null() & (source.timezone is None)


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
