"""Tables of a page about lists, data and training cost.

Guarantees: a figure that was not measured is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.base import format_instant
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY, SERENDIPITY
from pipeline.evaluation.evaluate import NDCG
from pipeline.report import wording
from pipeline.report.markup import Row, Table, verdict
from pipeline.report.night import Dated, NightPage, PastParity
from pipeline.workspace.artifacts import CostFile
from pipeline.workspace.release_artifacts import ChurnFile

_CHECKS = ("Outcome", "Check", "Value|n", "Bound|n", "|wholly")


def reach_table(page: NightPage) -> Table:
    """Return coverage, Gini index, novelty, diversity and serendipity of each recipe's lists."""
    coverage, diversity = page.values(COVERAGE), page.values(DIVERSITY)
    gini, novelty, serendipity = map(page.values, (GINI, NOVELTY, SERENDIPITY))
    beyond = ("Novelty, bits|n", "Diversity|n", "Serendipity|n")
    body = [
        (
            name,
            wording.share(coverage[name]),
            wording.number(gini.get(name)),
            wording.number(novelty.get(name)),
            wording.share(diversity.get(name)),
            wording.share(serendipity.get(name)),
        )
        for name in page.ranked
        if name in coverage
    ]
    return Table(("Recipe|name", "Coverage|n", "Gini|n", *beyond), body, lead=page.decision.recipe)


def churn_table(page: NightPage) -> Table:
    """Return the churn of each promotion for users without new events, newest first."""
    head = ("Run|name", "Users|n", "Stability|n", "Causes of changes", "Seed noise|n", "|wholly")
    return Table(head, map(_churn_cells, page.churn[::-1]))


def parity_table(page: NightPage) -> Table:
    """Return the overlap and the quality of folded-in and retrained lists, newest first."""
    label = wording.metric_label(page.metric)
    kinds = (f"{label}, fold-in|n", f"{label}, retrained|n")
    head = ("Run|name", "Users|n", "Overlap|n", *kinds, "|wholly")
    return Table(head, map(_parity_cells, page.parity[::-1]))


def live_table(page: NightPage) -> Table:
    """Return the prequential scores of the newest run by user group."""
    # The figure shows earlier runs; the table has the newest only.
    newest = max((as_of for as_of, _ in page.live), default=None)
    label = wording.metric_label(page.metric)
    head = (
        "Group|name", "Version", "Users|n", "Events|n", "Hit rate|n", f"{label}|n",
        "95 % interval|n", "Without patches|n",
    )  # fmt: skip
    body = [
        (
            wording.plain(row.slice),
            row.model_version,
            f"{row.users:,}",
            f"{row.events:,}",
            wording.share(row.hit_rate),
            wording.figure(row.ndcg),
            wording.span(row.ndcg_lo, row.ndcg_hi),
            wording.figure(row.base_only_ndcg),
        )
        for as_of, row in page.live
        if as_of == newest
    ]
    return Table(head, body)


def data_facts(page: NightPage) -> list[tuple[str, str]]:
    """Return names and values of the windows and of the task."""
    split = page.split
    return [
        ("data known by", page.known.text),
        ("training window", str(split.train)),
        ("holdout", f"{split.holdout_days} days from {format_instant(split.holdout.start)}"),
        ("evaluated users", f"{page.users:,}"),
        ("task", split.task),
        ("target events", ", ".join(split.target_kinds)),
    ]


def lake_table(page: NightPage) -> Table:
    """Return the tables that the run read."""
    rows = page.tables.rows
    body = [
        (name, wording.number(version), wording.number(rows[name]))
        for name, version in page.versions.items()
        if version is not None and name in rows
    ]
    return Table(("Table|name", "Lake version|n", "Rows read|n"), body)


def quarantine_table(page: NightPage) -> Table:
    """Return rows in quarantine by reason, the most frequent first."""
    ordered = sorted(page.quarantine_reasons.items(), key=lambda reason: (-reason[1], reason[0]))
    body = [(wording.plain(reason), f"{count:,}") for reason, count in ordered]
    return Table(("Reason|name", "Rows|n"), body)


def cleaning_table(page: NightPage) -> Table:
    """Return the effect of cleaning on each column."""
    counts = ("Rows|n", "Missing|n", "Filled|n", "Outliers|n", "Removed|n")
    body = [
        (
            column.column,
            name,
            f"{report.rows_in:,}",
            f"{column.missing:,}",
            f"{column.filled:,}",
            f"{column.below + column.above:,}",
            f"{column.quarantined:,}",
        )
        for name, report in page.cleaning.tables.items()
        for column in report.columns
    ]
    return Table(("Column|name", "Table", *counts), body)


def check_tables(page: NightPage) -> tuple[Table, Table]:
    """Return the checks of the data without a result, and those that passed.

    Failed checks are among the rules of the gate, as causes of the block.
    """
    passed = [row for row in page.checks if row.status == Status.PASSED]
    causes = {rule.name for rule in page.decision.rules if rule.outcome == "fail"}
    others = [row for row in page.checks if row not in passed and f"check.{row.name}" not in causes]
    return check_table(others), check_table(passed)


def check_table(checks: Iterable[DataCheck]) -> Table:
    """Return checks of the data, each with its value and its bound."""
    return Table(_CHECKS, map(_check_cells, checks))


def cost_table(page: NightPage) -> Table:
    """Return the cost of each training, and the CPU seconds per percent of lift."""
    head = (
        "Recipe|name", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events per second|n", "Device", "CPU seconds per +1 %|n",
    )  # fmt: skip
    gains = _gains(page)
    body = [
        (
            name,
            f"{cost.fit_seconds:,.2f}",
            f"{cost.fit_cpu_seconds:,.2f}",
            f"{cost.peak_mb:,.1f}",
            wording.number(cost.parameters),
            f"{cost.examples_per_second:,.0f}",
            cost.trained_on + (f"; GPU not used: {cost.gpu_cause}" if cost.gpu_cause else ""),
            _price(cost, gains.get(name)),
        )
        for name, cost in sorted(page.costs.items(), key=lambda row: (-row[1].fit_seconds, row[0]))
    ]
    return Table(head, body)


def _churn_cells(row: Dated[ChurnFile]) -> Row:
    as_of, churn = row
    lost = sorted(churn.first.lost.items(), key=lambda cause: (-cause[1], cause[0]))
    causes = [f"{wording.plain(name)} {wording.share(part)}" for name, part in lost if part]
    return (
        f"{wording.day(as_of)} {as_of.year}",
        f"{churn.users:,}",
        wording.share(churn.first.overlap),
        ", ".join(causes) or wording.NONE,
        wording.share(churn.seed_noise.rate),
        wording.sentence(churn.seed_noise.reason or ""),
    )


def _parity_cells(row: PastParity) -> Row:
    as_of, parity, followed = row
    folded, retrained = (None, None) if followed is None else (followed.folded, followed.retrained)
    return (
        f"{wording.day(as_of)} {as_of.year}",
        f"{parity.users:,}",
        wording.share(parity.overlap),
        wording.figure(None if folded is None else folded.ndcg),
        wording.figure(None if retrained is None else retrained.ndcg),
        wording.sentence(parity.reason or ""),
    )


def _check_cells(row: DataCheck) -> Row:
    return (
        verdict(row.status),
        wording.check_title(row.name),
        wording.check_value(row.name, row.figure),
        wording.check_value(row.name, row.bound),
        wording.sentence(wording.without_id(row.sentence, row.name)),
    )


def _gains(page: NightPage) -> dict[str, float]:
    """Return the lift of each learned recipe over the best baseline."""
    means = page.values(NDCG)
    # Baselines cost next to nothing, so the price counts the lift over the best of them.
    level = max((means[name] for name in page.baselines if name in means), default=0.0)
    if level <= 0:
        return {}
    return {name: mean / level - 1 for name, mean in means.items() if name not in page.baselines}


def _price(cost: CostFile, gain: float | None) -> str:
    """Return CPU seconds per percent of lift over the best baseline."""
    if gain is None:
        return wording.NONE
    if gain <= 0:
        return "no gain"
    # Rounded to 0.00 a price would look like no cost.
    price = cost.fit_cpu_seconds / (100 * gain)
    return f"{price:,.2f}" if price >= 0.005 else "under 0.01"
