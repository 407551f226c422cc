"""Figures of a study as PNG bytes: a title that states the finding, direct labels, no legend.

Promises: equal rows give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.report.canvas import BLUE, GREY, INK, LIGHT, ORANGE, canvas, name_rows, percent, png
from pipeline.report.canvas import label as write
from pipeline.report.study import (
    AxisRow,
    StudyRows,
    TrialRow,
    coordinates_title,
    history_title,
    importance_title,
)
from pipeline.report.words import metric_label, number

_MOST = 16
_PAPER = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
"""Behind a label that lies on lines."""


def study_figures(study: StudyRows) -> dict[str, bytes]:
    """Draw what a study has to show, by the names of the files."""
    drawn = {"history.png": history_figure(study), "coordinates.png": coordinates_figure(study)}
    if any(axis.importance is not None for axis in study.axes):
        drawn["importance.png"] = importance_figure(study)
    return drawn


def history_figure(study: StudyRows) -> bytes:
    """Draw what each trial reached, and the best so far, over the trials.

    As a change from the start on the same windows: only so are those that were given up after
    the first windows comparable. Where the start reaches nothing they are left out.
    """
    label = metric_label(study.metric)
    about = f"{label} · dots: measured on all windows · crosses: given up after the first ones"
    figure, axes = canvas(1, history_title(study), about, row=3.4, left=0.11, width=0.74)
    axes.grid(visible=False)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    for row in study.trials if study.relative else study.complete:
        if (reached := _reached(study, row)) is not None:
            mark, colour = ("o", BLUE) if row.state == "complete" else ("x", GREY)
            axes.plot([row.number], [reached], mark, color=colour, markersize=4, alpha=0.55)
    best, steps = -math.inf, []
    for row in study.complete:
        best = max(best, _reached(study, row) or 0.0)
        steps.append((row.number, best))
    last = max(row.number for row in study.trials)
    steps.append((last, best))
    axes.step(*zip(*steps, strict=True), where="post", color=BLUE, linewidth=2)
    begun = _reached(study, study.start) or 0.0
    axes.axhline(begun, color=ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(-0.02 * last - 0.5, 1.01 * last + 0.5)
    ends = [(begun, f"start {study.start.value:.4f}", ORANGE, "top")]
    if best > begun:
        ends.append((best, f"best {study.winner.value:.4f}", BLUE, "bottom"))
    for value, text, colour, side in ends:
        axes.annotate(text, (1.015, value), xycoords=("axes fraction", "data"), fontsize=9,
                      color=colour, va=side)  # fmt: skip
    if study.relative:
        axes.yaxis.set_major_formatter(percent)
    axes.set_xlabel("trial")
    axes.set_ylabel("change from the start" if study.relative else label, parse_math=False,
                    fontsize=9, color=GREY)  # fmt: skip
    return png(figure)


def importance_figure(study: StudyRows) -> bytes:
    """Draw the share of the differences that each field explains, most on top."""
    rows = sorted(study.axes, key=lambda axis: (-(axis.importance or 0.0), axis.name))[:_MOST]
    about = "share of the variance between trials, on the newest window, by fANOVA"
    figure, axes = canvas(len(rows), importance_title(study), about)
    for at, row in enumerate(rows):
        share = row.importance or 0.0
        axes.barh(at, share, height=0.56, color=GREY if at else BLUE, alpha=0.6, linewidth=0)
        write(axes, share + 0.015, at, f"{100 * share:.0f} %", INK, bold=not at)
    name_rows(axes, [row.name for row in rows])
    axes.set_xlim(0, 1.08)
    axes.xaxis.set_major_formatter(_share)
    return png(figure)


def coordinates_figure(study: StudyRows) -> bytes:
    """Draw each trial as a line over all fields, to the metric it reached at the right."""
    about = "blue: the best · orange: the start · pale: measured on all windows · grey: given up"
    figure, axes = canvas(1, coordinates_title(study), about, row=3.6, left=0.08, width=0.86)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    winner, begun = study.winner, study.start
    values = [row.value or 0.0 for row in study.complete]
    metric = AxisRow("", min(values), max(values), log=False)
    for row in sorted(study.trials, key=lambda row: (row is winner, row is begun, row.state)):
        colour, width, alpha = GREY, 0.8, 0.22
        if row.state == "complete":
            colour, width, alpha = BLUE, 0.8, 0.35
        if row is begun:
            colour, width, alpha = ORANGE, 1.8, 1.0
        if row is winner:
            colour, width, alpha = BLUE, 2.4, 1.0
        axes.plot(range(len(study.axes) + 1), _heights(row, study.axes, metric), "-o", color=colour,
                  linewidth=width, markersize=2.5 * width, alpha=alpha)  # fmt: skip
    labels = []
    for at, axis in enumerate((*study.axes, metric)):
        axes.axvline(at, color=LIGHT, linewidth=1, zorder=0)
        for height, end in ((-0.03, axis.low), (1.03, axis.high)):
            axes.text(at, height, number(end), fontsize=8, color=GREY, ha="center",
                      va="top" if height < 0 else "bottom")  # fmt: skip
        height = _heights(winner, study.axes, metric)[at]
        if at < len(study.axes) and not math.isnan(height):
            axes.text(at + 0.04, height + 0.03, number(winner.fields[axis.name]), fontsize=8.5,
                      color=BLUE, fontweight="bold", va="bottom", bbox=_PAPER)  # fmt: skip
        labels.append(axis.name.replace(".", ".\n") or metric_label(study.metric))
    size = 9 if len(labels) <= 8 else 6.5
    axes.set_xticks(range(len(labels)), labels, parse_math=False, fontsize=size)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.set_xlim(-0.35, len(labels) - 0.65)
    return png(figure)


def _reached(study: StudyRows, row: TrialRow) -> float | None:
    return row.lift if study.relative else row.value


def _heights(row: TrialRow, fields: Sequence[AxisRow], metric: AxisRow) -> list[float]:
    """Return where a trial crosses each axis, 0 to 1; a gap where it has no value."""
    ends = row.value if row.state == "complete" else None
    found = [*((axis, row.fields.get(axis.name)) for axis in fields), (metric, ends)]
    return [math.nan if value is None else _height(axis, value) for axis, value in found]


def _height(axis: AxisRow, value: float) -> float:
    if axis.high <= axis.low:
        return 0.5
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)


def _share(value: float, _: float) -> str:
    return f"{100 * value:.0f} %"
