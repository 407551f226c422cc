from __future__ import annotations

from pathlib import Path

from tests.dags.conftest import ROOT, Python

DAG_FILES = ("backtest.py", "feedback_ingest.py", "maintenance.py", "nightly_retrain.py", "tune.py")
HEAVY_TASK_ARGS = (
    "pipeline",
    "polars",
    "implicit",
    "mlflow",
    "great_expectations",
    "lightfm",
    "deltalake",
    "optuna",
)

# Airflow's own imports take a second: one process makes them and forks one for each file.
PARSE = """
import os, runpy, sys
import airflow.sdk
count = int(sys.argv[1])
for path in sys.argv[2:2 + count]:
    if os.fork() == 0:
        runpy.run_path(path)
        print(os.path.basename(path), *sorted(set(sys.argv[2 + count:]) & set(sys.modules)))
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""


def test_dag_files_parse_without_what_their_tasks_need(python: Python) -> None:
    paths = [str(ROOT / "dags" / name) for name in DAG_FILES]
    parsed = python("-c", PARSE, str(len(paths)), *paths, *HEAVY_TASK_ARGS)

    assert parsed.returncode == 0, parsed.stderr
    assert parsed.stdout.splitlines() == list(DAG_FILES)


def test_airflow_ignores_every_file_and_folder_without_dags() -> None:
    lines = (ROOT / "dags" / ".airflowignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    files = [path.name for path in (ROOT / "dags").glob("*.py")]
    folders = [f"{path.parent.name}/" for path in (ROOT / "dags").glob("*/__init__.py")]

    assert sorted([*ignored, *DAG_FILES]) == sorted([*files, *folders])


def test_the_cases_that_need_airflow_pass(python: Python) -> None:
    cases = Path("tests/dags/airflow_cases.py")
    passed = python("-m", "pytest", str(cases), "-q", "-p", "no:cacheprovider", "-W", "default")

    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_the_page_about_the_dags_is_up_to_date(python: Python) -> None:
    checked = python("-m", "dags.local.document", "--check")

    assert checked.returncode == 0, checked.stderr
