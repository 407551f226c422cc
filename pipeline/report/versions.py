"""HTML page of two versions side by side: the finding first, then the evidence.

Guarantees: figures of different days are never subtracted; differences are of the same users and
the same ground truth; equal content gives equal bytes; otherwise as `markup`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from pipeline.base import format_instant
from pipeline.evaluation.lift import Verdict, verdict
from pipeline.number_text import change
from pipeline.report import wording
from pipeline.report.figures import forest
from pipeline.report.markup import Table, render
from pipeline.report.pair import (
    Entry,
    Estimate,
    Pair,
    PairedComparison,
    PairedRow,
    Sample,
    VersionsPage,
)


class ComparisonPart(NamedTuple):
    """A paired comparison with its figure and its table."""

    content: PairedComparison
    figure: bytes | None
    table: Table


def versions_page(page: VersionsPage) -> str:
    """Return the page."""
    left, right = page.left, page.right
    headline = f"Version {left.number} beside version {right.number}"
    metrics, groups = _metrics(page)
    return render(
        "versions.html",
        page=page,
        title=f"Nightjar: {headline}",
        headline=headline,
        identity=_side_by_side(page, _identity(page)),
        comparisons=[_comparison(page, comparison) for comparison in page.paired_comparisons],
        metrics=metrics,
        groups=groups,
        samples=[(sample, _sample_table(page, sample)) for sample in page.samples],
        differing=_side_by_side(page, [pair for pair in page.settings if pair.differs]),
        settings=_side_by_side(page, page.settings),
        night_settings=_side_by_side(page, page.night_settings),
        data=_side_by_side(page, page.data),
        cost=_side_by_side(page, page.cost),
        origin=[(x.label, f"run {x.run_id}, code {x.commit}") for x in (left, right)],
    )


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
    title = comparison_title(page, comparison)
    return forest(comparison.key, rows, title, about, label, page.margin)


def comparison_title(page: VersionsPage, comparison: PairedComparison) -> str:
    """Return the finding of a comparison in a few words.

    Parameters
    ----------
    comparison
        One of `page.paired_comparisons`.
    """
    row, left, right = _all_users(page, comparison), page.left.label, page.right.label
    if row is None or row.lift is None or (word := _verdict(page, row)) is None:
        return f"{right} cannot be compared with {left}"
    return f"{right}: {wording.COMPARED[word]} {left} ({change(row.lift)})"


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
    label = wording.metric_label(page.metric)
    lift = ""
    if (word := _verdict(page, row)) is not None:
        lift = f" ({wording.lift_text(row.lift, row.lo, row.hi)}: {word})"
    return (
        f"{comparison.title}, {label} of {page.right.label} is {row.right:.4f}, of "
        f"{page.left.label} {row.left:.4f}, on the same {row.users:,} users{lift}"
    )


def _identity(page: VersionsPage) -> tuple[Pair, ...]:
    sides = [
        {
            "recipe": row.recipe,
            "as-of": format_instant(row.as_of),
            "decision": row.sentence,
            "trained on": row.trained_on,
            "deterministic": "yes" if row.deterministic else "no: another fit may give other lists",
            "live": row.live,
            "holdout": row.judged,
        }
        for row in (page.left, page.right)
    ]
    return tuple(Pair(name, *(side[name] for side in sides)) for name in sides[0])


def _comparison(page: VersionsPage, comparison: PairedComparison) -> ComparisonPart:
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
    table = Table(head, body, lead=wording.metric_label(page.metric))
    return ComparisonPart(comparison, comparison_figure(page, comparison), table)


def _metrics(page: VersionsPage) -> tuple[Table, Table]:
    """Return the metrics of all users, and those of user groups."""
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
    return (
        Table(("Metric|name", left, right), body, lead=wording.metric_label(page.metric)),
        Table(("Group|name", left, "Users|n", right, "Users|n"), groups),
    )


def _sample_table(page: VersionsPage, sample: Sample) -> Table:
    # Lists are never padded, so the two may differ in length.
    rows = enumerate(zip_longest(sample.left, sample.right), start=1)
    return Table(
        ("", page.left.label, page.right.label),
        ((str(at), _entry(left), _entry(right)) for at, (left, right) in rows),
    )


def _side_by_side(page: VersionsPage, pairs: Iterable[Pair]) -> Table:
    head = ("|name", page.left.label, page.right.label)
    return Table(head, ((p.name + " ≠" * p.differs, p.left, p.right) for p in pairs))


def _titles(page: VersionsPage) -> tuple[str, str]:
    return f"{page.left.label}|n", f"{page.right.label}|n"


def _all_users(page: VersionsPage, comparison: PairedComparison) -> PairedRow | None:
    return next((row for row in comparison.rows if row.name == page.metric), None)


def _verdict(page: VersionsPage, row: PairedRow) -> Verdict | None:
    if row.lo is None or row.hi is None:
        return None
    return verdict(row.lo, row.hi, page.margin)


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
