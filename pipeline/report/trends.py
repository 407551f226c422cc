"""Figures over nightly runs as SVG: e-values, the champion's quality and lift, live quality, churn.

Guarantees: as `figures`; values of holdouts of different lengths are not joined by a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.evaluation.gate.e_process_status import EProcessStatus, e_value_text
from pipeline.evaluation.prequential import ALL, LiveFigures
from pipeline.report.figure import (
    BLUE,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    day_number,
    label_days,
    percent,
    short,
    spread,
    write,
)
from pipeline.report.live import draw_scores, patch_note
from pipeline.report.night import Dated, PastRun
from pipeline.report.svg_card import card, name_rows, svg
from pipeline.report.titles import (
    REFERENCES,
    LiftName,
    churn_title,
    e_processes_title,
    lift_title,
    live_title,
    metric_title,
)
from pipeline.report.wording import day, lift_text, metric_label, plain, power_of_ten, share
from pipeline.workspace.release_artifacts import ChurnFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Point: TypeAlias = tuple[PastRun, float, float | None, float | None]
"""A run, a figure of its champion, and the ends of its interval."""
_TALL = 1.75
_LINES = 6
_BARS = 8
_FLOOR = -2.0
_STROKES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", (0, (5, 2))),
    ("#007A5E", "^", (0, (1, 1.5))),
    (INK, "D", (0, (6, 2, 1, 2))),
    ("#AA4499", "v", (0, (3, 1, 1, 1, 1, 1))),
    (GREY, "P", "-"),
)
_HATCHES = ("////", "----", "xxxx", "||||", "++++", "\\\\\\\\")


def e_processes_figure(
    statuses: Sequence[EProcessStatus], paths: Mapping[str, Sequence[Dated[float]]]
) -> bytes:
    """Draw the e-value of each candidate by nightly run, on a log scale, with the threshold.

    Parameters
    ----------
    statuses
        At least one status; the `_LINES` with the highest e-values are drawn.
    paths
        Natural logarithm of the e-value by run, by the candidate's hash.
    """
    rows = sorted(statuses, key=lambda status: (-status.log_e, status.recipe))
    shown, left = rows[:_LINES], len(rows[_LINES:])
    tracks = [paths.get(status.recipe_hash, ()) for status in rows]
    title = e_processes_title(statuses)
    # An e-value falls towards 0 without limit: the axis ends at 10 to the power of `_FLOOR`.
    about = "e-value against the champion, log scale; 1: no evidence for either"
    if any(log / math.log(10) < _FLOOR for track in tracks[:_LINES] for _, log in track):
        about += f"; {power_of_ten(int(_FLOOR))}: this or less"
    about += f"; {left} more candidates have lower e-values" if left else ""
    drawing, (axes,) = card(2.0, title, about, left=0.5, right=1.5)
    threshold = max(status.threshold for status in rows)
    bound = math.log10(threshold)
    heights, low = [], -0.5
    for track, (colour, mark, dash) in zip(tracks[:_LINES], _STROKES, strict=False):
        at = [day_number(as_of) for as_of, _ in track]
        values = [max(log / math.log(10), _FLOOR) for _, log in track]
        axes.plot(at, values, color=colour, linestyle=dash, linewidth=1.6, marker=mark,
                  markersize=4, markevery=max(1, len(at) // 6), clip_on=False)  # fmt: skip
        heights.append(values[-1] if values else 0.0)
        low = min([low, *values])
    high = max([bound, *heights]) + 0.25
    axes.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.axhline(0, color=LIGHT, linewidth=1)
    axes.set_ylim(low - 0.15, high)
    label_days(axes, [as_of for track in tracks for as_of, _ in track])
    write(axes, 0.01, bound, f"a switch needs {threshold:,.0f}", va="bottom",
          transform=axes.get_yaxis_transform())  # fmt: skip
    placed = spread(heights, 0.16 * (high - low), low)
    for status, (colour, _, _), height in zip(shown, _STROKES, placed, strict=False):
        text = f"{short(status.recipe, 16)}\n{e_value_text(status.e_value)}"
        write(axes, 1.06, height, text, colour, transform=axes.get_yaxis_transform())
    ticks = range(math.ceil(low), math.floor(high) + 1)
    axes.set_yticks(ticks, [*map(power_of_ten, ticks)])
    return svg(drawing, "e_processes", title)


def metric_figure(past: Sequence[PastRun], metric: str) -> bytes:
    """Draw the champion's primary metric by nightly run, with 95 % intervals.

    Parameters
    ----------
    past
        At least one run with a mean.
    metric
        Name of the primary metric.
    """
    points = [(row, row.mean, row.lo, row.hi) for row in past if row.mean is not None]
    about = f"{metric_label(metric)} of the champion's recipe"
    title = metric_title(past, metric)
    drawing, axes = _champion(title, about, points)
    axes.set_ylim(bottom=0)
    return svg(drawing, "metric", title)


def lift_figure(past: Sequence[PastRun], over: LiftName, margin: float) -> bytes:
    """Draw a lift of the champion by nightly run, with 95 % intervals.

    Parameters
    ----------
    past
        At least one run with a lift.
    over
        Reference of all lifts.
    margin
        As for `evaluation.lift.verdict`.
    """
    about = f"lift over {REFERENCES[over]} of each run"
    if over == "over_before":
        about = f"0 %: as good as that version; {about}"
    # Each run has another version before it: a line would show a trend that is not there.
    joined = over != "over_before"
    return _lifts(past, over, lift_title(past, over, margin), about, joined=joined)


def first_figure(past: Sequence[PastRun]) -> bytes:
    """Draw the lift over version 1 by nightly run, with 95 % intervals.

    Parameters
    ----------
    past
        Runs that made a version, at least one with a lift.
    """
    newest = next(row for row in reversed(past) if row.lift is not None)
    text = lift_text(newest.lift, newest.lift_lo, newest.lift_hi)
    title = f"{newest.recipe} compared with version 1: {text}"
    about = "0 %: as good as version 1; product of the lifts of all versions since"
    # Before "%" a title does not break.
    return _lifts(past, "over_first", title.replace(" %", "\xa0%"), about)


def _lifts(
    past: Sequence[PastRun], name: str, title: str, about: str, *, joined: bool = True
) -> bytes:
    """Draw lifts of runs around 0."""
    points = [(row, row.lift, row.lift_lo, row.lift_hi) for row in past if row.lift is not None]
    drawing, axes = _champion(title, about, points, joined=joined)
    axes.axhline(0, color=INK, linewidth=1, zorder=1)
    axes.yaxis.set_major_formatter(percent)
    return svg(drawing, name, title)


def live_figure(live: Sequence[Dated[LiveFigures]], metric: str) -> bytes:
    """Draw the prequential score of the live lists by nightly run, with 95 % intervals.

    Parameters
    ----------
    live
        At least one score of all users.
    metric
        Name of the primary metric.
    """
    rows = [(at, row) for at, row in live if row.slice == ALL and row.ndcg is not None]
    title = live_title(rows[-1][1], metric)
    about = f"prequential {metric_label(metric)} of the live lists, 95 % intervals"
    drawing, (axes,) = card(_TALL, title, about + patch_note(rows), left=0.62, right=0.35)
    draw_scores(axes, rows, "v")
    label_days(axes, [as_of for as_of, _ in rows])
    axes.locator_params(axis="y", nbins=5)
    return svg(drawing, "live", title)


def churn_figure(churn: Sequence[Dated[ChurnFile]], tonight: datetime) -> bytes:
    """Draw the share of changed entries of each promotion by cause, the newest on top.

    Parameters
    ----------
    churn
        Promotions, oldest first; at least one with an overlap.
    tonight
        As-of of this run.
    """
    from matplotlib.patches import Rectangle

    rows = [
        (as_of, 1 - file.first.overlap, sorted(file.first.lost.items()))
        for as_of, file in churn
        if file.first.overlap is not None
    ][-_BARS:][::-1]
    names = sorted({name for _, _, lost in rows for name, part in lost if part > 0})
    title = churn_title(churn, tonight)
    about = "share of the entries that changed for users without new events, by cause"
    # Two causes per line of the key.
    lines = -(-max(len(names), 1) // 2)
    drawing, (axes,) = card(
        0.32 * len(rows), title, about, left=0.72, right=0.9, foot=0.42 + 0.2 * lines
    )
    top = max([*(changed for _, changed, _ in rows), 0.02])
    for at, (_, changed, lost) in enumerate(rows):
        begin = 0.0
        for name, part in lost:
            if part > 0:
                axes.barh(at, part, left=begin, height=0.6, **_fill(names.index(name)))
                begin += part
        if not begin and changed > 0:  # the causes were not measured
            axes.barh(at, changed, height=0.6, color="white", edgecolor=INK, linewidth=0.8)
        write(axes, top * 1.03, at, share(changed))
    name_rows(axes, [day(as_of) for as_of, _, _ in rows])
    axes.set_xlim(0, top)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    height = 0.32 * len(rows)
    for number, name in enumerate(names):
        x, y = 0.52 * (number % 2), -(0.36 + 0.2 * (number // 2)) / height
        corner, size = (x, y - 0.055 / height), (0.07, 0.11 / height)
        patch = Rectangle(corner, *size, transform=axes.transAxes, clip_on=False, **_fill(number))
        axes.add_patch(patch)
        write(axes, x + 0.09, y, plain(name), transform=axes.transAxes, clip_on=False)
    return svg(drawing, "churn", title)


def _champion(
    title: str, about: str, points: Sequence[_Point], *, joined: bool = True
) -> tuple[Figure, Axes]:
    """Draw values by run with their intervals; hollow for another holdout length than the last."""
    note = _others([row for row, *_ in points])
    drawing, (axes,) = card(_TALL, title, f"{about}, 95 % intervals{note}", left=0.62, right=0.35)
    newest = points[-1][0]
    for row, mean, lo, hi in points:
        at = day_number(row.as_of)
        if lo is not None and hi is not None:
            axes.plot([at] * 2, [lo, hi], color=BLUE, linewidth=1.6, zorder=2)
        switched = row.kind in ("first", "switch")
        face = BLUE if row.holdout_days == newest.holdout_days else "white"
        axes.plot([at], [mean], "D" if switched else "o", color=BLUE, markersize=5.5,
                  markerfacecolor=face, zorder=3)  # fmt: skip
        if switched:
            side = "right" if row is newest and len(points) > 1 else "center"
            top = mean if hi is None else hi
            write(axes, at, top, short(row.recipe, 18), GREY, ha=side, va="bottom")
    for (row, mean, *_), (later, then, *_) in pairwise(points):
        if joined and row.holdout_days == later.holdout_days:
            span = [day_number(row.as_of), day_number(later.as_of)]
            axes.plot(span, [mean, then], color=BLUE, linewidth=1, zorder=1)
    label_days(axes, [row.as_of for row, *_ in points])
    axes.margins(y=0.18)
    axes.locator_params(axis="y", nbins=5)
    return drawing, axes


def _others(rows: Sequence[PastRun]) -> str:
    """Explain the marks: new recipes, and other lengths of the holdout."""
    lengths = sorted({row.holdout_days for row in rows} - {rows[-1].holdout_days})
    note = "; diamond: a new recipe" if any(row.kind in ("first", "switch") for row in rows) else ""
    if not lengths:
        return note
    named = " or ".join(str(length) for length in lengths)
    return f"{note}; hollow: holdout of {named} days, not {rows[-1].holdout_days}"


def _fill(number: int) -> dict[str, Any]:
    """Return the fill of a cause: hatches differ, so causes differ without colour, too."""
    return {
        "hatch": _HATCHES[number % len(_HATCHES)],
        "facecolor": "white",
        "edgecolor": _STROKES[number % len(_STROKES)][0],
        "linewidth": 0.8,
    }
