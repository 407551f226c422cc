"""The parts of a page about lists, data and cost: what is shown to whom, from what, at what price.

Guarantees: as `sections`; what was not measured is left out, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline.base import format_instant
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.prequential import LiveFigures, PrequentialFigures
from pipeline.report import titles, wording
from pipeline.report.markup import cards, cell, facts, folded, section, table, verdict
from pipeline.report.night import NightPage
from pipeline.report.past import Dated, PastParity
from pipeline.workspace.artifacts import ChurnFile, CleanFile, CostFile

_CHECKS = ("Result", "Check", "Figure|n", "Bound|n", "")
_NONE = "–"


def reach(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write how much of the catalogue is recommended, and how unevenly."""
    coverage, diversity = page.values(COVERAGE), page.values(DIVERSITY)
    gini, novelty = page.values(GINI), page.values(NOVELTY)
    head = ("Recipe", "Coverage|n", "Gini|n", "Novelty, bits|n", "Diversity|n")
    body = [
        (
            "lead" if name == page.decision.recipe else "",
            (
                cell(name, "name"),
                cell(titles.share(coverage[name]), "n"),
                cell(wording.number(gini.get(name)), "n"),
                cell(wording.number(novelty.get(name)), "n"),
                cell(_share(diversity.get(name)), "n"),
            ),
        )
        for name in page.ranked
        if name in coverage
    ]
    about = (
        "Coverage is the share of the catalogue that is recommended to anybody. Gini is 0 where "
        "all items are recommended alike and 1 where one takes it all; novelty is low where "
        "everybody is shown what everybody buys; diversity is the share of the pairs in a list "
        "that have no category in common."
    )
    drawn = cards(pictures, "reach.svg")
    return section(
        "What gets recommended",
        about,
        drawn,
        folded("In numbers", table(head, body)) if drawn else "",
    )


def churn(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what changed for people who did nothing."""
    head = ("Night", "People|n", "Stayed|n", "Changed for", "By another salt|n", "")
    body = [("", _churn_cells(row)) for row in reversed(page.churn)]
    about = (
        "Lists of people who did nothing since the last publication should change only for a "
        "cause. By another salt: what would change for the luck of training alone."
    )
    drawn, numbers = cards(pictures, "churn.svg"), table(head, body)
    if drawn:
        numbers = folded("In numbers", numbers)
    return section("What changed for people who did nothing", about, drawn, numbers)


def folds(page: NightPage) -> str:
    """Write how near lists that were folded in came to those of a new training."""
    if not page.parity:
        return ""
    label = wording.metric_label(page.metric)
    kinds = (f"{label}, folded in|n", f"{label}, trained again|n")
    head = ("Night", "People|n", "In common|n", *kinds, "")
    about = (
        "People who did something between two trainings: the old model's lists for all they did, "
        "against the new model's. In common: of the first ten. The last two figures are of what "
        "they did afterwards."
    )
    body = [("", _parity_cells(row)) for row in reversed(page.parity)]
    return section("What folding in between nights is worth", about, table(head, body))


def live(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what people did with the lists that were live."""
    if not page.live:
        return ""
    newest = max(as_of for as_of, _ in page.live)
    rows = [row for as_of, row in page.live if as_of == newest]
    label = wording.metric_label(page.metric)
    head = (
        "Group", "Version", "People|n", "Events|n", "Hit rate|n", f"{label}|n", "95 % interval|n",
        "Without patches|n",
    )  # fmt: skip
    about = (
        "Each new event against the list that was live at its instant: what lists were worth to "
        "those who saw them. Without patches: had nothing been refreshed during the day."
    )
    return section(
        "What people did with the live lists",
        about,
        cards(pictures, "live.svg"),
        table(head, [("", _live_cells(row)) for row in rows]),
    )


def data(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what the night read, what was wrong with it, and what was done about it."""
    rows, split = page.tables.rows, page.split
    tables = [
        (
            "",
            (
                cell(name, "name"),
                cell(wording.number(version), "n"),
                cell(wording.number(rows[name]), "n"),
            ),
        )
        for name, version in page.versions.items()
        if version is not None and name in rows
    ]
    cutoff = format_instant(split.holdout.start)
    about = (
        ("learnt from", str(split.train)),
        ("judged on", f"the {split.holdout_days} days from {cutoff} on"),
        ("people judged", f"{page.users:,}"),
        ("task", split.task),
        ("what counts", ", ".join(split.target_kinds)),
    )
    return section(
        "Data",
        "",
        facts(about),
        table(("Table", "Lake version|n", "Rows read|n"), tables),
        _quarantine(page.quarantined, page.quarantine_reasons, pictures),
        _cleaned(page.cleaning),
        _checks(page.checks),
    )


def cost(page: NightPage) -> str:
    """Write what training took, and what a point of gain costs."""
    head = (
        "What training took", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events a second|n", "On", "CPU seconds for each +1 %|n",
    )  # fmt: skip
    rows = sorted(page.costs.items(), key=lambda cost: (-cost[1].fit_seconds, cost[0]))
    gains = _gains(page)
    about = "The last column: CPU seconds ÷ lift over the best baseline, in percent."
    return section("Cost", about, table(head, [("", _cost_cells(*row, gains)) for row in rows]))


def _churn_cells(row: Dated[ChurnFile]) -> tuple[str, ...]:
    as_of, churn = row
    lost = sorted(churn.first.lost.items(), key=lambda cause: (-cause[1], cause[0]))
    causes = [f"{wording.plain(name)} {titles.share(part)}" for name, part in lost if part]
    return (
        cell(_day(as_of), "name"),
        cell(f"{churn.users:,}", "n"),
        cell(_share(churn.first.overlap), "n"),
        cell(", ".join(causes) or _NONE),
        cell(_share(churn.seed_noise.rate), "n"),
        cell(churn.seed_noise.reason or "", "wholly"),
    )


def _parity_cells(row: PastParity) -> tuple[str, ...]:
    as_of, parity, followed = row
    return (
        cell(_day(as_of), "name"),
        cell(f"{parity.users:,}", "n"),
        cell(_share(parity.overlap), "n"),
        cell(_ndcg(None if followed is None else followed.folded), "n"),
        cell(_ndcg(None if followed is None else followed.retrained), "n"),
        cell(parity.reason or "", "wholly"),
    )


def _live_cells(row: LiveFigures) -> tuple[str, ...]:
    lo, hi = row.ndcg_lo, row.ndcg_hi
    return (
        cell(wording.plain(row.slice), "name"),
        cell(row.model_version),
        cell(f"{row.users:,}", "n"),
        cell(f"{row.events:,}", "n"),
        cell(_share(row.hit_rate), "n"),
        cell(_figure(row.ndcg), "n"),
        cell(_NONE if lo is None or hi is None else f"{lo:.4f} to {hi:.4f}", "n"),
        cell(_figure(row.base_only_ndcg), "n"),
    )


def _day(as_of: datetime) -> str:
    return f"{titles.day(as_of)} {as_of.year}"


def _share(value: float | None) -> str:
    return _NONE if value is None else titles.share(value)


def _figure(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _ndcg(row: PrequentialFigures | None) -> str:
    return _figure(None if row is None else row.ndcg)


def _quarantine(rows: int | None, reasons: Mapping[str, int], pictures: Mapping[str, bytes]) -> str:
    if rows is None:
        return ""
    if not rows:
        return "<h3>Quarantine</h3><p class=about>✓ No row is in quarantine.</p>"
    ordered = sorted(reasons.items(), key=lambda reason: (-reason[1], reason[0]))
    body = [
        ("", (cell(wording.plain(reason), "name"), cell(f"{count:,}", "n")))
        for reason, count in ordered
    ]
    drawn = cards(pictures, "reasons.svg")
    numbers = folded("In numbers", table(("Reason", "Rows|n"), body))
    return f"<h3>Quarantine</h3>{drawn}{numbers}"


def _cleaned(cleaning: CleanFile) -> str:
    head = ("Column", "Table", "Rows|n", "Missing|n", "Filled|n", "Outliers|n", "Taken out|n")
    body = [
        (
            "",
            (
                cell(column.column, "name"),
                cell(name),
                *(
                    cell(f"{count:,}", "n")
                    for count in (
                        report.rows_in,
                        column.missing,
                        column.filled,
                        column.below + column.above,
                        column.quarantined,
                    )
                ),
            ),
        )
        for name, report in cleaning.tables.items()
        for column in report.columns
    ]
    return f"<h3>Missing values and outliers</h3>{table(head, body)}" if body else ""


def _checks(checks: Sequence[DataCheck]) -> str:
    passed = [row for row in checks if row.status == Status.PASSED]
    others = [row for row in checks if row.status != Status.PASSED]
    first = table(_CHECKS, [("", _check_cells(row)) for row in others])
    return (f"<h3>Checks to look at</h3>{first}" if first else "") + folded(
        f"{len(passed)} of {len(checks)} checks of the data passed",
        table(_CHECKS, [("", _check_cells(row)) for row in passed]),
    )


def _check_cells(row: DataCheck) -> tuple[str, ...]:
    return (
        verdict(row.status),
        cell(wording.plain(row.name)),
        cell(wording.number(row.figure), "n"),
        cell(wording.number(row.bound), "n"),
        cell(row.sentence, "wholly"),
    )


def _cost_cells(name: str, cost: CostFile, gains: Mapping[str, float]) -> tuple[str, ...]:
    return (
        cell(name, "name"),
        cell(f"{cost.fit_seconds:,.2f}", "n"),
        cell(f"{cost.fit_cpu_seconds:,.2f}", "n"),
        cell(f"{cost.peak_mb:,.1f}", "n"),
        cell(wording.number(cost.parameters), "n"),
        cell(f"{cost.examples_per_second:,.0f}", "n"),
        cell(cost.trained_on),
        cell(_price(cost, gains.get(name)), "n"),
    )


def _gains(page: NightPage) -> dict[str, float]:
    """Return the lift of each recipe that is no baseline over the best baseline's mean."""
    means = page.values(NDCG)
    level = max((means[name] for name in page.baselines if name in means), default=0.0)
    if level <= 0:
        return {}
    return {name: mean / level - 1 for name, mean in means.items() if name not in page.baselines}


def _price(cost: CostFile, gain: float | None) -> str:
    """Return CPU seconds for each percent of lift over the best baseline."""
    if gain is None:
        return _NONE
    if gain <= 0:
        return "no gain"
    price = cost.fit_cpu_seconds / (100 * gain)
    return f"{price:,.2f}" if price >= 0.005 else "under 0.01"
