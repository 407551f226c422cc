"""Instants as users write them."""

import pytest

from pipeline.base import parse_instant
from tests.raising import raises


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "x"])
def test_an_instant_outside_the_calendar_is_an_error_and_not_a_defect(text):
    with raises("instant.invalid"):
        parse_instant(text)
