"""Asserts an expected failure by its id; `tests/golden/messages.json` pins the messages."""

import pytest

from pipeline.errors import NightjarError


def raises(id: str) -> "pytest.RaisesExc[NightjarError]":
    """Expect a `NightjarError` with this id."""
    return pytest.raises(NightjarError, check=lambda error: error.id == id)
