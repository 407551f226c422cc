"""The one page of a night: drawn from what a step committed last, in place of an earlier one.

Guarantees: `runs/<run id>/page.html` is the only page of a night, and exists since the gate; its
content as JSON and its figures lie in the steps and never change; drawn again it is the same.

The gate commits the content of a page, and a promotion once more when its lists are made: the cold
check knows what they change for people.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError
from pipeline.report.night import NightPage
from pipeline.report.page import night_figures, night_page
from pipeline.stores.runs import Draft, Run

PAGE: Final = "page.html"
DATA: Final = "page.json"
_STEPS: Final = ("cold_check", "gate")
"""Steps that commit the content of a page, the last one first."""


def draft_page(draft: Draft, page: NightPage, *, volatile: bool) -> None:
    """Write the content of a page and its figures into a step's folder.

    Parameters
    ----------
    volatile
        Whether the figures, too, depend on how long something took.
    """
    for name, data in night_figures(page).items():
        draft.bytes(name, data, volatile=volatile)
    draft.write(page)


def draw_page(run: Run) -> Path:
    """Draw the page of a night that has come to its gate; returns its path."""
    step = _newest(run)
    names = run.manifest(step)["files"]
    pictures = {name: run.bytes(step, name) for name in names if name.endswith(".svg")}
    write_atomically(run.folder / DATA, run.bytes(step, DATA))
    write_atomically(run.folder / PAGE, night_page(run.read(NightPage, step), pictures).encode())
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
    return next((step for step in _STEPS if run.has(NightPage, step)), "gate")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under its name at once, so that a reader sees a whole one."""
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.write_bytes(data)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise StorageError(
            "storage.cannot_write", f"cannot write {path}: {error.strerror}"
        ) from error
