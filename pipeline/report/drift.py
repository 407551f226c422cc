"""Drift by signal: a table for a terminal, a section for a page.

Guarantees: what drifts is first; what could not be judged is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.verdicts import Drift, DriftStatus, Signal
from pipeline.report import wording
from pipeline.report.markup import folded, mark, section, table
from pipeline.report.table import grid

_HEAD = ("Verdict", "Signal|name", "Spreads|n", "Bound|n", "|wholly")
_SIGNS = {DriftStatus.STABLE: ("✓", "w ok"), DriftStatus.DRIFT: ("▲", "w bad")}
_ABOUT = (
    "Each signal's last days against the weeks before them, in spreads: how far these weeks' own "
    "days lie from each other, beside what a day of so few people shows by chance. A drift needs "
    "several days, the latest among them, or one that is far out."
)


def drift_table(drift: Drift) -> str:
    """Return a line for each signal, what drifts first."""
    rows = _ordered(drift.signals)
    body = [(row.status.value, row.name, _figure(row), row.sentence) for row in rows]
    return grid(("status", "signal", "spreads", ""), body)


def drift_section(drift: Drift | None, policy: RetrainDecision | None) -> str:
    """Write the section of a page about drift, and what the policy said of it."""
    signals = () if drift is None else drift.signals
    moved = [row for row in _ordered(signals) if row.status != DriftStatus.STABLE]
    stable = [row for row in _ordered(signals) if row.status == DriftStatus.STABLE]
    return section(
        "Whether something has moved",
        _ABOUT if signals else "",
        "" if policy is None else f"<p>{escape(policy.reason)}.</p>",
        table(_HEAD, map(_cells, moved)),
        folded(
            f"{len(stable)} of {len(signals)} signals are calm", table(_HEAD, map(_cells, stable))
        ),
    )


def _cells(row: Signal) -> tuple[str, ...]:
    sign, kind = _SIGNS.get(row.status, ("○", "w other"))
    return (
        mark(f"{sign} {wording.plain(row.status)}", kind),
        wording.plain(row.name),
        _figure(row),
        wording.number(row.bound),
        row.sentence,
    )


def _figure(row: Signal) -> str:
    return wording.figure(row.figure, ".1f").replace("-", "−")


def _ordered(signals: Sequence[Signal]) -> list[Signal]:
    order = {DriftStatus.DRIFT: 0, DriftStatus.STABLE: 2}
    return sorted(
        signals, key=lambda row: (order.get(row.status, 1), -(row.figure or 0.0), row.name)
    )
