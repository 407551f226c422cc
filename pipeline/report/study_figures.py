"""Figures of a study as PNG: a title that states the finding, direct labels, no legend.

Guarantees: equal rows give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate

from pipeline.models.search import Axis
from pipeline.number_text import share
from pipeline.report import figure
from pipeline.report.study import StudyRows, coordinates_title, history_title, importance_title
from pipeline.report.svg_card import fold
from pipeline.report.wording import number
from pipeline.workspace.experiment_artifacts import TrialRow

_MOST = 16
_LABEL = 12
_PAPER = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
"""Background of a label that lies on lines."""


def study_figures(study: StudyRows) -> dict[str, bytes]:
    """Draw the figures of a study; PNG files by name."""
    drawn = {"history.png": history_figure(study), "coordinates.png": coordinates_figure(study)}
    if study.file.importance.keys() & study.axes.keys():
        drawn["importance.png"] = importance_figure(study)
    return drawn


def history_figure(study: StudyRows) -> bytes:
    """Draw the lift of each trial over the first trial, and the best lift so far.

    Both are measured on the same windows, so that pruned trials, which were measured on the
    first windows only, are comparable. If the metric of the first trial is 0 the axis shows the
    metric, without pruned trials.
    """
    about = f"{study.label} · dots: measured on all windows · crosses: pruned"
    drawing, axes = figure.canvas(1, history_title(study), about, row=3.4, left=0.11, width=0.74)
    axes.grid(visible=False)
    axes.grid(axis="y", color=figure.LIGHT, linewidth=0.6)
    for row in study.file.trials if study.relative else study.complete:
        if (reached := _reached(study, row)) is not None:
            mark, colour = ("o", figure.BLUE) if row.state == "complete" else ("x", figure.GREY)
            axes.plot([row.number], [reached], mark, color=colour, markersize=4, alpha=0.55)
    steps = [(row.number, _reached(study, row) or 0.0) for row in study.complete]
    at, reached_so_far = zip(*steps, strict=True)
    bests = [*accumulate(reached_so_far, max)]
    # Pruned trials may follow the last complete one.
    best, last = bests[-1], max(row.number for row in study.file.trials)
    axes.step([*at, last], [*bests, best], where="post", color=figure.BLUE, linewidth=2)
    begun = _reached(study, study.start) or 0.0
    axes.axhline(begun, color=figure.ORANGE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlim(-0.02 * last - 0.5, 1.01 * last + 0.5)
    figure.write_right(axes, begun, f"start {study.start.value:.4f}", figure.ORANGE, "top")
    if best > begun:
        figure.write_right(axes, best, f"best {study.winner.value:.4f}", figure.BLUE, "bottom")
    if (mixed := study.mixed) is not None:
        axes.plot([last], [mixed], "D", color=figure.BLUE, markersize=7)
        figure.write_right(axes, mixed, f"mixed {study.best:.4f}", figure.BLUE)
    if study.relative:
        axes.yaxis.set_major_formatter(figure.percent)
    axes.set_xlabel("trial")
    axes.set_ylabel("change from the start" if study.relative else study.label, parse_math=False)
    return figure.png(drawing)


def importance_figure(study: StudyRows) -> bytes:
    """Draw the importance of each field, the highest on top (fANOVA)."""
    rows = sorted(study.importance.items(), key=lambda row: (-row[1], row[0]))[:_MOST]
    about = "share of the variance between trials, on the newest window, by fANOVA"
    drawing, axes = figure.canvas(len(rows), importance_title(study), about)
    most = rows[0][1]
    for at, (_, part) in enumerate(rows):
        axes.barh(
            at, part, height=0.56, color=figure.GREY if at else figure.BLUE, alpha=0.6, linewidth=0
        )
        weight = "normal" if at else "bold"
        figure.write(axes, part + 0.015 * most, at, share(part), fontsize=9, fontweight=weight)
    figure.name_rows(axes, [name for name, _ in rows])
    axes.set_xlim(0, min(1.08, 1.25 * most) or 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return figure.png(drawing)


def coordinates_figure(study: StudyRows) -> bytes:
    """Draw each trial as a line over the most important fields, with the metric at the right."""
    about = "blue: best · orange: start · pale: measured on all windows · grey: pruned"
    drawing, axes = figure.canvas(
        1, coordinates_title(study), about, row=3.6, left=0.06, width=0.89, foot=0.75
    )
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    # A pruned trial has fewer windows: its metric would lie on another scale.
    values = [row.value or 0.0 for row in study.complete]
    fields, reached = study.foremost, Axis((), min(values), max(values), log=False, whole=False)
    # The last line lies on top: the best trial, and below it the start.
    for row in sorted(
        study.file.trials, key=lambda row: (row is study.winner, row.start, row.state)
    ):
        colour, width, alpha = _stroke(study, row)
        heights = _heights(row, fields, reached)
        axes.plot(range(len(heights)), heights, "-o", color=colour, linewidth=width,
                  markersize=2.5 * width, alpha=alpha)  # fmt: skip
    for at, axis in enumerate((*fields.values(), reached)):
        axes.axvline(at, color=figure.LIGHT, linewidth=1, zorder=0)
        for height, end, side in ((-0.03, axis.low, "top"), (1.03, axis.high, "bottom")):
            axes.text(at, height, number(end), fontsize=8, color=figure.GREY, ha="center", va=side)
    for at, (name, axis) in enumerate(fields.items()):
        value = study.winner.fields.get(name)
        if value is not None:
            axes.text(at + 0.04, _height(axis, value) + 0.03, number(value), fontsize=8.5,
                      color=figure.BLUE, fontweight="bold", va="bottom", bbox=_PAPER)  # fmt: skip
    names = [fold(name.replace(".", ".\n"), _LABEL, 4) for name in (*fields, study.label)]
    axes.set_xticks(range(len(names)), names, parse_math=False, fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.set_xlim(-0.4, len(names) - 0.6)
    return figure.png(drawing)


def _stroke(study: StudyRows, row: TrialRow) -> tuple[str, float, float]:
    """Return colour, width and opacity of a trial's line."""
    if row is study.winner:
        return figure.BLUE, 2.4, 1.0
    if row.start:
        return figure.ORANGE, 1.8, 1.0
    return (figure.BLUE, 0.8, 0.35) if row.state == "complete" else (figure.GREY, 0.8, 0.22)


def _reached(study: StudyRows, row: TrialRow) -> float | None:
    return row.lift if study.relative else row.value


def _heights(row: TrialRow, fields: Mapping[str, Axis], reached: Axis) -> list[float]:
    """Return the position of a trial on each axis, 0 to 1; NaN leaves a gap."""
    end = row.value if row.state == "complete" else None
    values = [*((axis, row.fields.get(name)) for name, axis in fields.items()), (reached, end)]
    return [math.nan if value is None else _height(axis, value) for axis, value in values]


def _height(axis: Axis, value: float) -> float:
    # A span of a single value has no scale.
    if axis.high <= axis.low:
        return 0.5
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)
