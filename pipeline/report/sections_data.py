"""Sections of a page about lists, data and training cost.

Guarantees: as `sections`; a figure that was not measured is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.base import format_instant
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY, SERENDIPITY
from pipeline.evaluation.evaluate import NDCG
from pipeline.report import wording
from pipeline.report.markup import cards, facts, folded, section, table, verdict
from pipeline.report.night import Dated, NightPage, PastParity
from pipeline.workspace.artifacts import ChurnFile, CleanFile, CostFile

_CHECKS = ("Outcome", "Check", "Value|n", "Bound|n", "|wholly")


def reach(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return coverage, Gini index, novelty, diversity and serendipity of each recipe's lists.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    coverage, diversity = page.values(COVERAGE), page.values(DIVERSITY)
    gini, novelty, serendipity = map(page.values, (GINI, NOVELTY, SERENDIPITY))
    beyond = ("Novelty, bits|n", "Diversity|n", "Serendipity|n")
    head = ("Recipe|name", "Coverage|n", "Gini|n", *beyond)
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
    about = (
        "Coverage: share of the catalogue in at least one list. Gini index: 0 if all items are "
        "recommended equally often, 1 if one item fills all lists. Novelty: mean information "
        "content of an entry, low for popular items. Diversity: share of the pairs of entries "
        "without a common category. Serendipity: share of the entries that are targets, but not "
        "popular items or items that the user had."
    )
    drawn = cards(pictures, "reach.svg")
    numbers = folded("In numbers", table(head, body, lead=page.decision.recipe))
    return section("Coverage and diversity", about, drawn, numbers if drawn else "")


def churn(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the churn of each promotion for users without new events.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    head = ("Run|name", "Users|n", "Stability|n", "Causes of changes", "Seed noise|n", "|wholly")
    about = (
        "Stability: share of the first entries that stay for users without new events since the "
        "last publication. Seed noise: share that a training with another seed changes."
    )
    drawn, numbers = cards(pictures, "churn.svg"), table(head, map(_churn_cells, page.churn[::-1]))
    if drawn:
        numbers = folded("In numbers", numbers)
    return section("List stability", about, drawn, numbers)


def folds(page: NightPage) -> str:
    """Return the overlap and the quality of folded-in and retrained lists."""
    label = wording.metric_label(page.metric)
    kinds = (f"{label}, fold-in|n", f"{label}, retrained|n")
    head = ("Run|name", "Users|n", "Overlap|n", *kinds, "|wholly")
    about = (
        "Users with events between two trainings: lists that the previous model made by fold-in, "
        "compared with lists of the retrained model. Overlap: share of the first ten entries. "
        f"{label}: prequential scores of both until the next run."
    )
    title = "Fold-in compared with retraining"
    return section(title, about, table(head, map(_parity_cells, page.parity[::-1])))


def live(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the prequential scores of the newest run by user group.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
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
    about = (
        "Each new event is scored against the list that was live at its timestamp. Without "
        "patches: score of the base lists, without the fold-in of the day."
    )
    drawn = cards(pictures, "live.svg") if body else ""
    return section("Live quality", about, drawn, table(head, body))


def data(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the tables that the run read, their quarantine, cleaning and checks.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    rows, split = page.tables.rows, page.split
    tables = [
        (name, wording.number(version), wording.number(rows[name]))
        for name, version in page.versions.items()
        if version is not None and name in rows
    ]
    cutoff = format_instant(split.holdout.start)
    about = (
        ("data known by", page.known.text),
        ("training window", str(split.train)),
        ("holdout", f"{split.holdout_days} days from {cutoff}"),
        ("evaluated users", f"{page.users:,}"),
        ("task", split.task),
        ("target events", ", ".join(split.target_kinds)),
    )
    return section(
        "Data",
        "",
        facts(about),
        table(("Table|name", "Lake version|n", "Rows read|n"), tables),
        _quarantine(page, pictures),
        _cleaned(page.cleaning),
        _checks(page),
    )


def cost(page: NightPage) -> str:
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
            cost.trained_on,
            _price(cost, gains.get(name)),
        )
        for name, cost in sorted(page.costs.items(), key=lambda row: (-row[1].fit_seconds, row[0]))
    ]
    about = "Last column: CPU seconds ÷ lift over the best baseline in percent."
    return section("Training cost", about, table(head, body))


def _churn_cells(row: Dated[ChurnFile]) -> tuple[str, ...]:
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


def _parity_cells(row: PastParity) -> tuple[str, ...]:
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


def _quarantine(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    if page.quarantined is None:
        return ""
    if not page.quarantined:
        return "<h3>Quarantine</h3><p class=about>✓ No rows in quarantine.</p>"
    ordered = sorted(page.quarantine_reasons.items(), key=lambda reason: (-reason[1], reason[0]))
    body = [(wording.plain(reason), f"{count:,}") for reason, count in ordered]
    numbers = folded("In numbers", table(("Reason|name", "Rows|n"), body))
    return f"<h3>Quarantine</h3>{cards(pictures, 'reasons.svg')}{numbers}"


def _cleaned(cleaning: CleanFile) -> str:
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
        for name, report in cleaning.tables.items()
        for column in report.columns
    ]
    title = "<h3>Missing values and outliers</h3>"
    return title + table(("Column|name", "Table", *counts), body) if body else ""


def _checks(page: NightPage) -> str:
    checks = page.checks
    passed = [row for row in checks if row.status == Status.PASSED]
    # Failed checks stand among the rules of the gate, as causes of the block.
    causes = {rule.name for rule in page.decision.rules if rule.outcome == "fail"}
    others = [row for row in checks if row not in passed and f"check.{row.name}" not in causes]
    first = table(_CHECKS, map(_check_cells, others))
    return (f"<h3>Checks without a result</h3>{first}" if first else "") + folded(
        f"{len(passed)} of {len(checks)} checks of the data passed",
        table(_CHECKS, map(_check_cells, passed)),
    )


def _check_cells(row: DataCheck) -> tuple[str, ...]:
    return (
        verdict(row.status),
        wording.check_title(row.name),
        wording.number(row.figure),
        wording.number(row.bound),
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
