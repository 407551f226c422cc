"""Two versions side by side: what each is, what its night found, and both on one footing.

Promises: what is subtracted was judged on the same people by the same truth, by scorers that saw
nothing of the holdout; where that cannot be, it is said why; nothing of the workspace changes but
the page and its copies in MLflow, which are the same however often they are made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.base import Interval, Progress, format_instant, plain, silent
from pipeline.errors import ConfigError, RegistryError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.report.pair import Pair, VersionRow, VersionsPage
from pipeline.report.versions import comparison_sentence, versions_page
from pipeline.steps.experiments.comparison.paired import (
    judged_on,
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
from pipeline.workspace.registry import registry
from pipeline.workspace.task_log import task_log
from pipeline.workspace.versions import Version, find, hyper_parameters
from pipeline.workspace.workspace import Workspace

NONE = "–"


Facts: TypeAlias = dict[str, Any]
"""What a page shows of one version, by label."""


@dataclass(frozen=True)
class Comparison:
    """Two versions compared.

    Attributes
    ----------
    path
        Where the page is.
    fault
        Why the page is not in MLflow, or ``None``.
    """

    page: VersionsPage
    path: Path
    fault: str | None

    @property
    def exit_code(self) -> int:
        """0, or the code of a registry that is away."""
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
        """Return the finding as lines."""
        page = self.page
        lines = [
            f"{row.label}: {row.recipe}, as-of {format_instant(row.as_of)}"
            for row in (page.left, page.right)
        ]
        lines += [page.sentence, page.weeks]
        lines += [f"{f.title}: {f.about}" for f in page.footings if not f.rows]
        return "\n".join([*lines, f"page: {self.path}"])


def compare(
    ws: Workspace,
    left: int,
    right: int,
    *,
    out: Path | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare two versions, write the page, and show it in MLflow at both versions' runs.

    Parameters
    ----------
    out
        The page's file; by default in the workspace's ``reports``.

    Raises
    ------
    ConfigError
        A version is not there, or both are the same one.
    StorageError
        The files of one are gone or damaged, or the page cannot be written.
    """
    if left == right:
        raise ConfigError(
            "compare.same_version", f"version {left} is compared with itself; name two versions"
        )
    first, second = find(ws, left), find(ws, right)
    with task_log("compare", second.night.as_of, progress=progress) as log:
        page = build(ws, first, second, log.progress)
        name = f"compare-{left}-{right}.html"
        path = out or ws.home / "reports" / name
        text = versions_page(page).encode()
        write_atomically(path, text)
        fault = None
        log.progress("MLflow: the page at both versions")
        try:
            registry(ws).add_page((left, right), name, text)
        except RegistryError as error:
            fault = error.sentence
        log.rows, log.result = len(page.metrics), page.sentence
    return Comparison(page, path, fault)


def build(ws: Workspace, left: Version, right: Version, progress: Progress) -> VersionsPage:
    """Gather the page of two versions."""
    metric = metric_name(NDCG, right.night.config.recommend.length)
    comparisons = paired_comparisons(left, right, progress)
    progress("sample lists")
    about, people = samples(ws, left, right)
    page = VersionsPage(
        left=_row(left),
        right=_row(right),
        metric=metric,
        sentence="",
        weeks=_weeks(left, right),
        footings=comparisons,
        metrics=metrics(left, right),
        settings=_paired(_settings(left), _settings(right)),
        night_settings=tuple(
            pair for pair in _paired(_others(left), _others(right)) if pair.differs
        ),
        data=_paired(_data(left), _data(right)),
        cost=_paired(_cost(left), _cost(right)),
        lists=about,
        samples=people,
    )
    return _concluded(page)


def _concluded(page: VersionsPage) -> VersionsPage:
    """Add the sentence: what the footings found, or that there is none to stand on."""
    parts = [
        text for comparison in page.footings if (text := comparison_sentence(page, comparison))
    ]
    nothing = "the two were never judged on the same people by the same truth"
    sentence = "; ".join(parts or [nothing])
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
        judged=judged_on(version),
        run_id=night.run_id,
        commit=night.snapshot.commit[:12],
    )


def _weeks(left: Version, right: Version) -> str:
    if same_holdout(left, right):
        return "Both were judged by the same days, so the figures can be held against each other."
    return (
        f"Version {left.number} was judged by {judged_on(left)}, version {right.number} by "
        f"{judged_on(right)}: the figures are of different days and must not be subtracted."
    )


def _settings(version: Version) -> Facts:
    return {"recipe": version.name, **hyper_parameters(version.night.recipes[version.name])}


def _others(version: Version) -> Facts:
    """Name what the night's config says beside recipes: weights of events as they were chosen."""
    config = dump(version.night.config)
    return flat(
        {name: part for name, part in config.items() if name not in ("recipes", "registry", "gc")}
    )


def _data(version: Version) -> Facts:
    night = version.night
    split = night.run.read(SplitFile)
    tables: Facts = {}
    for table, count in night.run.read(TablesFile).rows.items():
        tables[f"{table}: lake version"] = night.snapshot.versions[table]
        tables[f"{table}: rows"] = f"{count:,}"
    return {
        **tables,
        "learnt from": str(Interval(split.train.start, night.as_of)),
        "judged after learning until": format_instant(split.holdout.start),
        "holdout": str(split.holdout),
        "holdout, days": split.holdout_days,
        "people judged": f"{night.run.manifest('evaluate')['rows']:,}",
        "lists may hold what people had": "yes" if split.task == "repeat" else "no",
        "what counts": ", ".join(split.target_kinds),
        "list length": night.config.recommend.length,
    }


def _cost(version: Version) -> Facts:
    steps = {"to be judged": train_step(version.name), "for people": REFIT}
    rows = {}
    for purpose, step in steps.items():
        cost = version.night.run.find(CostFile, step)
        if cost is not None:
            rows[f"trained {purpose}, seconds"] = f"{cost.fit_seconds:,.2f}"
            rows[f"trained {purpose}, CPU seconds"] = f"{cost.fit_cpu_seconds:,.2f}"
            rows[f"trained {purpose}, memory, MB"] = f"{cost.peak_mb:,.0f}"
            rows[f"trained {purpose}, parameters"] = f"{cost.parameters:,}"
            rows[f"trained {purpose}, events a second"] = f"{cost.examples_per_second:,.0f}"
    return rows


def _paired(left: Facts, right: Facts) -> tuple[Pair, ...]:
    """Line up two sets of named values, in the order of the left one, then of the right one."""
    names = dict.fromkeys([*left, *right])
    return tuple(Pair(n, _text(left.get(n)), _text(right.get(n))) for n in names)


def _text(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_text(entry) for entry in value) or "none"
    return str(value)
