"""Two versions side by side as one HTML page: what was found first, then the evidence.

Promises: figures of different weeks are never subtracted; what is subtracted was judged on the same
people by the same truth; every text is escaped; equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import zip_longest

from pipeline.base import format_instant
from pipeline.report import wording
from pipeline.report.figure import BLUE, GREY, INK, ORANGE, percent
from pipeline.report.markup import cards, cell, document, facts, folded, section, table
from pipeline.report.pair import (
    Entry,
    Estimate,
    MetricRow,
    Pair,
    PairedComparison,
    PairedRow,
    VersionRow,
    VersionsPage,
)
from pipeline.report.svg_card import card, name_rows, svg, write

_MOST = 16
_ROW = 0.34
_TONE = "#0072B2"


def versions_page(page: VersionsPage) -> str:
    """Write the page."""
    left, right = page.left, page.right
    headline = f"Version {left.number} beside version {right.number}"
    parts = [
        f"<header><p class=eyebrow>Nightjar · two versions</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{escape(page.sentence)}</p></header>",
        section(
            "What they are", "≠ marks what differs.", _side_by_side(page, _identity(left, right))
        ),
        *(_comparison(page, comparison) for comparison in page.footings),
        _metrics(page),
        _lists(page),
        _settings(page),
        section("Data", "What each was trained and judged on.", _side_by_side(page, page.data)),
        section("Cost", "What training took, by the clock.", _side_by_side(page, page.cost)),
        f"<footer>{facts((x.label, f'run {x.run_id}, code {x.commit}') for x in (left, right))}"
        "</footer>",
    ]
    return document(f"Nightjar: {headline}", _TONE, parts)


def comparison_figure(page: VersionsPage, comparison: PairedComparison) -> bytes | None:
    """Draw the lifts of the primary metric, everybody first, then groups; ``None`` without any."""
    drawn = [
        (row, row.lift, row.lo, row.hi)
        for row in comparison.rows
        if _primary(row.name, page.metric)
        and row.lift is not None
        and row.lo is not None
        and row.hi is not None
    ][:_MOST]
    if not drawn:
        return None
    title = comparison_title(page, comparison)
    about = "difference on the same people (their number), relative, with its 95 % interval"
    if any(row.underpowered for row, *_ in drawn):
        about += "; hollow: too little evidence"
    figure, (axes,) = card(_ROW * len(drawn), title, about)
    low = min(0.0, *(lo for _, _, lo, _ in drawn))
    high = max(0.0, *(hi for _, _, _, hi in drawn))
    span = (high - low) or 1.0
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for at, (row, lift, lo, hi) in enumerate(drawn):
        sure = row.underpowered is None
        colour = BLUE if sure and lo > 0 else ORANGE if sure and hi < 0 else GREY
        axes.plot([lo, hi], [at, at], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        face = colour if sure else "white"
        axes.plot([lift], [at], "o", color=colour, markerfacecolor=face, markersize=5, zorder=3)
        weight = "bold" if sure and (lo > 0 or hi < 0) else "normal"
        write(axes, high + span * 0.05, at, wording.change(lift), colour, fontweight=weight)
    name_rows(axes, [f"{_group(row.name)} ({row.people:,})" for row, *_ in drawn])
    axes.set_xlim(low - span * 0.03, high + span * 0.03)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(percent)
    axes.set_xlabel(f"lift of {page.right.label} over {page.left.label}", parse_math=False)
    return svg(figure, comparison.key, title)


def comparison_title(page: VersionsPage, comparison: PairedComparison) -> str:
    """Say in a few words what a comparison on one footing has found."""
    row, right = _everybody(page, comparison), page.right.label
    if row is None or row.lift is None or row.lo is None or row.hi is None:
        return f"{right} cannot be held against {page.left.label}"
    if row.underpowered is not None or row.lo <= 0 <= row.hi:
        return f"{right} is not clearly different"
    word, sign = ("ahead", "+") if row.lift > 0 else ("behind", "−")
    return f"{right} is {word} by {wording.change(row.lift).removeprefix(sign)}"


def comparison_sentence(page: VersionsPage, comparison: PairedComparison) -> str | None:
    """Say what was found with its figures; ``None`` where nobody could be judged."""
    row = _everybody(page, comparison)
    if row is None:
        return None
    span = "" if row.lift is None else f"{_span(row)}, "
    return (
        f"{comparison.title}, {comparison_title(page, comparison)} ({span}{row.people:,} people): "
        f"{wording.metric_label(page.metric)} {row.right:.4f} against {row.left:.4f}"
    )


def _identity(left: VersionRow, right: VersionRow) -> tuple[Pair, ...]:
    names = {
        "recipe": "recipe", "as_of": "as-of", "sentence": "decision", "trained_on": "trained on",
        "live": "shown to people", "judged": "judged on",
    }  # fmt: skip
    return tuple(
        Pair(text, *(_written(getattr(row, name)) for row in (left, right)))
        for name, text in names.items()
    )


def _written(value: str | datetime) -> str:
    return format_instant(value) if isinstance(value, datetime) else value


def _comparison(page: VersionsPage, comparison: PairedComparison) -> str:
    if not comparison.rows:
        return section(comparison.title, "", f"<p class=about>{escape(comparison.about)}</p>")
    drawn = comparison_figure(page, comparison)
    shown = "" if drawn is None else cards({comparison.key: drawn}, comparison.key)
    head = (
        "Metric",
        "People|n",
        *(f"{x.label}|n" for x in _both(page)),
        "Lift|n",
        "95 % interval|n",
        "",
    )
    body = [
        (
            "lead" if row.name == page.metric else "",
            (
                cell(wording.metric_label(row.name), "name"),
                cell(f"{row.people:,}", "n"),
                cell(f"{row.left:.4f}", "n"),
                cell(f"{row.right:.4f}", "n"),
                cell("n/a" if row.lift is None else wording.change(row.lift), "n"),
                cell(_span(row), "n"),
                cell(row.underpowered or ""),
            ),
        )
        for row in comparison.rows
    ]
    return section(comparison.title, comparison.about, shown, table(head, body))


def _metrics(page: VersionsPage) -> str:
    whole = [row for row in page.metrics if "." not in row.name]
    groups = [row for row in page.metrics if "." in row.name]
    head = ("Metric", *(f"{x.label}|n" for x in _both(page)))
    body = [
        (
            "lead" if row.name == page.metric else "",
            (
                cell(wording.metric_label(row.name), "name"),
                _estimate(row.left),
                _estimate(row.right),
            ),
        )
        for row in whole
    ]
    title = "Each in its own night, with 95 % intervals"
    return section(title, page.weeks, table(head, body), _groups(page, groups))


def _groups(page: VersionsPage, groups: Sequence[MetricRow]) -> str:
    if not groups:
        return ""
    sides = tuple(title for x in _both(page) for title in (f"{x.label}|n", "People|n"))
    body = [
        (
            "",
            (
                cell(wording.metric_label(row.name), "name"),
                *(
                    part
                    for side in (row.left, row.right)
                    for part in (_estimate(side), cell(_people(side), "n"))
                ),
            ),
        )
        for row in groups
    ]
    return folded(f"{len(groups)} figures of groups of people", table(("Group", *sides), body))


def _lists(page: VersionsPage) -> str:
    tables = []
    for sample in page.samples:
        body = [
            ("", (cell(str(at)), _entry(left), _entry(right)))
            for at, (left, right) in enumerate(zip_longest(sample.left, sample.right), start=1)
        ]
        about = f"<h3>{escape(sample.person)}</h3><p class=about>{escape(sample.about)}</p>"
        tables.append(about + table(("", *(x.label for x in _both(page))), body))
    if not tables:
        tables = [f"<p class=about>{escape(page.lists)}</p>"]
        return section("Lists of the same people", "", *tables)
    return section("Lists of the same people", page.lists, *tables)


def _settings(page: VersionsPage) -> str:
    other = [pair for pair in page.settings if pair.differs]
    about = "What differs; all are below." if other else "Both have the same recipe."
    every = folded(f"All {len(page.settings)} settings", _side_by_side(page, page.settings))
    return section("Hyper-parameters", about, _side_by_side(page, other), every) + section(
        "Other settings that differ",
        "Of the two nights, beside those of recipes.",
        _side_by_side(page, page.night_settings),
    )


def _side_by_side(page: VersionsPage, pairs: Iterable[Pair]) -> str:
    head = ("", *(x.label for x in _both(page)))
    body = [
        (
            "",
            (
                cell(pair.name + (" ≠" if pair.differs else ""), "name"),
                cell(pair.left),
                cell(pair.right),
            ),
        )
        for pair in pairs
    ]
    return table(head, body)


def _both(page: VersionsPage) -> tuple[VersionRow, VersionRow]:
    return page.left, page.right


def _everybody(page: VersionsPage, comparison: PairedComparison) -> PairedRow | None:
    return next((row for row in comparison.rows if row.name == page.metric), None)


def _primary(name: str, metric: str) -> bool:
    """Whether a name is the primary metric, of everybody or of a group."""
    return name == metric or name.endswith(f".{metric}")


def _group(name: str) -> str:
    where = name.rpartition(".")[0].removeprefix("slice.")
    return wording.plain(where) if where else "everybody"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return cell("–", "n")
    if estimate.lo is None or estimate.hi is None:
        return cell(wording.number(estimate.mean), "n")
    return cell(f"{estimate.mean:.4f} ({estimate.lo:.4f} to {estimate.hi:.4f})", "n")


def _people(estimate: Estimate | None) -> str:
    return "–" if estimate is None or estimate.people is None else f"{estimate.people:,}"


def _span(row: PairedRow) -> str:
    if row.lo is None or row.hi is None:
        return "–"
    return f"{wording.change(row.lo)} to {wording.change(row.hi)}"


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return cell("")
    return cell(f"{entry.title} ●" if entry.shared else entry.title)
