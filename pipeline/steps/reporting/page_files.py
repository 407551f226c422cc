"""Files of the page of a nightly run.

Guarantees:

* `runs/<run id>/page.html` is the only page of a run; it exists once the gate has committed, or
  once a failed check of the data has stopped the run.
* Content (JSON) and figures lie in the steps and never change; drawing a page again gives the same
  bytes, unless the run has been registered or published meanwhile.
* The copy of a page in MLflow is the same whenever it is made.
* A page survives a power cut once `draw_page` has returned.

The gate commits the content of a page. For a promotion the cold check commits it once more, with
the churn of the new lists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from pipeline.report.headline import NightFacts, night_facts
from pipeline.report.night import NightPage
from pipeline.report.page import night_figures, night_page, refused_page
from pipeline.stores.disk import storage_errors, sync, write_synced
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.artifacts import SnapshotFile, ValidationFile
from pipeline.workspace.night import register_folder
from pipeline.workspace.release_artifacts import MlflowFile

PAGE: Final = "page.html"
DATA: Final = "page.json"
_INDEX: Final = "../../reports/index.html"
_LOCAL_MLFLOW: Final = "http://127.0.0.1:5000"
"""Address at which `make ui` serves the MLflow database of a workspace."""
_VIEW: Final = "?workflowType=machine_learning"
"""Without it MLflow shows its menus for language models."""
_STEPS: Final = ("cold_check", "gate")
"""Steps that commit the content of a page, latest first."""


def draft_page(draft: Draft, page: NightPage, *, volatile: bool) -> None:
    """Write the content of a page and its figures into a step.

    Parameters
    ----------
    volatile
        True if figures depend on measured durations, as for `Draft.bytes`.
    """
    for name, data in night_figures(page).items():
        draft.bytes(name, data, volatile=volatile)
    draft.write(page)


def draw_page(run: Run) -> Path:
    """Draw the page of a run after its gate or its failed checks, and return its path."""
    if run.committed("gate") is None:
        page = _refused(run)
    else:
        write_atomically(run.folder / DATA, run.bytes(_figures(run)[0], DATA))
        page = _html(run, night_facts(run), _links(run))
    write_atomically(run.folder / PAGE, page)
    return run.folder / PAGE


def _refused(run: Run) -> bytes:
    checks, commit = run.read(ValidationFile).checks, run.read(SnapshotFile).commit
    origin = (("run", run.run_id), ("code", commit))
    return refused_page(checks, night_facts(run), _links(run), origin).encode()


def draw_lost_page(run: Run) -> bool:
    """Draw the page of a run again if a file of it is missing or empty; return whether it was."""
    files = [run.folder / name for name in (PAGE, DATA)]
    lost = not all(path.is_file() and path.stat().st_size for path in files)
    if lost:
        draw_page(run)
    return lost


def page_names(run: Run) -> tuple[str, ...]:
    """Return the names of `page_files`."""
    return (PAGE, DATA, *_figures(run)[1])


def _figures(run: Run) -> tuple[str, list[str]]:
    """Return the step that committed the page, and the names of its figures."""
    step = next((step for step in _STEPS if run.has(NightPage, step)), "gate")
    return step, [name for name in run.manifest(step)["files"] if name.endswith(".svg")]


def page_files(run: Run) -> dict[str, Path | bytes]:
    """Return the page of a run for MLflow, its content and its figures, by name.

    MLflow gets its copy before the lists are published, and must get an equal one if it has lost
    the run. So this page has neither the publication nor links to MLflow, as the run's own has.
    """
    step, figures = _figures(run)
    page = _html(run, replace(night_facts(run), published=None), _airflow(run))
    return {PAGE: page, **{name: run.path(step, name) for name in (DATA, *figures)}}


def _html(run: Run, facts: NightFacts, links: Sequence[tuple[str, str]]) -> bytes:
    step, figures = _figures(run)
    pictures = {name: run.bytes(step, name) for name in figures}
    return night_page(run.read(NightPage, step), pictures, facts, links).encode()


def _airflow(run: Run) -> list[tuple[str, str]]:
    address = run.read(SnapshotFile).airflow_run
    return [] if address is None else [("Airflow run", address)]


def _links(run: Run) -> list[tuple[str, str]]:
    """Return names and addresses of pages about the run; a page of MLflow once it has the run."""
    links, registry = (
        [("All nights, the newest first", _INDEX), *_airflow(run)],
        run.read(SnapshotFile).config.registry,
    )
    mlflow = run.find(MlflowFile, register_folder(run))
    if mlflow is None:
        return links
    served = urlsplit(registry.tracking_uri or "")
    # A password in the address of the server must not be in a page.
    host = f"{served.scheme}://{served.netloc.rpartition('@')[2]}{served.path.rstrip('/')}"
    base = host if served.scheme.startswith("http") else _LOCAL_MLFLOW
    links.append(("MLflow run", f"{base}/#/runs/{mlflow.run}{_VIEW}"))
    if mlflow.version is not None:
        model = quote(registry.model_name, safe="")
        address = f"{base}/#/models/{model}/versions/{mlflow.version}{_VIEW}"
        links.append((f"Model version {mlflow.version}", address))
    return links


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Parameters
    ----------
    path
        Missing folders are created.
    data
        The content.

    Raises
    ------
    StorageError
        `storage.cannot_write`: the folder or the file cannot be written.
    """
    # Two processes may draw the same page: each has a temporary file of its own.
    work = path.with_name(f".{path.name}.{os.getpid()}")
    with storage_errors("storage.cannot_write", f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with work.open("wb") as file:
                write_synced(file, data)
            work.replace(path)
            sync(path.parent)
        except OSError:
            work.unlink(missing_ok=True)
            raise
