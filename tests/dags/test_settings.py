"""Settings that Airflow reads when it parses a DAG file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dags.settings import BASELINES, DagSchedule, DagSettings, read_settings
from pipeline.models.families import default_recipes
from pipeline.workspace.config import compose
from tests.dags.conftest import ROOT

DEFAULTS = DagSettings()


def read(tmp_path: Path, text: str | bytes, **environment: str) -> DagSettings:
    file = tmp_path / "nightjar.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(file, environment)


def test_the_defaults_are_those_of_the_config() -> None:
    recipes = default_recipes()

    assert list(DEFAULTS.recipes) == list(recipes)
    assert list(BASELINES) == [n for n, r in recipes.items() if r.capabilities.baseline is not None]


def test_schedule_and_names_of_recipes_are_read(tmp_path: Path) -> None:
    text = """
[schedule]
cron = "30 4 * * 1"
timezone = "Europe/Berlin"
mode = "both"
select_again_days = 7
[recipes.fast]
family = "als"
[recipes.popularity]
"""
    settings = read(tmp_path, text)

    assert settings.schedule == DagSchedule("30 4 * * 1", "Europe/Berlin", "both")
    assert settings.recipes == (*BASELINES, "fast")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    text = '[schedule]\nmode = "both"\ncron = "1 1 * * *"'
    settings = read(
        tmp_path, text, NIGHTJAR__SCHEDULE__MODE="adaptive", NIGHTJAR__SCHEDULE__CRON='"2 2 * * *"'
    )

    assert settings.schedule == DagSchedule("2 2 * * *", "UTC", "adaptive")


def test_variables_and_byte_order_marks_are_read_as_in_the_config(tmp_path: Path) -> None:
    text = '\ufeff[schedule]\nmode = "both"\n[recipes.fast]\nfamily = "als"\n'
    environment = {
        "NIGHTJAR__SCHEDULE__CRON": '"5 5 * * *" # early',
        "NIGHTJAR__SCHEDULE__TIMEZONE": '"Europe/Berl\\u0069n"',
        "NIGHTJAR__RECIPES__OTHER__FAMILY": "als",
    }
    settings = read(tmp_path, text, **environment)
    config = compose(tmp_path / "nightjar.toml", environment).config

    assert settings.schedule == DagSchedule("5 5 * * *", "Europe/Berlin", "both")
    assert settings.recipes == (*BASELINES, "fast", "other") == tuple(config.recipes)
    for name in ("cron", "timezone", "mode"):
        assert getattr(settings.schedule, name) == getattr(config.schedule, name)


@pytest.mark.parametrize("text", ["", "[recipes]"])
def test_a_variable_names_a_recipe_alone(tmp_path: Path, text: str) -> None:
    environment = {"NIGHTJAR__RECIPES__OTHER__FAMILY": "als"}
    settings = read(tmp_path, text, **environment)

    config = compose(tmp_path / "nightjar.toml", environment).config
    assert settings.recipes == (*BASELINES, "other") == tuple(config.recipes)


UNUSABLE = (
    'cron = "nightly"',
    'cron = "61 * * * *"',
    'cron = "0 0 31 2 *"',
    'cron = "* * * * * *"',
    'cron = "@daily"',
    'cron = "R 3 * * *"',
    "cron = 3",
    'timezone = "Mars/Olympus"',
    'timezone = "Europe"',
    'timezone = "../x"',
    'timezone = ""',
    'mode = "hourly"',
)


@pytest.mark.parametrize("line", UNUSABLE)
def test_a_schedule_that_cannot_be_used_is_the_default(tmp_path: Path, line: str) -> None:
    assert read(tmp_path, f"[schedule]\n{line}\n").schedule == DEFAULTS.schedule


@pytest.mark.parametrize("text", ["[schedule", b"\xff\xfe", "a = " + "[" * 5000, "schedule = 1"])
def test_a_file_that_cannot_be_read_gives_the_defaults(tmp_path: Path, text: str | bytes) -> None:
    assert read(tmp_path, text) == DEFAULTS


def test_a_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "nightjar.toml", {}) == DEFAULTS


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dags.settings", {"pipeline", "airflow"}),
        # Airflow reads its environment, which `make run` sets first, when it is imported.
        ("dags.local.demo", {"airflow"}),
    ],
)
def test_some_modules_leave_airflow_unimported(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(set({sorted(absent)}) & set(sys.modules))"
    read = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert read.stdout == "set()\n", read.stderr
