"""Comparison of two versions: facts of each, metrics of their runs, and paired comparisons.

Guarantees:

* Only paired figures are subtracted: same users, same ground truth, scorers trained before the
  holdout; where that is impossible, the page gives the reason.
* Nothing changes in the workspace but the page and its copies in MLflow, which are the same
  however often they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import Progress, format_instant, plain, silent
from pipeline.errors import ConfigError, RegistryError
from pipeline.report.pair import VersionsPage
from pipeline.report.versions import versions_page
from pipeline.steps.experiments.comparison.paired import paired_comparisons
from pipeline.steps.experiments.comparison.samples import samples
from pipeline.steps.reporting.page_files import write_atomically
from pipeline.steps.reporting.version_facts import build_versions_page
from pipeline.workspace.permissions import open_export
from pipeline.workspace.registry import registry
from pipeline.workspace.task_log import task_log
from pipeline.workspace.versions import find
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class Comparison:
    """Two versions compared.

    Attributes
    ----------
    path
        The page.
    fault
        Why the page is not in MLflow, or ``None``.
    """

    page: VersionsPage
    path: Path
    fault: str | None

    @property
    def exit_code(self) -> int:
        """0, or the code of a registry error."""
        return 0 if self.fault is None else RegistryError.exit_code

    def plain(self) -> dict[str, Any]:
        """Return the figures of the page as plain JSON; `rows` are the metrics."""
        page = plain(self.page)
        return {
            "versions": [page.pop("left"), page.pop("right")],
            "rows": page.pop("metrics"),
            **page,
            "page": str(self.path),
            "fault": self.fault,
        }

    def text(self) -> str:
        """Return the result as lines."""
        page = self.page
        lines = [
            f"{row.label}: {row.recipe}, as-of {format_instant(row.as_of)}"
            for row in (page.left, page.right)
        ]
        lines += [page.sentence, page.weeks]
        lines += [f"{f.title}: {f.about}" for f in page.paired_comparisons if not f.rows]
        return "\n".join([*lines, f"page: {self.path}"])


def compare(
    ws: Workspace,
    left: int,
    right: int,
    *,
    out: Path | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare two versions, write the page, and copy it to the MLflow runs of both versions.

    Parameters
    ----------
    left, right
        Version numbers; lifts are those of `right` over `left`.
    out
        The page's file; by default in the workspace's ``reports``.

    Raises
    ------
    ConfigError
        `version.unknown`, or `compare.same_version`.
    StorageError
        `version.files_gone`, a damaged file, or a page that cannot be written.
    """
    if left == right:
        raise ConfigError(
            "compare.same_version", f"version {left} is compared with itself; name two versions"
        )
    first, second = find(ws, left), find(ws, right)
    with task_log("compare", second.night.as_of, progress=progress) as log:
        comparisons = paired_comparisons(first, second, log.progress)
        log.progress("sample lists")
        page = build_versions_page(first, second, comparisons, *samples(ws, first, second))
        name = f"compare-{left}-{right}.html"
        path = ws.home / "reports" / name if out is None else out
        text = versions_page(page).encode()
        # Before MLflow, so that the page exists even if MLflow is unavailable.
        if out is None:
            write_atomically(path, text)
        else:
            with open_export(out) as file:
                file.write(text)
        fault = None
        log.progress("MLflow: the page at both versions")
        try:
            registry(ws).add_page([v.night.run_id for v in (first, second)], name, text)
        # MLflow is a mirror: without it the page is complete, and the exit code shows the fault.
        except RegistryError as error:
            fault = error.sentence
        log.rows, log.result = len(page.metrics), page.sentence
    return Comparison(page, path, fault)
