from datetime import UTC, datetime

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.ingest.times import read_times
from pipeline.data.sources.config import Source

MOMENT = datetime(2024, 3, 1, 10, 0, 0, tzinfo=UTC)


def read(*texts: str | None, **source: str) -> pl.Series:
    times, _ = read_times(pl.Series("at", texts, dtype=pl.String), Source(**source))
    assert (times.name, times.dtype) == ("at", c.INSTANT)
    return times


def instants(*texts: str | None, **source: str) -> list[datetime | None]:
    return read(*texts, **source).to_list()


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T10:00:00Z",
        "2024-03-01 10:00:00z",
        "2024-03-01T10:00Z",
        "2024-03-01T10:00:00.000Z",
        "2024-03-01T10:00:00,000000000Z",
        "2024-03-01T12:00:00+02:00",
        "2024-03-01T12:00:00+0200",
        "2024-03-01 12:00:00 +02",
        "2024-03-01T04:30:00-05:30",
        "2024-03-01 10:00:00 UTC",
        " 2024-03-01T10:00:00Z ",
    ],
)
def test_iso_with_a_zone_needs_no_declaration(text):
    assert instants(text) == [MOMENT]
    assert instants(text, None, timezone="Asia/Tokyo") == [MOMENT, None]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-01 11:00:00", MOMENT),
        ("2024-03-01T11:00", MOMENT),
        ("2024-03-01 11:00:00.000001", MOMENT.replace(microsecond=1)),
        ("2024-03-01", datetime(2024, 2, 29, 23, tzinfo=UTC)),
        ("2024-07-01 11:00:00", datetime(2024, 7, 1, 9, tzinfo=UTC)),
    ],
)
def test_a_naive_time_is_of_the_declared_zone(text, instant):
    assert instants(text, timezone="Europe/Berlin") == [instant]


def test_zones_may_be_mixed_in_one_column():
    texts = ("2024-03-01 11:00:00", "2024-03-01T10:00:00Z", "2024-03-01 11:00", None, "x")
    assert instants(*texts, timezone="Europe/Berlin") == [MOMENT, MOMENT, MOMENT, None, None]


def test_of_a_repeated_hour_the_first_is_meant_and_a_skipped_one_is_none():
    parsed = instants("2024-10-27 02:30:00", "2024-03-31 02:30:00", timezone="Europe/Berlin")
    assert parsed == [datetime(2024, 10, 27, 0, 30, tzinfo=UTC), None]


@pytest.mark.parametrize(
    "text",
    ["", "never", "2024-13-01", "2024-02-30 10:00:00", "2024-03-01T25:00:00Z", "20240301",
     "2024-03-01T10:00:00+25:00", "2024-03-01T10:00:00+02:75", "2024-03-01T10:00:00Z!", "10:00"],
)  # fmt: skip
def test_text_that_is_not_a_time_is_none(text):
    assert instants(text, timezone="UTC") == [None]
    assert instants(text) == [None]


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("s", "1709287200"),
        ("s", "1709287200.0"),
        ("s", " 1.7092872e9 "),
        ("ms", "1709287200000"),
        ("us", "1709287200000000"),
    ],
)
def test_numbers_have_the_declared_unit(unit, text):
    assert instants(text, timestamp_unit=unit) == [MOMENT]


def test_fractions_are_kept_and_nonsense_is_none():
    parsed = instants("1709287200.000001", "-1", "nan", "x", None, timestamp_unit="s")
    assert parsed[0] == MOMENT.replace(microsecond=1)
    assert parsed[1] == datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert parsed[2:] == [None, None, None]


def test_numbers_beyond_all_time_do_not_wrap_around():
    times = read("9" * 30, "-" + "9" * 30, timestamp_unit="us")
    assert (times.to_physical().abs() == 1 << 62).all()


@pytest.mark.parametrize(
    ("form", "text", "zone"),
    [
        ("%d.%m.%Y %H:%M", "01.03.2024 11:00", "Europe/Berlin"),
        ("%d/%m/%Y %I:%M %p", "01/03/2024 10:00 AM", "UTC"),
        ("%Y-%m-%d %H:%M:%S %z", "2024-03-01 12:00:00 +0200", None),
    ],
)
def test_a_declared_form_is_read(form, text, zone):
    declared = {"timestamp_format": form} | ({"timezone": zone} if zone else {})
    assert instants(text, "else", **declared) == [MOMENT, None]


def test_a_declared_form_may_be_a_day():
    parsed = instants("01.03.2024", timestamp_format="%d.%m.%Y", timezone="UTC")
    assert parsed == [datetime(2024, 3, 1, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("texts", "source", "causes"),
    [
        (["2024-03-01 10:00:00", "2024-03-01T10:00:00Z"], {}, ["without_zone", None]),
        (["2024-03-01T10:00:00Z", "2024-03-01"], {}, [None, "without_zone"]),
        (["1709287200", "1709287200000", "1709287200000000"], {}, ["unit_s", "unit_ms", "unit_us"]),
        (["1709287200", "x"], {"timezone": "UTC"}, ["unit_s", None]),
        (["2024-03-01T10:00:00Z", "1709287200"], {}, [None, "unit_s"]),
        (["01.03.2024 11:00"], {"timestamp_format": "%d.%m.%Y %H:%M"}, ["without_zone"]),
        (["1709287200000", "1709287200"], {"timestamp_unit": "s"}, ["unit_ms", None]),
        (["1709287200", "0"], {"timestamp_unit": "ms"}, ["unit_s", None]),
        (["nan", "inf", "20240301", None], {}, [None, None, None, None]),
    ],
)
def test_a_time_that_another_config_can_resolve_has_a_cause_and_no_value(texts, source, causes):
    times, why = read_times(pl.Series("at", texts, dtype=pl.String), Source(**source))
    assert why.to_list() == causes
    assert times.filter(why.is_not_null()).null_count() == why.is_not_null().sum()
