"""HTML page of two versions side by side: the finding first, then the evidence.

Guarantees: figures of different days are never subtracted; differences are of the same users and
the same ground truth; equal content gives equal bytes; otherwise as `markup`.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import zip_longest
from typing import Final

from pipeline.base import format_instant
from pipeline.number_text import change
from pipeline.report import wording
from pipeline.report.figures import forest
from pipeline.report.markup import cards, document, facts, folded, html_of, section, table
from pipeline.report.pair import (
    Entry,
    Estimate,
    Pair,
    PairedComparison,
    PairedRow,
    VersionsPage,
)

_TONE: Final = "#0072B2"


def versions_page(page: VersionsPage) -> str:
    """Return the page."""
    left, right = page.left, page.right
    headline = f"Version {left.number} beside version {right.number}"
    parts = [
        f"<header><p class=eyebrow>Nightjar · two versions</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{html_of(wording.sentence(page.sentence))}</p></header>",
        section("Versions", "≠ marks a difference.", _side_by_side(page, _identity(page))),
        *(_comparison(page, comparison) for comparison in page.paired_comparisons),
        _metrics(page),
        _lists(page),
        _settings(page),
        section("Data", "Training and evaluation data of each.", _side_by_side(page, page.data)),
        section("Training cost", "", _side_by_side(page, page.cost)),
        f"<footer>{facts((x.label, f'run {x.run_id}, code {x.commit}') for x in (left, right))}"
        "</footer>",
    ]
    return document(f"Nightjar: {headline}", _TONE, parts)


def comparison_figure(page: VersionsPage, comparison: PairedComparison) -> bytes | None:
    """Draw the lifts of the primary metric over all users and by user group.

    Parameters
    ----------
    comparison
        One of `page.paired_comparisons`.

    Returns
    -------
    An SVG file; None without a lift.
    """
    # Other metrics have scales of their own: they are in the table only.
    rows = [
        (f"{_group(row.name)} ({row.users:,})", row)
        for row in comparison.rows
        if row.lift is not None
        and (row.name == page.metric or row.name.endswith(f".{page.metric}"))
    ]
    if not rows:
        return None
    about = "lift on the same users (their number), with its 95 % interval"
    label = f"lift of {page.right.label} over {page.left.label}"
    return forest(comparison.key, rows, comparison_title(page, comparison), about, label)


def comparison_title(page: VersionsPage, comparison: PairedComparison) -> str:
    """Return the finding of a comparison in a few words.

    Parameters
    ----------
    comparison
        One of `page.paired_comparisons`.
    """
    row, right = _all_users(page, comparison), page.right.label
    if row is None or row.lift is None or row.lo is None or row.hi is None:
        return f"{right} cannot be compared with {page.left.label}"
    # An interval that contains 0 does not show which version is better.
    if row.underpowered is not None or row.lo <= 0 <= row.hi:
        return f"{right} is not clearly different"
    word = "ahead" if row.lift > 0 else "behind"
    return f"{right} is {word} by {change(abs(row.lift)).removeprefix('+')}"


def comparison_sentence(page: VersionsPage, comparison: PairedComparison) -> str | None:
    """Return the finding of a comparison with its figures.

    Parameters
    ----------
    comparison
        One of `page.paired_comparisons`.

    Returns
    -------
    A sentence without its full stop; None without a row of all users.
    """
    row = _all_users(page, comparison)
    if row is None:
        return None
    span = "" if row.lift is None else f"{wording.span(row.lo, row.hi, change)}, "
    return (
        f"{comparison.title}, {comparison_title(page, comparison)} ({span}{row.users:,} users): "
        f"{wording.metric_label(page.metric)} {row.right:.4f} and {row.left:.4f}"
    )


def _identity(page: VersionsPage) -> tuple[Pair, ...]:
    sides = [
        {
            "recipe": row.recipe,
            "as-of": format_instant(row.as_of),
            "decision": row.sentence,
            "trained on": row.trained_on,
            "live": row.live,
            "holdout": row.judged,
        }
        for row in (page.left, page.right)
    ]
    return tuple(Pair(name, *(side[name] for side in sides)) for name in sides[0])


def _comparison(page: VersionsPage, comparison: PairedComparison) -> str:
    if not comparison.rows:
        return section(comparison.title, "", f"<p class=about>{html_of(comparison.about)}</p>")
    drawn = comparison_figure(page, comparison)
    shown = "" if drawn is None else cards({comparison.key: drawn}, comparison.key)
    head = ("Metric|name", "Users|n", *_titles(page), "Lift|n", "95 % interval|n", "")
    body = [
        (
            wording.metric_label(row.name),
            f"{row.users:,}",
            f"{row.left:.4f}",
            f"{row.right:.4f}",
            "n/a" if row.lift is None else change(row.lift),
            wording.span(row.lo, row.hi, change),
            wording.sentence(row.underpowered or ""),
        )
        for row in comparison.rows
    ]
    primary = wording.metric_label(page.metric)
    return section(comparison.title, comparison.about, shown, table(head, body, lead=primary))


def _metrics(page: VersionsPage) -> str:
    body = [
        (wording.metric_label(row.name), _estimate(row.left), _estimate(row.right))
        for row in page.metrics
        # A dot separates a user group from its metric.
        if "." not in row.name
    ]
    groups = [
        (
            wording.metric_label(row.name),
            *(text for side in (row.left, row.right) for text in (_estimate(side), _users(side))),
        )
        for row in page.metrics
        if "." in row.name
    ]
    left, right = _titles(page)
    return section(
        "Metrics of each nightly run, with 95 % intervals",
        page.weeks,
        table(("Metric|name", left, right), body, lead=wording.metric_label(page.metric)),
        folded(
            f"{len(groups)} metrics of user groups",
            table(("Group|name", left, "Users|n", right, "Users|n"), groups),
        ),
    )


def _lists(page: VersionsPage) -> str:
    title, head = "Lists of the same users", ("", page.left.label, page.right.label)
    if not page.samples:
        return section(title, "", f"<p class=about>{html_of(page.lists)}</p>")
    tables = [
        f"<h3>{escape(sample.person)}</h3><p class=about>{html_of(sample.about)}</p>"
        + table(
            head,
            [
                (str(at), _entry(left), _entry(right))
                # Lists are never padded, so the two may differ in length.
                for at, (left, right) in enumerate(zip_longest(sample.left, sample.right), start=1)
            ],
        )
        for sample in page.samples
    ]
    return section(title, page.lists, *tables)


def _settings(page: VersionsPage) -> str:
    other = [pair for pair in page.settings if pair.differs]
    about = "Settings that differ." if other else "Both have the same recipe."
    every = folded(f"All {len(page.settings)} settings", _side_by_side(page, page.settings))
    return section("Hyperparameters", about, _side_by_side(page, other), every) + section(
        "Other settings that differ",
        "Settings of the two nightly runs, without those of recipes.",
        _side_by_side(page, page.night_settings),
    )


def _side_by_side(page: VersionsPage, pairs: Iterable[Pair]) -> str:
    head = ("|name", page.left.label, page.right.label)
    return table(head, ((p.name + " ≠" * p.differs, p.left, p.right) for p in pairs))


def _titles(page: VersionsPage) -> tuple[str, str]:
    return f"{page.left.label}|n", f"{page.right.label}|n"


def _all_users(page: VersionsPage, comparison: PairedComparison) -> PairedRow | None:
    return next((row for row in comparison.rows if row.name == page.metric), None)


def _group(name: str) -> str:
    where = name.rpartition(".")[0].removeprefix("slice.")
    return wording.plain(where) if where else "all users"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return wording.NONE
    if estimate.lo is None or estimate.hi is None:
        return wording.number(estimate.mean)
    return wording.estimate(estimate.mean, estimate.lo, estimate.hi)


def _users(estimate: Estimate | None) -> str:
    return wording.NONE if estimate is None else wording.figure(estimate.users, ",d")


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return f"{entry.title} ●" if entry.shared else entry.title
