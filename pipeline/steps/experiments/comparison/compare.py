"""Two versions side by side: what each is, what its night found, and both on one footing.

Promises: what is subtracted was judged on the same people by the same truth, by scorers that saw
nothing of the holdout; where that cannot be, it is said why; nothing of the workspace changes but
the page and its copies in MLflow, which are the same however often they are made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base import Progress, format_instant, silent
from pipeline.errors import ConfigError, RegistryError
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.report.pair import Pair, VersionRow, VersionsPage
from pipeline.report.versions import footing_sentence, versions_page
from pipeline.steps.diagnostics.training_cost import REFIT, read_cost
from pipeline.steps.experiments.comparison.paired import footings, judged_on, metrics, same_holdout
from pipeline.steps.experiments.comparison.samples import samples
from pipeline.steps.reporting.page_files import put
from pipeline.workspace.config import dump
from pipeline.workspace.night import train_folder
from pipeline.workspace.registry import registry
from pipeline.workspace.versions import Version, find, flat, hyper_parameters
from pipeline.workspace.workspace import Workspace

NONE = "–"


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

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: the figures of the page; `rows` are the metrics."""
        told = asdict(self.page)
        return {
            "versions": [told.pop("left"), told.pop("right")],
            "rows": told.pop("metrics"),
            **told,
            "page": str(self.path),
            "fault": self.fault,
        }

    def text(self) -> str:
        """As lines for a person."""
        page = self.page
        told = [f"{row.label}: {row.recipe}, as-of {row.as_of}" for row in (page.left, page.right)]
        told += [page.sentence, page.weeks]
        told += [f"{f.title}: {f.about}" for f in page.footings if not f.rows]
        return "\n".join([*told, f"page: {self.path}"])


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
        raise ConfigError(f"version {left} is compared with itself; name two versions")
    one, two = find(ws, left), find(ws, right)
    page = gather(ws, one, two, progress)
    name = f"compare-{left}-{right}.html"
    path = out or ws.home / "reports" / name
    text = versions_page(page).encode()
    put(path, text)
    fault = None
    progress("MLflow: the page at both versions")
    try:
        registry(ws).add_page((left, right), name, text)
    except RegistryError as error:
        fault = error.sentence
    return Comparison(page, path, fault)


def gather(ws: Workspace, left: Version, right: Version, progress: Progress) -> VersionsPage:
    """Gather the page of two versions."""
    metric = metric_name(NDCG, right.night.config.recommend.length)
    found = footings(left, right, progress)
    progress("sample lists")
    about, people = samples(ws, left, right)
    page = VersionsPage(
        left=_row(left),
        right=_row(right),
        metric=metric,
        sentence="",
        weeks=_weeks(left, right),
        footings=found,
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
    told = [text for footing in page.footings if (text := footing_sentence(page, footing))]
    nothing = "the two were never judged on the same people by the same truth"
    sentence = "; ".join(told or [nothing])
    return replace(page, sentence=f"{sentence[0].upper()}{sentence[1:]}.")


def _row(version: Version) -> VersionRow:
    night = version.night
    line = version.publication
    return VersionRow(
        number=version.number,
        recipe=version.name,
        as_of=format_instant(night.as_of),
        decision=version.decision["kind"],
        sentence=version.decision["sentence"],
        trained_on=night.run.json("refit", "recipe")["trained_on"],
        live="never" if line is None else f"from {line['live_from']} on ({line['publication_id']})",
        judged=judged_on(version),
        run_id=night.run.run_id,
        commit=night.facts["commit"][:12],
    )


def _weeks(left: Version, right: Version) -> str:
    if same_holdout(left, right):
        return "Both were judged by the same days, so the figures can be held against each other."
    return (
        f"Version {left.number} was judged by {judged_on(left)}, version {right.number} by "
        f"{judged_on(right)}: the figures are of different days and must not be subtracted."
    )


def _settings(version: Version) -> dict[str, Any]:
    return {"recipe": version.name, **hyper_parameters(version.night.recipes[version.name])}


def _others(version: Version) -> dict[str, Any]:
    """Name what the night's config says beside recipes: weights of events as they were chosen."""
    config = dump(version.night.config)
    return flat(
        {name: part for name, part in config.items() if name not in ("recipes", "registry", "gc")}
    )


def _data(version: Version) -> dict[str, Any]:
    night = version.night
    split, rows = night.run.json("features", "split"), night.run.json("features", "tables")
    tables: dict[str, Any] = {}
    for table, count in rows.items():
        tables[f"{table}: lake version"] = night.versions[table]
        tables[f"{table}: rows"] = f"{count:,}"
    end = format_instant(night.as_of)
    return {
        **tables,
        "learnt from": f"{split['train'][0]} to {end}",
        "judged after learning until": split["holdout"][0],
        "holdout": f"{split['holdout'][0]} to {split['holdout'][1]}",
        "holdout, days": split["block_days"],
        "people judged": f"{night.run.manifest('evaluate')['rows']:,}",
        "lists may hold what people had": "yes" if split["policy"] == "repeat" else "no",
        "what counts": ", ".join(split["target_kinds"]),
        "list length": night.config.recommend.length,
    }


def _cost(version: Version) -> dict[str, Any]:
    steps = {"to be judged": train_folder(version.name), "for people": REFIT}
    told = {}
    for what, step in steps.items():
        cost = read_cost(version.night.run, step)
        if cost is not None:
            told[f"trained {what}, seconds"] = f"{cost.fit_seconds:,.2f}"
            told[f"trained {what}, CPU seconds"] = f"{cost.fit_cpu_seconds:,.2f}"
            told[f"trained {what}, memory, MB"] = f"{cost.peak_mb:,.0f}"
            told[f"trained {what}, parameters"] = f"{cost.parameters:,}"
            told[f"trained {what}, events a second"] = f"{cost.examples_per_second:,.0f}"
    return told


def _paired(left: dict[str, Any], right: dict[str, Any]) -> tuple[Pair, ...]:
    """Line up two sets of named values, in the order of the left one, then of the right one."""
    names = dict.fromkeys([*left, *right])
    return tuple(Pair(n, _told(left.get(n)), _told(right.get(n))) for n in names)


def _told(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_told(one) for one in value) or "none"
    return str(value)
