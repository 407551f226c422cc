"""Figure of a backtest: the quality of each schedule by day, and its training cost.

Guarantees: equal days give equal bytes; schedules differ by dashes and by the names at the ends of
their lines, not only by colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pipeline.report import wording
from pipeline.report.backtest import ADAPTIVE, NEVER, NIGHTLY, ScheduleRow, mean_of, summary, title
from pipeline.report.figure import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    canvas,
    day_number,
    label_days,
    name_rows,
    spread,
    write,
    write_right,
)
from pipeline.report.svg_card import svg
from pipeline.workspace.experiment_artifacts import DayFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREEN: Final = "#007A5A"
_STROKES: Final = {
    NIGHTLY: (BLUE, "-"),
    "weekly": (_GREEN, (0, (1, 1.2))),
    ADAPTIVE: (ORANGE, (0, (5, 1.5))),
    NEVER: (GREY, (0, (4, 1.5, 1, 1.5))),
}
_SMOOTH: Final = 7
_LEFT, _WIDE, _TALL = 0.1, 0.73, 3.4
"""Left edge and width of the axes as shares of the figure's width; height in inches."""
_BETWEEN, _BAR = 0.95, 0.26
"""Space between both axes, and height of a schedule's bar, in inches."""
_LONGEST_BAR: Final = 0.6
"""Longest bar as a share of the width; the rest holds its label."""
_APART: Final = 0.06
"""Minimum distance of two names at the right, as a share of the height."""


def figure(days: Mapping[str, Sequence[DayFile]], plant: datetime | None) -> bytes:
    """Draw the quality of each schedule by day, a mark per nightly run, and the training cost.

    Parameters
    ----------
    days
        Days of each schedule, in order.
    plant
        Instant of the planted shift.

    Returns
    -------
    An SVG file.
    """
    rows = summary(days, plant)
    about = f"NDCG of the live lists, mean of the last {_SMOOTH} steps; marks: nightly runs"
    foot = _BETWEEN + _BAR * len(rows)
    drawn, axes = canvas(1, title(days), about, row=_TALL, left=_LEFT, width=_WIDE, foot=foot)
    ends: list[tuple[float, str, str]] = []
    for name, series in days.items():
        colour, dash = _STROKES.get(name, (INK, "-"))
        # A trailing mean: no value depends on later days.
        reached = [
            mean_of(series[max(0, n - _SMOOTH) : n], "ndcg") for n in range(1, len(series) + 1)
        ]
        points = [
            (day, ndcg) for day, ndcg in zip(series, reached, strict=True) if ndcg is not None
        ]
        if not points:
            continue
        at, line = [day_number(day.as_of) for day, _ in points], [ndcg for _, ndcg in points]
        # The nightly schedule retrains at each step: marks would hide its line.
        nights = [n for n, (day, _) in enumerate(points) if day.retrained and name != NIGHTLY]
        axes.plot(at, line, color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=4,
                  markevery=nights)  # fmt: skip
        ends.append((line[-1], name, colour))
    if plant is not None:
        axes.axvline(day_number(plant), color=INK, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate("planted shift", (day_number(plant), 1.0), xycoords=("data", "axes fraction"),
                      fontsize=9, color=INK, ha="center", va="bottom")  # fmt: skip
    low, high = axes.get_ylim()
    ends.sort(reverse=True)
    placed = spread([value for value, _, _ in ends], _APART * (high - low), low)
    for height, (_, name, colour) in zip(placed, ends, strict=True):
        write_right(axes, height, name, colour)
    label_days(axes, [day.as_of for series in days.values() for day in series], 6)
    axes.set_ylabel("NDCG")
    _costs(drawn, rows)
    words = "; ".join(f"{row.schedule}: {wording.figure(row.ndcg)}, {_cost(row)}" for row in rows)
    return svg(drawn, "backtest", f"{title(days)}. {words}")


def _costs(drawn: Figure, rows: Sequence[ScheduleRow]) -> None:
    """Draw below a bar per schedule: its training seconds, and the NDCG per minute."""
    height = drawn.get_figheight()
    axes = drawn.add_axes((_LEFT, 0.1 / height, _WIDE, _BAR * len(rows) / height))
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_xticks([])
    name_rows(axes, [row.schedule for row in rows])
    # Without any training all bars are 0, and the axis still needs a length.
    most = max(row.training_seconds for row in rows) or 1.0
    axes.set_xlim(0, most / _LONGEST_BAR)
    axes.set_title("training seconds after the first promotion, and NDCG per training minute",
                   fontsize=9, color=GREY, loc="left")  # fmt: skip
    for at, row in enumerate(rows):
        colour, _ = _STROKES.get(row.schedule, (INK, "-"))
        axes.barh(at, row.training_seconds, height=0.5, color=colour)
        write(axes, row.training_seconds + 0.01 * most, at, _cost(row), fontsize=9)


def _cost(row: ScheduleRow) -> str:
    runs = "1 nightly run" if row.nights == 1 else f"{row.nights} nightly runs"
    bought = row.ndcg_per_training_minute
    spent = f"{row.training_seconds:,.1f} s in {runs}"
    return spent if bought is None else f"{spent}, {bought:.3g} per minute"
