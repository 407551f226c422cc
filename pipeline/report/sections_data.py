"""The parts of a page about lists, data and cost: what is shown to whom, from what, at what price.

Promises: as `sections`; what was not measured is left out, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.report import titles, wording
from pipeline.report.markup import cards, cell, facts, folded, section, table, verdict
from pipeline.report.night import CheckRow, ColumnRow, CostRow, NightPage, ReasonRow
from pipeline.report.past import ChurnRow, FoldRow, LiveRow

_CHECKS = ("Result", "Check", "Figure|n", "Bound|n", "")


def reach(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write how much of the catalogue is recommended, and how unevenly."""
    rows = [row for row in night.recipes if row.mean is not None and row.coverage is not None]
    rows.sort(key=lambda row: (-(row.mean or 0), row.name))
    head = ("Recipe", "Coverage|n", "Gini|n", "Novelty, bits|n", "Diversity|n")
    body = [
        (
            "lead" if row.name == night.winner else "",
            (
                cell(row.name, "name"),
                cell(titles.share(row.coverage or 0), "n"),
                cell(wording.number(row.gini), "n"),
                cell(wording.number(row.novelty), "n"),
                cell("–" if row.diversity is None else titles.share(row.diversity), "n"),
            ),
        )
        for row in rows
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


def churn(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what changed for people who did nothing."""
    head = ("Night", "People|n", "Stayed|n", "Changed for", "By another salt|n", "")
    body = [("", _churn_cells(row)) for row in reversed(night.churn)]
    about = (
        "Lists of people who did nothing since the last publication should change only for a "
        "cause. By another salt: what would change for the luck of training alone."
    )
    drawn, told = cards(pictures, "churn.svg"), table(head, body)
    if drawn:
        told = folded("In numbers", told)
    return section("What changed for people who did nothing", about, drawn, told)


def folds(night: NightPage) -> str:
    """Write how near lists that were folded in came to those of a new training."""
    if not night.folds:
        return ""
    label = wording.metric_label(night.metric)
    kinds = (f"{label}, folded in|n", f"{label}, trained again|n")
    head = ("Night", "People|n", "In common|n", *kinds, "")
    about = (
        "People who did something between two trainings: the old model's lists for all they did, "
        "against the new model's. In common: of the first ten. The last two figures are of what "
        "they did afterwards."
    )
    body = [("", _fold_cells(row)) for row in reversed(night.folds)]
    return section("What folding in between nights is worth", about, table(head, body))


def live(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what people did with the lists that were live."""
    if not night.live:
        return ""
    newest = max(row.as_of for row in night.live)
    rows = [row for row in night.live if row.as_of == newest]
    label = wording.metric_label(night.metric)
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


def data(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what the night read, what was wrong with it, and what was done about it."""
    tables = [
        (
            "",
            (
                cell(row.name, "name"),
                cell(wording.number(row.version), "n"),
                cell(wording.number(row.rows), "n"),
            ),
        )
        for row in night.tables
    ]
    return section(
        "Data",
        "",
        facts(night.facts),
        table(("Table", "Lake version|n", "Rows read|n"), tables),
        _quarantine(night.quarantined, night.reasons, pictures),
        _cleaned(night.cleaned),
        _checks(night.checks),
    )


def cost(night: NightPage) -> str:
    """Write what training took, and what a point of gain costs."""
    head = (
        "What training took", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events a second|n", "On", "CPU seconds for each +1 %|n",
    )  # fmt: skip
    rows = sorted(night.costs, key=lambda row: (-row.seconds, row.name))
    about = "The last column: CPU seconds ÷ lift over the best baseline, in percent."
    return section("Cost", about, table(head, [("", _cost_cells(row)) for row in rows]))


def _churn_cells(row: ChurnRow) -> tuple[str, ...]:
    causes = sorted(row.causes, key=lambda cause: (-cause[1], cause[0]))
    told = ", ".join(f"{wording.plain(name)} {titles.share(part)}" for name, part in causes if part)
    return (
        cell(f"{titles.day(row.as_of)} {row.as_of.year}", "name"),
        cell(f"{row.idle:,}", "n"),
        cell("–" if row.overlap is None else titles.share(row.overlap), "n"),
        cell(told or "–"),
        cell("–" if row.dice is None else titles.share(row.dice), "n"),
        cell(row.note, "wholly"),
    )


def _fold_cells(row: FoldRow) -> tuple[str, ...]:
    return (
        cell(f"{titles.day(row.as_of)} {row.as_of.year}", "name"),
        cell(f"{row.users:,}", "n"),
        cell("–" if row.overlap is None else titles.share(row.overlap), "n"),
        cell("–" if row.folded is None else f"{row.folded:.4f}", "n"),
        cell("–" if row.retrained is None else f"{row.retrained:.4f}", "n"),
        cell(row.note, "wholly"),
    )


def _live_cells(row: LiveRow) -> tuple[str, ...]:
    interval = "–" if row.lo is None or row.hi is None else f"{row.lo:.4f} to {row.hi:.4f}"
    return (
        cell(wording.plain(row.slice), "name"),
        cell(row.model_version),
        cell(f"{row.users:,}", "n"),
        cell(f"{row.events:,}", "n"),
        cell("–" if row.hit_rate is None else titles.share(row.hit_rate), "n"),
        cell("–" if row.ndcg is None else f"{row.ndcg:.4f}", "n"),
        cell(interval, "n"),
        cell("–" if row.base_ndcg is None else f"{row.base_ndcg:.4f}", "n"),
    )


def _quarantine(
    rows: int | None, reasons: Sequence[ReasonRow], pictures: Mapping[str, bytes]
) -> str:
    if rows is None:
        return ""
    if not rows:
        return "<h3>Quarantine</h3><p class=about>✓ No row is in quarantine.</p>"
    ordered = sorted(reasons, key=lambda row: (-row.rows, row.reason))
    body = [
        ("", (cell(wording.plain(r.reason), "name"), cell(f"{r.rows:,}", "n"))) for r in ordered
    ]
    drawn = cards(pictures, "reasons.svg")
    numbers = folded("In numbers", table(("Reason", "Rows|n"), body))
    return f"<h3>Quarantine</h3>{drawn}{numbers}"


def _cleaned(rows: Sequence[ColumnRow]) -> str:
    head = ("Column", "Table", "Rows|n", "Missing|n", "Filled|n", "Outliers|n", "Taken out|n")
    body = [
        (
            "",
            (
                cell(row.column, "name"),
                cell(row.table),
                cell(f"{row.rows:,}", "n"),
                *(
                    cell(f"{n:,}", "n")
                    for n in (row.missing, row.filled, row.outliers, row.removed)
                ),
            ),
        )
        for row in rows
    ]
    return f"<h3>Missing values and outliers</h3>{table(head, body)}" if body else ""


def _checks(checks: Sequence[CheckRow]) -> str:
    passed = [row for row in checks if row.status == wording.PASSED]
    others = [row for row in checks if row.status != wording.PASSED]
    told = table(_CHECKS, [("", _check_cells(row)) for row in others])
    return (f"<h3>Checks to look at</h3>{told}" if told else "") + folded(
        f"{len(passed)} of {len(checks)} checks of the data passed",
        table(_CHECKS, [("", _check_cells(row)) for row in passed]),
    )


def _check_cells(row: CheckRow) -> tuple[str, ...]:
    return (
        verdict(row.status),
        cell(wording.plain(row.name)),
        cell(wording.number(row.figure), "n"),
        cell(wording.number(row.bound), "n"),
        cell(row.sentence, "wholly"),
    )


def _cost_cells(row: CostRow) -> tuple[str, ...]:
    return (
        cell(row.name, "name"),
        cell(f"{row.seconds:,.2f}", "n"),
        cell(f"{row.cpu_seconds:,.2f}", "n"),
        cell(f"{row.peak_mb:,.1f}", "n"),
        cell(wording.number(row.parameters), "n"),
        cell(f"{row.events_per_second:,.0f}", "n"),
        cell(row.trained_on),
        cell(_price(row), "n"),
    )


def _price(row: CostRow) -> str:
    """Return CPU seconds for each percent of lift over the best baseline."""
    if row.gain is None:
        return "–"
    if row.gain <= 0:
        return "no gain"
    price = row.cpu_seconds / (100 * row.gain)
    return f"{price:,.2f}" if price >= 0.005 else "under 0.01"
