"""Drift by signal: a table for a terminal, tables for a page.

Guarantees: drifting signals come first; signals that could not be evaluated are listed.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.monitoring.verdicts import Drift, DriftStatus, Signal
from pipeline.number_text import decimal
from pipeline.report import wording
from pipeline.report.markup import Cell, Row, Table
from pipeline.report.table import grid

_HEAD = ("Status", "Signal|name", "z|n", "Bound|n", "|wholly")
_SIGNS = {DriftStatus.STABLE: ("✓", "w ok"), DriftStatus.DRIFT: ("▲", "w bad")}


def drift_table(drift: Drift) -> str:
    """Return a line for each signal, drifting ones first."""
    rows = _ordered(drift.signals)
    body = [
        (wording.plain(row.status), row.title, _figure(row), wording.sentence(row.sentence))
        for row in rows
    ]
    return grid(("status", "signal", "z", ""), body)


def signal_tables(drift: Drift | None) -> tuple[Table, Table]:
    """Return the signals that drift or could not be evaluated, and the stable ones."""
    signals = _ordered(() if drift is None else drift.signals)
    moved = [row for row in signals if row.status != DriftStatus.STABLE]
    stable = [row for row in signals if row.status == DriftStatus.STABLE]
    return Table(_HEAD, map(_cells, moved)), Table(_HEAD, map(_cells, stable))


def _cells(row: Signal) -> Row:
    sign, kind = _SIGNS.get(row.status, ("○", "w other"))
    return (
        Cell(f"{sign} {wording.plain(row.status)}", kind),
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
