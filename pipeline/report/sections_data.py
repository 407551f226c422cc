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
from pipeline.report import wording
from pipeline.report.markup import cards, facts, folded, section, table, verdict
from pipeline.report.night import Dated, NightPage, PastParity
from pipeline.workspace.artifacts import ChurnFile, CleanFile, CostFile

_CHECKS = ("Result", "Check", "Figure|n", "Bound|n", "|wholly")


def reach(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write how much of the catalogue is recommended, and how unevenly."""
    coverage, diversity = page.values(COVERAGE), page.values(DIVERSITY)
    gini, novelty = page.values(GINI), page.values(NOVELTY)
    head = ("Recipe|name", "Coverage|n", "Gini|n", "Novelty, bits|n", "Diversity|n")
    body = [
        (
            name,
            wording.share(coverage[name]),
            wording.number(gini.get(name)),
            wording.number(novelty.get(name)),
            wording.share(diversity.get(name)),
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
    numbers = folded("In numbers", table(head, body, lead=page.decision.recipe))
    return section("What gets recommended", about, drawn, numbers if drawn else "")


def churn(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what changed for people who did nothing."""
    head = ("Night|name", "People|n", "Stayed|n", "Changed for", "By another salt|n", "|wholly")
    about = (
        "Lists of people who did nothing since the last publication should change only for a "
        "cause. By another salt: what would change for the luck of training alone."
    )
    drawn, numbers = cards(pictures, "churn.svg"), table(head, map(_churn_cells, page.churn[::-1]))
    if drawn:
        numbers = folded("In numbers", numbers)
    return section("What changed for people who did nothing", about, drawn, numbers)


def folds(page: NightPage) -> str:
    """Write how near lists that were folded in came to those of a new training."""
    label = wording.metric_label(page.metric)
    kinds = (f"{label}, folded in|n", f"{label}, trained again|n")
    head = ("Night|name", "People|n", "In common|n", *kinds, "|wholly")
    about = (
        "People who did something between two trainings: the old model's lists for all they did, "
        "against the new model's. In common: of the first ten. The last two figures are of what "
        "they did afterwards."
    )
    title = "What folding in between nights is worth"
    return section(title, about, table(head, map(_parity_cells, page.parity[::-1])))


def live(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what people did with the lists that were live."""
    newest = max((as_of for as_of, _ in page.live), default=None)
    label = wording.metric_label(page.metric)
    head = (
        "Group|name", "Version", "People|n", "Events|n", "Hit rate|n", f"{label}|n",
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
        "Each new event against the list that was live at its instant: what lists were worth to "
        "those who saw them. Without patches: had nothing been refreshed during the day."
    )
    drawn = cards(pictures, "live.svg") if body else ""
    return section("What people did with the live lists", about, drawn, table(head, body))


def data(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what the night read, what was wrong with it, and what was done about it."""
    rows, split = page.tables.rows, page.split
    tables = [
        (name, wording.number(version), wording.number(rows[name]))
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
        table(("Table|name", "Lake version|n", "Rows read|n"), tables),
        _quarantine(page, pictures),
        _cleaned(page.cleaning),
        _checks(page.checks),
    )


def cost(page: NightPage) -> str:
    """Write what training took, and what a point of gain costs."""
    head = (
        "What training took|name", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events a second|n", "On", "CPU seconds for each +1 %|n",
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
    about = "The last column: CPU seconds ÷ lift over the best baseline, in percent."
    return section("Cost", about, table(head, body))


def _churn_cells(row: Dated[ChurnFile]) -> tuple[str, ...]:
    as_of, churn = row
    lost = sorted(churn.first.lost.items(), key=lambda cause: (-cause[1], cause[0]))
    causes = [f"{wording.plain(name)} {wording.share(part)}" for name, part in lost if part]
    return (
        _day(as_of),
        f"{churn.users:,}",
        wording.share(churn.first.overlap),
        ", ".join(causes) or wording.NONE,
        wording.share(churn.seed_noise.rate),
        churn.seed_noise.reason or "",
    )


def _parity_cells(row: PastParity) -> tuple[str, ...]:
    as_of, parity, followed = row
    folded, retrained = (None, None) if followed is None else (followed.folded, followed.retrained)
    return (
        _day(as_of),
        f"{parity.users:,}",
        wording.share(parity.overlap),
        wording.figure(None if folded is None else folded.ndcg),
        wording.figure(None if retrained is None else retrained.ndcg),
        parity.reason or "",
    )


def _day(as_of: datetime) -> str:
    return f"{wording.day(as_of)} {as_of.year}"


def _quarantine(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    if page.quarantined is None:
        return ""
    if not page.quarantined:
        return "<h3>Quarantine</h3><p class=about>✓ No row is in quarantine.</p>"
    ordered = sorted(page.quarantine_reasons.items(), key=lambda reason: (-reason[1], reason[0]))
    body = [(wording.plain(reason), f"{count:,}") for reason, count in ordered]
    numbers = folded("In numbers", table(("Reason|name", "Rows|n"), body))
    return f"<h3>Quarantine</h3>{cards(pictures, 'reasons.svg')}{numbers}"


def _cleaned(cleaning: CleanFile) -> str:
    counts = ("Rows|n", "Missing|n", "Filled|n", "Outliers|n", "Taken out|n")
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


def _checks(checks: Sequence[DataCheck]) -> str:
    passed = [row for row in checks if row.status == Status.PASSED]
    first = table(_CHECKS, (_check_cells(row) for row in checks if row.status != Status.PASSED))
    return (f"<h3>Checks to look at</h3>{first}" if first else "") + folded(
        f"{len(passed)} of {len(checks)} checks of the data passed",
        table(_CHECKS, map(_check_cells, passed)),
    )


def _check_cells(row: DataCheck) -> tuple[str, ...]:
    return (
        verdict(row.status),
        wording.plain(row.name),
        wording.number(row.figure),
        wording.number(row.bound),
        row.sentence,
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
        return wording.NONE
    if gain <= 0:
        return "no gain"
    price = cost.fit_cpu_seconds / (100 * gain)
    return f"{price:,.2f}" if price >= 0.005 else "under 0.01"
