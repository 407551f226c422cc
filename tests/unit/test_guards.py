"""Each guard of `tests/guards.py` is in the code, and its test fails without it."""

from pathlib import Path

import pytest

from tests.guards import GUARDS, SECONDS, copy_to, run_tests, taken_out

ROOT = Path(__file__).resolve().parents[2]
each_guard = pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)


@each_guard
def test_a_guard_stands_once_and_its_test_is_there(guard):
    assert (ROOT / guard.file).read_text("utf-8").count(guard.code) == 1
    assert guard.broken != guard.code
    path, _, name = guard.test.partition("::")
    assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text("utf-8")


def test_names_are_unlike():
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code in which all tests of guards pass."""
    folder = tmp_path_factory.mktemp("guards").resolve()
    copy_to(folder)
    assert run_tests(folder, *{guard.test for guard in GUARDS}) == (True, "")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@each_guard
def test_without_a_guard_its_test_fails(copy, guard):
    with taken_out(guard, copy):
        passed, _ = run_tests(copy, guard.test)
    assert not passed
