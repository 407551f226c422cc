"""Masking of e-mail addresses and phone numbers in the bad values that quarantine keeps."""

import json

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.ingest.quarantine import bad_rows
from pipeline.data.sources.mapping import AT_LINE


def kept(value: str) -> str:
    text = pl.DataFrame({AT_LINE: [2], c.TIMESTAMP: [value]})
    reasons = pl.Series([[f"{c.TIMESTAMP}_unparsable"]])
    (raw,) = bad_rows(text, reasons)[c.RAW]
    return json.loads(raw)[c.TIMESTAMP]


@pytest.mark.parametrize(
    "value",
    [
        "jane@example.org",
        "jane＠example.org",
        "jane﹫example.org",
        "0170 5550147",
        "+49·170·5550·147",
        "01_70_55_50_14_7",
        "0170/555-01.47",
        "0170 – 555 – 0147",
        "０１７０５５５０１４７",
        "01.02.2026 tel 0170 5550147",
        "2026-03-01-5550147",
        "2026-03-01 10:00:00 5550147",
        "2026-03-01T10:00:00.5550147890123",
        "2026-03-01 170-555-0147",
        "0170-55-50147",
        "0170-55-50-14",
    ],
)
def test_addresses_and_phone_numbers_are_masked(value):
    assert kept(value) == "***"


@pytest.mark.parametrize(
    "value",
    [
        "gaze",
        "2026-13-45",
        "01.02.2026",
        " 1/2/2026 ",
        "2026-03-01 25:61:00",
        "2026-03-01T10:00:61.123456789Z",
        "2026-03-01T25:00:00+02:00",
        "01/02/2026 10:00 UTC",
        "2026-03-01 in 6 days",
        "12.50",
    ],
)
def test_other_bad_values_are_kept(value):
    assert kept(value) == value
