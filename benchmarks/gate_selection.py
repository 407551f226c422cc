"""Simulated years in which the operator chooses the days that are evaluated.

Each day has its own lift; a night's block is the seven days before it. The operator sees the lift
of these days, and starts nights only while the candidate leads. Such nights select the evidence.
The rule on days in no record (E3) empties an e-process that lacks too many days; a switch then
needs the evidence of all records as well.

Guarantees: the rules of a switch are those of `gate_simulation`; a sample of the e-processes is
computed by the gate's own `EProcess` as well, and must be equal.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gate_figures import Figure, within_third
from benchmarks.gate_simulation import (
    MEMORY,
    PERIODS,
    RUNS,
    SEED,
    SHOPS,
    START,
    WEEK,
    Flags,
    Floats,
    Sums,
    noise,
    specified,
    switches_by,
    variance,
)
from pipeline.base import Interval
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey
from pipeline.evaluation.gate.records import BlockRecord

YEAR = 365
SAMPLE = 6
_ASKED = 0.005
_RULES = "with E3 and S8"
_HOLE_DAYS, _HOLE_SHARE = 7.0, 0.1
"""Days in no record that E3 permits, and their share of the days since the opening."""


def lifts(se: float, period: float, runs: int, random: np.random.Generator) -> Floats:
    """Return ``(runs, YEAR + 1)`` lifts of the seven days before each day; NaN before the eighth.

    The true lift is 0. The effect of a week is that of each of its days.
    """
    week = random.standard_normal((runs, YEAR // WEEK + 1))
    for at in range(1, week.shape[1]):
        week[:, at] = np.sqrt(1 - MEMORY**2) * week[:, at] + MEMORY * week[:, at - 1]
    days = np.sqrt(WEEK * variance(se)) * random.standard_normal((runs, YEAR))
    days += period * np.repeat(week, WEEK, axis=1)[:, :YEAR]
    total = np.cumsum(np.concatenate([np.zeros((runs, 1)), days], axis=1), axis=1)
    means = np.full((runs, YEAR + 1), np.nan)
    means[:, WEEK:] = (total[:, WEEK:] - total[:, :-WEEK]) / WEEK
    return means


@dataclass(frozen=True)
class Years:
    """E-processes of many years, which end with the first switch.

    Attributes
    ----------
    opened, free
        Days from which records count, and from which the next block may start.
    holes
        Days in no record before `free`.
    sums, every
        The records, and all of them with those from before an e-process was emptied.
    switched
        Whether the e-process has led to a switch.
    """

    opened: NDArray[np.int64]
    free: NDArray[np.int64]
    holes: NDArray[np.int64]
    sums: Sums
    every: Sums
    switched: Flags

    @classmethod
    def started(cls, runs: int) -> Years:
        """Return e-processes without records that opened on day 0."""
        days = [np.zeros(runs, np.int64) for _ in range(3)]
        sums, every = (Sums(*(np.zeros(runs) for _ in range(4))) for _ in range(2))
        return cls(*days, sums, every, np.zeros(runs, np.bool_))

    def lacks_too_much(self, day: int) -> Flags:
        """Return whether more days before a night's block are in no record than E3 permits."""
        flags: Flags = self.holes + day - WEEK - self.free > np.maximum(
            _HOLE_DAYS, _HOLE_SHARE * (day - self.opened)
        )
        return flags

    def empty(self, rows: Flags, day: int, x: Floats) -> None:
        """Open some e-processes again on a day; the night's block counts for a later switch."""
        _put(self.every, rows, x)
        self.opened[rows] = self.free[rows] = day
        self.holes[rows] = 0
        for values in (self.sums.count, self.sums.total, self.sums.squares, self.sums.largest):
            values[rows] = 0.0

    def add(self, rows: Flags, day: int, x: Floats, v: float, *, forgets: bool) -> None:
        """Add the lift of a night's block to some e-processes, and apply the rules of a switch."""
        self.holes[rows] += day - WEEK - self.free[rows]
        self.free[rows] = day
        held = [_put(sums, rows, x) for sums in (self.sums, self.every)]
        self.switched[rows] = switches_by(held[0], v) & (forgets | switches_by(held[1], v))


def _put(sums: Sums, rows: Flags, x: Floats) -> Sums:
    """Add a record to some e-processes, and return the sums of these."""
    largest = np.maximum(sums.largest[rows], x[rows])
    sums.largest[rows] = np.where(sums.count[rows] > 0, largest, x[rows])
    sums.count[rows] += 1
    sums.total[rows] += x[rows]
    sums.squares[rows] += x[rows] ** 2
    return Sums(sums.count[rows], sums.total[rows], sums.squares[rows], sums.largest[rows])


def selected(
    x: Floats, v: float, *, rule: bool, patient: bool = False, forgets: bool = False
) -> Years:
    """Simulate years whose nights are started only while the candidate leads.

    Parameters
    ----------
    x
        As `lifts`.
    v
        Variance of a block's lift.
    rule
        Whether E3 empties an e-process that lacks too many days.
    patient
        Whether the operator also starts a night on the last day on which E3 does not empty it.
    forgets
        Whether the records from before an e-process was emptied have no effect: the former rule.
    """
    years = Years.started(len(x))
    for day in range(WEEK, YEAR + 1):
        started = x[:, day] > 0
        if patient:
            started |= years.lacks_too_much(day + 1)
        started &= (years.free <= day - WEEK) & ~years.switched
        if rule:
            emptied = started & years.lacks_too_much(day)
            years.empty(emptied, day, x[:, day])
            started &= ~emptied
        years.add(started, day, x[:, day], v, forgets=forgets)
    return years


def compare_with_own(x: Floats, v: float, *, patient: bool) -> None:
    """Compare years under the rule with those of the gate's own e-process.

    Raises
    ------
    AssertionError
        An opening, a number of records, or the end of the last one differs.
    """
    years = selected(x, v, rule=True, patient=patient)
    for row in range(len(x)):
        own = EProcess(EProcessKey("champion", "candidate"), START, 1.0)
        for day in range(WEEK, YEAR + 1):
            block = Interval(START + timedelta(day - WEEK), START + timedelta(day))
            next_block = Interval(block.start + timedelta(1), block.end + timedelta(1))
            last_day = patient and own.reopened(next_block) is not own
            if block.start < own.free_from or not (x[row, day] > 0 or last_day):
                continue
            record = BlockRecord(block, 2_000, v, float(x[row, day]), 0.0, 0.0, 0.0)
            kept = own.reopened(block, record=record)
            own = own.add(record) if kept is own else kept
            both = [np.array([[r.x for r in rs]]) for rs in (own.records, own.all_records)]
            if own.records and all(specified(lifts_, v)[0] for lifts_ in both):
                break
        here = years.opened[row], years.free[row], years.sums.count[row], years.every.count[row]
        days = [(at - START).days for at in (own.opened, own.free_from)]
        assert here == (*days, len(own.records), len(own.all_records))


def selections(runs: int = RUNS, seed: int = SEED) -> list[Figure]:
    """Return false switches a year where nights are started only while the candidate leads."""
    random = np.random.default_rng(seed + 3)
    figures = []
    for users, se in SHOPS.items():
        v = variance(se)
        for period in PERIODS:
            x = lifts(se, period, runs, random)
            what = f"{users:,} users, SD of the week {period:.1%}, nights while a candidate leads"
            for patient in (False, True):
                compare_with_own(x[:SAMPLE], v, patient=patient)
            for name, years in (
                ("without E3", selected(x, v, rule=False)),
                ("with E3, without S8", selected(x, v, rule=True, forgets=True)),
                (_RULES, selected(x, v, rule=True)),
                (f"{_RULES}, as few other nights as they permit",
                 selected(x, v, rule=True, patient=True)),
            ):  # fmt: skip
                share = float(years.switched.mean())
                # The specification has a figure for lifts that do not differ between weeks.
                asked = _ASKED if name == _RULES and not period else None
                figures.append(
                    within_third(
                        f"{what}, {name}: false switches a year",
                        share,
                        asked,
                        noise=noise(asked, runs),
                    )
                )
    return figures
