from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

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


def test_dag_files_parse_without_the_libraries_of_their_tasks(python: Python) -> None:
    paths = [str(ROOT / "dags" / name) for name in DAG_FILES]
    parsed = python("-c", PARSE, str(len(paths)), *paths, *HEAVY_TASK_ARGS)

    assert parsed.returncode == 0, parsed.stderr
    assert parsed.stdout.splitlines() == list(DAG_FILES)


LISTED = """
import sys
from airflow.utils.file import find_dag_file_paths
print(*sorted(find_dag_file_paths(sys.argv[1], safe_mode=True)), sep="\\n")
"""


def test_airflow_parses_the_dag_files_and_nothing_else(python: Python, tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    shutil.copytree(ROOT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    foreign = ("evil.py", "sub/evil.py", "sub/tune.py", "local/tune.py", "tune.py.d/evil.py")
    for name in foreign:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("# airflow dag")
    (folder / "sub" / ".airflowignore").write_text("!*\n")
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("evil.py", "# airflow dag")

    listed = python("-c", LISTED, str(folder))

    assert listed.returncode == 0, listed.stderr
    # Airflow writes its warnings to stdout, too.
    paths = [line for line in listed.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert paths == [str(folder / name) for name in DAG_FILES]


@pytest.mark.servers
def test_the_cases_that_need_airflow_pass(python: Python) -> None:
    cases = Path("tests/dags/airflow_cases.py")
    passed = python("-m", "pytest", str(cases), "-q", "-p", "no:cacheprovider", "-W", "default")

    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_the_page_about_the_dags_is_up_to_date(python: Python) -> None:
    checked = python("-m", "dags.local.document", "--check")

    assert checked.returncode == 0, checked.stderr
