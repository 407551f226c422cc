"""The guards of `tests/guards.py` still stand in the code, and their tests are there."""

from pathlib import Path

import pytest

from tests.guards import GUARDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_once_and_its_test_is_there(guard):
    assert (ROOT / guard.file).read_text("utf-8").count(guard.code) == 1
    assert guard.broken != guard.code
    path, _, name = guard.test.split()[0].partition("::")
    assert f"def {name}" in (ROOT / path).read_text("utf-8")


def test_names_are_unlike():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
