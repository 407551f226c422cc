from __future__ import annotations

from pathlib import Path

import pytest

from tests.dags.conftest import ROOT, Python

DAG_FILES = ("backtest.py", "feedback_ingest.py", "maintenance.py", "nightly_retrain.py", "tune.py")
HEAVY = (
    "pipeline",
    "polars",
    "implicit",
    "mlflow",
    "great_expectations",
    "lightfm",
    "deltalake",
    "optuna",
)

PARSE = """
import runpy, sys
runpy.run_path(sys.argv[1])
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


@pytest.mark.parametrize("name", DAG_FILES)
def test_a_dag_file_parses_without_what_its_tasks_need(name: str, python: Python) -> None:
    parsed = python("-c", PARSE, str(ROOT / "dags" / name), *HEAVY)

    assert parsed.returncode == 0, parsed.stderr
    assert parsed.stdout.split() == []


def test_what_is_no_dag_is_hidden_from_airflow() -> None:
    lines = (ROOT / "dags" / ".airflowignore").read_text().splitlines()
    hidden = [line for line in lines if line and not line.startswith("#")]
    found = sorted(path.name for path in (ROOT / "dags").glob("*.py"))

    assert sorted([*hidden, *DAG_FILES]) == found


def test_the_cases_that_need_airflow_pass(python: Python) -> None:
    cases = Path("tests/dags/airflow_cases.py")
    passed = python("-m", "pytest", str(cases), "-q", "-p", "no:cacheprovider", "-W", "default")

    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_the_page_about_the_dags_is_fresh(python: Python) -> None:
    checked = python("-m", "dags.document", "--check")

    assert checked.returncode == 0, checked.stderr
