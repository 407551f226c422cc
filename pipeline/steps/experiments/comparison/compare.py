"""Comparison of two versions: facts of each, metrics of their runs, and paired comparisons.

Guarantees:

* Only paired figures are subtracted: same users, same ground truth, scorers trained before the
  holdout; where that is impossible, the page gives the reason.
* Nothing changes in the workspace but the page and its copies in MLflow, which are the same
  however often they are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base import Interval, Progress, format_instant, plain, silent
from pipeline.errors import ConfigError, RegistryError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.report.pair import Pair, VersionRow, VersionsPage
from pipeline.report.versions import comparison_sentence, versions_page
from pipeline.steps.experiments.comparison.paired import (
    evaluated_on,
    metrics,
    paired_comparisons,
    same_holdout,
)
from pipeline.steps.experiments.comparison.samples import samples
from pipeline.steps.reporting.page_files import write_atomically
from pipeline.workspace.artifacts import (
    REFIT,
    CostFile,
    RecipeFile,
    SplitFile,
    TablesFile,
    train_step,
)
from pipeline.workspace.config import dump, flat
from pipeline.workspace.config_errors import Tree
from pipeline.workspace.permissions import open_export
from pipeline.workspace.registry import registry
from pipeline.workspace.task_log import task_log
from pipeline.workspace.versions import Version, find, hyper_parameters
from pipeline.workspace.workspace import Workspace

NONE = "–"


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
        page = _page(ws, first, second, log.progress)
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
            registry(ws).add_page((left, right), name, text)
        # MLflow is a mirror: without it the page is complete, and the exit code shows the fault.
        except RegistryError as error:
            fault = error.sentence
        log.rows, log.result = len(page.metrics), page.sentence
    return Comparison(page, path, fault)


def _page(ws: Workspace, left: Version, right: Version, progress: Progress) -> VersionsPage:
    comparisons = paired_comparisons(left, right, progress)
    progress("sample lists")
    about, shown = samples(ws, left, right)
    page = VersionsPage(
        left=_row(left),
        right=_row(right),
        metric=metric_name(NDCG, right.night.config.recommend.length),
        sentence="",
        weeks=_days(left, right),
        paired_comparisons=comparisons,
        metrics=metrics(left, right),
        settings=_pairs(_recipe(left), _recipe(right)),
        night_settings=tuple(p for p in _pairs(_config(left), _config(right)) if p.differs),
        data=_pairs(_data(left), _data(right)),
        cost=_pairs(_cost(left), _cost(right)),
        lists=about,
        samples=shown,
    )
    # A comparison without rows has no sentence; its reason is in its own section.
    results = [text for c in comparisons if (text := comparison_sentence(page, c))]
    sentence = "; ".join(results) or "no users and ground truth are common to both evaluations"
    return replace(page, sentence=f"{sentence[0].upper()}{sentence[1:]}.")


def _row(version: Version) -> VersionRow:
    night, live, publication = version.night, "never", version.publication
    if publication is not None:
        since = format_instant(publication.live_from)
        live = f"from {since} on ({publication.publication_id})"
    return VersionRow(
        number=version.number,
        recipe=version.name,
        as_of=night.as_of,
        decision=version.decision.kind,
        sentence=version.decision.sentence,
        trained_on=night.run.read(RecipeFile, REFIT).trained_on,
        live=live,
        judged=evaluated_on(version),
        run_id=night.run_id,
        commit=night.snapshot.commit[:12],
    )


def _days(left: Version, right: Version) -> str:
    if same_holdout(left, right):
        return "Both were evaluated on the same holdout: their figures can be subtracted."
    return (
        f"Version {left.number} was evaluated on {evaluated_on(left)}, version {right.number} on "
        f"{evaluated_on(right)}: figures of different days must not be subtracted."
    )


def _recipe(version: Version) -> Tree:
    return {"recipe": version.name, **hyper_parameters(version.night.recipes[version.name])}


def _config(version: Version) -> Tree:
    """Return the run's settings without recipes: event weights are the chosen ones."""
    # Recipes have a section of their own; the settings of MLflow and of maintenance change no
    # model.
    config = dump(version.night.config)
    return flat({n: part for n, part in config.items() if n not in ("recipes", "registry", "gc")})


def _data(version: Version) -> Tree:
    night = version.night
    split, tables = night.run.read(SplitFile), Tree()
    for table, count in night.run.read(TablesFile).rows.items():
        tables[f"{table}: lake version"] = night.snapshot.versions[table]
        tables[f"{table}: rows"] = f"{count:,}"
    return {
        **tables,
        "training window": str(Interval(split.train.start, night.as_of)),
        "cutoff of the evaluation": format_instant(split.holdout.start),
        "holdout": str(split.holdout),
        "holdout, days": split.holdout_days,
        "users evaluated": f"{night.run.manifest('evaluate')['rows']:,}",
        "lists may repeat items": "yes" if split.task == "repeat" else "no",
        "target kinds": ", ".join(split.target_kinds),
        "list length": night.config.recommend.length,
    }


def _cost(version: Version) -> Tree:
    steps = {"for the evaluation": train_step(version.name), "for the live lists": REFIT}
    costs = {name: version.night.run.find(CostFile, step) for name, step in steps.items()}
    return {
        f"trained {name}, {label}": text
        for name, cost in costs.items()
        if cost is not None
        for label, text in (
            ("seconds", f"{cost.fit_seconds:,.2f}"),
            ("CPU seconds", f"{cost.fit_cpu_seconds:,.2f}"),
            ("memory, MB", f"{cost.peak_mb:,.0f}"),
            ("parameters", f"{cost.parameters:,}"),
            ("events per second", f"{cost.examples_per_second:,.0f}"),
        )
    }


def _pairs(left: Tree, right: Tree) -> tuple[Pair, ...]:
    """Line up two sets of facts, in the order of the left one, then of the right one."""
    # Recipes of two families have different hyperparameters, and each side must be complete.
    names = dict.fromkeys([*left, *right])
    return tuple(Pair(n, _text(left.get(n)), _text(right.get(n))) for n in names)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return NONE if value is None else str(value)
