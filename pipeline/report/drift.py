"""Drift by signal: a table for a terminal, a section for a page.

Guarantees: drifting signals come first; signals that could not be evaluated are listed.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.monitoring.policy import RetrainDecision
from pipeline.monitoring.verdicts import Drift, DriftStatus, Signal
from pipeline.number_text import decimal
from pipeline.report import wording
from pipeline.report.markup import folded, html_of, mark, section, table
from pipeline.report.table import grid

_HEAD = ("Status", "Signal|name", "z|n", "Bound|n", "|wholly")
_SIGNS = {DriftStatus.STABLE: ("✓", "w ok"), DriftStatus.DRIFT: ("▲", "w bad")}
_ABOUT = (
    "Each signal compares its latest days with the reference days before them. z: distance from "
    "the median of the reference in robust standard deviations, sampling noise included. A signal "
    "drifts if several days including the latest exceed the bound, or if the latest day alone far "
    "exceeds it."
)


def drift_table(drift: Drift) -> str:
    """Return a line for each signal, drifting ones first."""
    rows = _ordered(drift.signals)
    body = [
        (wording.plain(row.status), row.title, _figure(row), wording.sentence(row.sentence))
        for row in rows
    ]
    return grid(("status", "signal", "z", ""), body)


def drift_section(drift: Drift | None, policy: RetrainDecision | None) -> str:
    """Return the section of a page about drift.

    Parameters
    ----------
    drift
        None if it was not measured.
    policy
        Retrain decision of the run.
    """
    signals = () if drift is None else drift.signals
    moved = [row for row in _ordered(signals) if row.status != DriftStatus.STABLE]
    stable = [row for row in _ordered(signals) if row.status == DriftStatus.STABLE]
    return section(
        "Drift",
        _ABOUT if signals else "",
        "" if policy is None else f"<p>{html_of(wording.sentence(policy.reason))}.</p>",
        table(_HEAD, map(_cells, moved)),
        folded(
            f"{len(stable)} of {len(signals)} signals are stable", table(_HEAD, map(_cells, stable))
        ),
    )


def _cells(row: Signal) -> tuple[str, ...]:
    sign, kind = _SIGNS.get(row.status, ("○", "w other"))
    return (
        mark(f"{sign} {wording.plain(row.status)}", kind),
        row.title,
        _figure(row),
        wording.number(row.bound),
        wording.sentence(row.sentence),
    )


def _figure(row: Signal) -> str:
    return wording.NONE if row.figure is None else decimal(row.figure)


def _ordered(signals: Sequence[Signal]) -> list[Signal]:
    # Signals that could not be evaluated stand between drifting and stable ones.
    order = {DriftStatus.DRIFT: 0, DriftStatus.STABLE: 2}
    return sorted(
        signals, key=lambda row: (order.get(row.status, 1), -(row.figure or 0.0), row.name)
    )
