"""Asserts an expected failure by its id; `docs/ERRORS.md` has the messages."""

import pytest

from pipeline.errors import NightjarError


def raises(*ids: str) -> "pytest.RaisesExc[NightjarError]":
    """Expect a `NightjarError` with one of these ids."""
    return pytest.raises(NightjarError, check=lambda error: error.id in ids)
