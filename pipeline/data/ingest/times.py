"""Instants out of text: ISO 8601, a declared form, or numbers of a declared unit; always UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.sources.config import MappingError, Source

_ISO: Final = (
    r"^(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?)?"
    r"\s?([Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?$"
)
_NAIVE: Final = pl.Datetime("us")
_TO_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class Read:
    """Instants that were read.

    Attributes
    ----------
    instants
        Datetime[us, UTC]; null where the text is none.
    naive
        Whether the text is a time, but lacks the zone or unit that the source does not declare;
        its instant means nothing then.
    """

    instants: pl.Series
    naive: pl.Series


def read_times(text: pl.Series, source: Source) -> Read:
    """Read a String column as the source declares it.

    Of a local time that a clock change repeats, the first is meant; one that it skips is none.
    """
    trimmed = text.str.strip_chars()
    never = pl.repeat(False, text.len(), eager=True)
    if source.timestamp_unit is not None:
        return Read(_numbers(trimmed, _TO_MICROSECONDS[source.timestamp_unit]), never)
    if source.timestamp_format is not None and _names_zone(source.timestamp_format):
        read = trimmed.str.to_datetime(source.timestamp_format, time_unit="us", strict=False)
        return Read(read.dt.convert_time_zone("UTC").cast(c.INSTANT), never)
    never_aware = pl.Series([None], dtype=c.INSTANT).new_from_index(0, text.len())
    if source.timestamp_format is not None:
        local, aware = _declared(trimmed, source.timestamp_format), never_aware
    else:
        local, aware = _iso(trimmed, never_aware)
    naive = local.is_not_null() if source.timezone is None else never
    # Among real times a bare number is one bad row; a file of nothing else lacks a unit.
    if local.null_count() == aware.null_count() == text.len():
        naive = trimmed.str.contains(r"^\d{9,17}(?:\.\d+)?$").fill_null(False)
    zoned = local.dt.replace_time_zone(
        source.timezone or "UTC", ambiguous="earliest", non_existent="null"
    ).dt.convert_time_zone("UTC")
    merged = pl.select(pl.coalesce(aware, zoned).cast(c.INSTANT)).to_series()
    return Read(merged, naive)


def refuse_naive(read: Read, lines: pl.Series, name: str, column: str) -> None:
    """Raise `MappingError` if a time lacks a zone or a unit that only the source can tell."""
    count = int(read.naive.sum())
    if count:
        raise MappingError(
            "ingest.naive_times",
            f"{column} holds times without a zone; declare the source's timezone "
            "(or its timestamp_unit, if they are numbers)",
            where=name,
            count=count,
            positions=lines.filter(read.naive).head(5).to_list(),
        )


def _numbers(text: pl.Series, factor: int) -> pl.Series:
    # Exact to the microsecond until the year 2255.
    number = (text.cast(pl.Float64, strict=False).fill_nan(None) * factor).round()
    bound = float(1 << 62)
    return number.clip(-bound, bound).cast(pl.Int64).cast(_NAIVE).dt.replace_time_zone("UTC")


def _declared(text: pl.Series, form: str) -> pl.Series:
    read = text.str.to_datetime(form, time_unit="us", strict=False)
    if read.null_count() == read.len():
        # A form without a time of day is a date to the library.
        return text.str.to_date(form, strict=False).cast(_NAIVE)
    return read


def _iso(text: pl.Series, never_aware: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return (local times without a zone, instants with one); null where it is the other."""
    usual = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    if usual.null_count() == text.null_count():
        return usual, never_aware
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
    # A bare day says nothing of a zone, whatever its last digits look like.
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


def _names_zone(form: str) -> bool:
    return any(code in form for code in ("%z", "%:z", "%#z", "%Z"))
