from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pipeline.base import format_instant
from pipeline.steps.reporting.past_nights import trust
from pipeline.workspace.history import CALIBRATION

NIGHT = SimpleNamespace(as_of=datetime(2024, 6, 1, 9, tzinfo=UTC))


def measured(*ages):
    lines = [
        {
            "type": CALIBRATION,
            "as_of": format_instant(NIGHT.as_of - timedelta(days=age)),
            "sentence": f"als: {age}",
        }
        for age in ages
    ]
    return SimpleNamespace(ledger=SimpleNamespace(entries=lambda: lines))


@pytest.mark.parametrize(
    ("ages", "told"),
    [
        ((), ""),
        ((-1,), ""),  # a night knows nothing of what was measured after it
        ((14, 60), "The gate itself, measured on 2024-05-18 (14 days before): als: 14."),
        ((1,), "The gate itself, measured on 2024-05-31 (1 day before): als: 1."),
        ((0, 3), "The gate itself, measured on 2024-06-01 (today): als: 0."),
    ],
)
def test_a_calibration_is_told_with_its_age(ages, told):
    assert trust(measured(*ages), NIGHT) == told
