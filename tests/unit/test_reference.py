"""The reference pages agree with the code, and every error has an id `area.problem`.

A message that changes shows in `docs/ERRORS.md`, and in no other test.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_the_reference_pages_are_up_to_date(generate: dict[str, Any]) -> None:
    assert generate["main"](["--check"]) == 0


def test_every_error_has_an_id_of_an_area_and_a_problem(generate: dict[str, Any]) -> None:
    ids = generate["messages"]()
    assert len(ids) > 100
    assert [id for id in ids if not re.fullmatch(r"[a-z_0-9]+\.[a-z_0-9]+", id)] == []


def test_every_setting_and_option_has_a_description() -> None:
    for page in ("CONFIG.md", "COMMANDS.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert len(rows) > 50
        assert [row for row in rows if row.endswith("|  |")] == []
