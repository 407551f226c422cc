"""What has moved, as rows: a table for a terminal, a section for a page.

Promises: nothing here is computed; what drifts stands first, what could not be judged is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report import wording
from pipeline.report.markup import cell, folded, section, table
from pipeline.report.table import grid
from pipeline.report.watched import DriftRow

CALM = "calm"
DRIFT = "drift"
_HEAD = ("Verdict", "Signal", "Spreads|n", "Bound|n", "")
_ABOUT = (
    "Each signal's last days against the weeks before them, in spreads: how far these weeks' own "
    "days lie from each other, beside what a day of so few people shows by chance. A drift needs "
    "several days, the latest among them, or one that is far out."
)


def drift_table(rows: Sequence[DriftRow]) -> str:
    """Return a line a signal, what drifts first."""
    body = [(row.verdict, row.name, _figure(row.figure), row.sentence) for row in _ordered(rows)]
    return grid(("verdict", "signal", "spreads", ""), body)


def drift_section(rows: Sequence[DriftRow], policy: str) -> str:
    """Write the part of a page about drift, and what the policy said of it."""
    first = [row for row in _ordered(rows) if row.verdict != CALM]
    calm = [row for row in _ordered(rows) if row.verdict == CALM]
    head = f"{len(calm)} of {len(rows)} signals are calm"
    return section(
        "Whether something has moved",
        _ABOUT if rows else "",
        f"<p>{escape(policy)}.</p>" if policy else "",
        table(_HEAD, [("", _cells(row)) for row in first]),
        folded(head, table(_HEAD, [("", _cells(row)) for row in calm])),
    )


def _cells(row: DriftRow) -> tuple[str, ...]:
    sign, kind = {CALM: ("✓", "w ok"), DRIFT: ("▲", "w bad")}.get(row.verdict, ("○", "w other"))
    return (
        cell(f"{sign} {wording.plain(row.verdict)}", kind),
        cell(wording.plain(row.name), "name"),
        cell(_figure(row.figure), "n"),
        cell(wording.number(row.bound), "n"),
        cell(row.sentence, "wholly"),
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}".replace("-", "−")


def _ordered(rows: Sequence[DriftRow]) -> list[DriftRow]:
    order = {DRIFT: 0, CALM: 2}
    return sorted(rows, key=lambda row: (order.get(row.verdict, 1), -(row.figure or 0.0), row.name))
