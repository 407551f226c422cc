"""The one page of a night: drawn from what a step committed last, in place of what it said before.

Promises: `runs/<run id>/page.html` is the only page of a night, and there since the gate; what it
is drawn from, figures and rows as JSON, lies in the steps and never changes; asked again it is the
same.

The gate commits the rows of a page, and a promotion once more when its lists are made: the cold
check knows what they change for people.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError
from pipeline.report.night import NightPage, from_json, to_json
from pipeline.report.page import night_figures, night_page
from pipeline.stores.runs import Draft, Run

PAGE: Final = "page.html"
DATA: Final = "page.json"
_STEPS: Final = ("cold_check", "gate")
"""Who commits rows, the last one first."""


def draft_rows(draft: Draft, told: NightPage, *, measured: bool) -> None:
    """Write the rows of a page and its figures into a step's folder.

    Parameters
    ----------
    measured
        Whether the figures, too, hang on how long something took.
    """
    for name, data in night_figures(told).items():
        draft.bytes(name, data, measured=measured)
    # The rows tell how long training took, so their bytes need not repeat.
    draft.bytes(DATA, to_json(told), measured=True)


def draw_page(run: Run) -> Path:
    """Draw the page of a night that has come to its gate; returns where it lies."""
    step = _newest(run)
    rows, names = run.bytes(step, DATA), run.manifest(step)["files"]
    pictures = {name: run.bytes(step, name) for name in names if name.endswith(".svg")}
    put(run.folder / DATA, rows)
    put(run.folder / PAGE, night_page(from_json(rows), pictures).encode())
    return run.folder / PAGE


def page_files(run: Run) -> dict[str, Path]:
    """Return the files of a night's page by name, and where they lie; the page is drawn anew."""
    page, step = draw_page(run), _newest(run)
    figures = [name for name in run.manifest(step)["files"] if name.endswith(".svg")]
    return {
        PAGE: page,
        DATA: page.with_name(DATA),
        **{name: run.path(step, name) for name in figures},
    }


def _newest(run: Run) -> str:
    drawn = (step for step in _STEPS if run.committed(step) is not None)
    return next((s for s in drawn if DATA in run.manifest(s)["files"]), "gate")


def put(path: Path, data: bytes) -> None:
    """Write a file under its name at once, so that a reader sees a whole one."""
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(data)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
